"""Proofs for every size: what is proved, that a broken rule loses its property, and that no fact is wrong anywhere."""

import itertools
import json
from collections import deque
from random import Random

import pytest

pytest.importorskip("z3", reason="the extra `prove` is not installed")

from click.testing import CliRunner

from drawn_cases import drawn_document
from proving import copied, place_of
from test_broken_rules import BROKEN
from ultrafolio import shipped
from ultrafolio.check.verdicts.verdict import Extent, check
from ultrafolio.commands.prove import WITHOUT, prove_command
from ultrafolio.engine.interp import to_lists
from ultrafolio.engine.load import interpreted
from ultrafolio.errors import InputError
from ultrafolio.model import policies, scenario
from ultrafolio.model.layout import ACTOR_KINDS, State
from ultrafolio.model.properties import PROPERTIES
from ultrafolio.prove import judge, start, terms
from ultrafolio.prove.before import OTHER, PAGE, WHERE, of_other
from ultrafolio.prove.evaluate import Concrete
from ultrafolio.prove.facts import PAIRS, RANGES, THREAD, View
from ultrafolio.prove.houdini import Tally
from ultrafolio.prove.paths import STEPS, at, reached
from ultrafolio.prove.refuted import meets
from ultrafolio.prove.rules import Rules
from ultrafolio.prove.state import Refused, Symbolic

ONE = "per-page"
"""The policy whose proof the short tests look at."""
FEW_KINDS = {"vcpu", "disk"}
"""The kinds of actors of that proof; --long proves with all kinds."""


def without(kinds):
    """The kinds of actors that are left out where only these act."""
    return WITHOUT | {number for number, name in enumerate(ACTOR_KINDS) if name not in kinds}


STATES = 40
"""Steps of the walk through each scenario in whose states facts are evaluated; --long looks at LONG_STATES states."""
LONG_STATES = 2_000
SMALL = 4
"""Pages of a scenario at most for that."""


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """(the proof of ONE, the folder with its questions)"""
    folder = tmp_path_factory.mktemp("smt2")
    return judge.prove(policies.find(ONE), without=without(FEW_KINDS), tally=Tally(smt2=folder)), folder


def proved(proof):
    return {number for number, places in proof.open.items() if not places}


# --------------------------------------------------------------------------------------------- what is proved
def test_the_short_policy_is_proved(kept):
    assert proved(kept[0]) == EXPECTED[ONE]
    assert kept[0].tally.unanswered == 0


NOT_PROVED = {10, 11}
"""Properties that are proved for no policy: scenario 07 breaks them under every idea."""
SAFE = set(range(1, len(PROPERTIES))) - NOT_PROVED
EXPECTED = {ONE: SAFE, "import-lock": SAFE, "whole-folio": SAFE}
"""Properties that are proved, per policy."""


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_a_policy_is_proved(name):
    assert proved(judge.prove(policies.find(name), without=WITHOUT)) == EXPECTED[name]


# ------------------------------------------------------------------------------------------ facts and states
def reachable(made, most):
    """The first states of a system, breadth first, by the interpreter."""
    first = to_lists(made.state)
    seen, left = {key(first)}, deque([first])
    while left:
        state = left.popleft()
        yield state
        for t, choices in enumerate(made.choices):
            for op, page in choices:
                new = copied(state)
                if interpreted().step(new, t, op, page) > 0 and key(new) not in seen and len(seen) < most:
                    seen.add(key(new))
                    left.append(new)


def key(state: State):
    return tuple(tuple(getattr(row, name) for name in row.__slots__) for section in state[2:] for row in section)


def walked(made, random, steps):
    """The states of a random walk, by the interpreter."""
    state = to_lists(made.state)
    for _ in range(steps):
        t = random.randrange(len(state.task))
        if interpreted().step(state, t, *random.choice(made.choices[t])) > 0:
            yield state


def wrong_facts(proof, state, s, w, page, other):
    """What the induction is given, for a thread, another one and two pages of a state: what of it is false."""
    p = proof.problem
    place, where = place_of(state, s), p.places.index(place_of(state, w))
    flags = {
        of_other(kind, name).args[0]: where in p.where(kind, name)
        for kind, names in (("thread", THREAD), ("range", RANGES), ("pair", PAIRS))
        for name in names
    }
    values = {PAGE.args[0]: page, WHERE.args[0]: where, "Q": other, **flags}
    here = Concrete(state, {STEPS: s, OTHER: w}, values)
    given = [*p.of_threads(place), *p.of_page(place, PAGE), *p.of_two_pages(PAGE, terms.var("Q"))]
    for fact, formula in given:
        if (fact is None or p.is_kept(fact)) and not here.holds(formula):
            yield place.name, fact


def wrong_in(proof, states, random, each):
    """What is false in these states, for `each` random choices of threads and pages; and how many states there were."""
    found, count = [], 0
    for state in states:
        count += 1
        if len(state.task) < 2:
            continue
        for _ in range(each):
            s, w = random.sample(range(len(state.task)), 2)
            page, other = random.choices(range(len(state.mm)), k=2)
            found += wrong_facts(proof, state, s, w, page, other)
    return found, count


def small_scenarios(left_out):
    for file in shipped.shipped("scenarios"):
        story = scenario.read(file)
        if meets(story, left_out) and sum(1 << order for order in story.memory["folios"]) <= SMALL:
            yield story


def looked_at(proof, policy, left_out, states_of, each):
    """Evaluate the facts of a proof in states of each small scenario; how many states there were."""
    total = 0
    for story in small_scenarios(left_out):
        random = Random(story.title)
        states = states_of(scenario.system(story, policies.find(policy)), random)
        wrong, count = wrong_in(proof, states, random, each)
        assert not wrong, story.title
        total += count
    return total


def test_every_fact_holds_in_reachable_states(kept):
    assert looked_at(kept[0], ONE, without(FEW_KINDS), lambda made, random: walked(made, random, STATES), 1) > 100


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_every_fact_holds_in_many_reachable_states(name):
    proof = judge.prove(policies.find(name), without=WITHOUT, numbers=())
    assert looked_at(proof, name, WITHOUT, lambda made, _: reachable(made, LONG_STATES), 3) > 5_000


def test_a_wrong_fact_is_seen_in_reachable_states(kept):
    """The look at states is no look at nothing: a fact that is not kept is found to be false somewhere."""
    p = kept[0].problem
    before = p.kept
    p.keep(before | {("page", None, "no bit is set on another page of a folio than the first")})
    found = []
    for story in itertools.islice(small_scenarios(without(FEW_KINDS)), 5):
        states = walked(scenario.system(story, policies.find(ONE)), Random(1), 40)
        found += wrong_in(kept[0], states, Random(2), 1)[0]
    p.keep(before)
    assert {fact[2] for _, fact in found} == {"no bit is set on another page of a folio than the first"}


def drawn(number, left_out=WITHOUT):
    """A random system under no policy yet that meets the assumptions."""
    random = Random(f"proofs {number}")
    while True:
        try:
            story = scenario.parse(drawn_document(random, random.randrange(1000)), "drawn")
        except InputError:
            continue
        if meets(story, left_out):
            return story


@pytest.mark.parametrize("policy", policies.PRESETS)
def test_initial_states_are_those_of_scenarios(policy):
    chosen = policies.find(policy)
    for number in range(20):
        state = to_lists(scenario.system(drawn(number), chosen).state)
        for t, page in itertools.product(range(len(state.task)), range(len(state.mm))):
            place = place_of(state, t)
            view = View(at(place), Symbolic(STEPS), chosen.codes())
            here = Concrete(state, {STEPS: t}, {PAGE.args[0]: page})
            for formula in (*start.of_thread(view), *start.of_machine(view), *start.of_page(view, PAGE)):
                assert here.holds(formula), (number, place.name, formula)


# --------------------------------------------------------------------------------------- against the checker
def contradicted(proof, policy, left_out, numbers):
    """Systems in which the checker breaks a property that is proved."""
    for number in numbers:
        result = check(drawn(number, left_out), "drawn", policy, "drawn", Extent(max_states=2_000, safety=True))
        broken = {PROPERTIES.index(f.name) for f in result.findings if f.verdict == "violated"}
        if broken & proved(proof):
            yield number, broken & proved(proof)


def test_the_checker_breaks_nothing_that_is_proved(kept):
    assert list(contradicted(kept[0], policies.find(ONE), without(FEW_KINDS), range(12))) == []


BROKEN_RULES = [name for name, case in BROKEN.items() if case[2] and case[0] < 10]
"""Deliberately broken rules; properties 10 and 11 are proved under no policy."""
FEW = ["import without the reference check"]


def lost(name):
    """The properties that are not proved with a broken rule, where only the kinds of actors act that show the fault."""
    _, policy, changed, document = BROKEN[name]
    kinds = {"vcpu", *(set(document) & set(ACTOR_KINDS))}
    proof = judge.prove(policies.find(policy), without=without(kinds), rules=Rules(changed))
    return set(proof.open) - proved(proof)


@pytest.mark.parametrize("name", FEW)
def test_a_broken_rule_loses_its_property(name):
    assert BROKEN[name][0] in lost(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BROKEN_RULES if name not in FEW])
def test_each_broken_rule_loses_its_property(name):
    assert BROKEN[name][0] in lost(name)


# ------------------------------------------------------------------------------------------------ refusals
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("            m.batch = 0\n", "            m.batch = s.mm[q + 1].batch\n"),
        ("    return s.vm[vm].life == ALIVE", "    return s.vm[vm].life << 2 == ALIVE"),
    ],
)
def test_a_rule_of_another_form_is_refused_by_name(old, new):
    with pytest.raises(Refused, match=r"^rule [a-z-]+: "):
        reached(Rules({old: new}), policies.find(ONE), WITHOUT)


# ------------------------------------------------------------------------------------------------- solvers
def second_answer(file):
    """What cvc5 says to a question that z3 answered with unsat."""
    import cvc5

    solver = cvc5.Solver()
    solver.setOption("tlimit-per", "20000")
    parser = cvc5.InputParser(solver)
    parser.setFileInput(cvc5.InputLanguage.SMT_LIB_2_6, str(file))
    symbols, said = parser.getSymbolManager(), []
    while not (command := parser.nextCommand()).isNull():
        said.append(command.invoke(solver, symbols).strip())
    return [word for word in said if word][-1]


def test_another_solver_agrees(kept):
    pytest.importorskip("cvc5", reason="cvc5 is not installed")
    files = sorted(kept[1].glob("*.smt2"))
    chosen = Random("cvc5").sample(files, 30)
    answers = [second_answer(file) for file in chosen]
    assert "sat" not in answers and answers.count("unsat") > 20


# ------------------------------------------------------------------------------------------------- command
def test_a_question_is_kept_for_each_step(kept):
    steps = {file.name.split("-")[1] for file in kept[1].glob("step-*.smt2")}
    assert len(steps) > 50


def test_the_command_says_what_is_proved(monkeypatch, kept):
    monkeypatch.setattr(judge, "prove", lambda *_, **given: kept[0])
    told = CliRunner().invoke(prove_command, ["--policy", ONE, "--json"], standalone_mode=False)
    record = json.loads(told.output)
    assert told.return_value == 1 and {p["verdict"] for p in record["properties"]} <= {"proved", "false", "not proved"}
    assert record["assumed"] and record["facts"] == len(kept[0].problem.kept)
    text = CliRunner().invoke(prove_command, ["--policy", ONE], standalone_mode=False).output
    assert "assumed: " in text and "not asked: " in text
    facts = CliRunner().invoke(prove_command, ["--policy", ONE, "--facts"], standalone_mode=False).output
    assert "## Of every page" in facts and "a page whose bit is clear is accessible" in facts
