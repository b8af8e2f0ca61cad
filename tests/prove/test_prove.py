"""Proofs for every size: what is proved, that a broken rule loses its property, and that no fact is wrong anywhere."""

import itertools
import re
from pathlib import Path
from random import Random

import pytest

pytest.importorskip("z3", reason="the extra `prove` is not installed")


from drawn_cases import drawn_document
from proving import FEW_KINDS, ONE, asked_again, evaluated, other_answers, place_of, reachable, walked, wrong_in
from test_broken_rules import BROKEN
from ultrafolio import shipped
from ultrafolio.check.verdicts.verdict import Extent, check
from ultrafolio.engine.interp import to_lists
from ultrafolio.errors import Defect, InputError
from ultrafolio.model import policies, scenario
from ultrafolio.model.layout import ACTOR_KINDS
from ultrafolio.model.properties import PROPERTIES
from ultrafolio.prove import WITHOUT, all_but, breaking, facts, judge, refuted, several, start
from ultrafolio.prove.before import PAGE, Problem
from ultrafolio.prove.earlier import Earlier, shared
from ultrafolio.prove.evaluate import Concrete
from ultrafolio.prove.facts import PAIRS, RANGES, THREAD, View, pair
from ultrafolio.prove.houdini import Tally
from ultrafolio.prove.paths import STEPS, at, reached
from ultrafolio.prove.rules import Rules, unchanged
from ultrafolio.prove.state import Refused, Symbolic
from ultrafolio.prove.systems import Systems, meets

STATES = 40
"""Steps of the walk through each scenario in whose states facts are evaluated; --long looks at LONG_STATES states."""
LONG_STATES = 2_000
SMALL = 4
"""Pages of a scenario at most for that."""


def proved(proof):
    return {number for number, places in proof.open.items() if not places}


# --------------------------------------------------------------------------------------------- what is proved
def test_the_short_policy_is_proved(kept):
    assert proved(kept[0]) == EXPECTED[ONE]
    assert kept[0].tally.unanswered == 0


NOT_PROVED = {10, 11}
"""Properties that are proved for no policy: scenario 07 breaks them under every idea."""
SAFE = set(range(1, len(PROPERTIES))) - NOT_PROVED
EXPECTED = {
    **dict.fromkeys(policies.PRESETS, SAFE),
    "whole-folio-literal": SAFE - {3},
    "split-false-success": SAFE - {9},
}
"""Properties that are proved, per policy; each other one is false."""


def test_the_guide_has_the_verdicts():
    text = (Path(__file__).parents[2] / "docs/read-a-proof.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| ([\d, ]+) \| ([\d, ]+) \|$", text, re.MULTILINE)
    told = {name: [set(map(int, cell.split(", "))) for cell in cells] for name, *cells in rows}
    assert told == {name: [safe, set(judge.NUMBERS) - safe] for name, safe in EXPECTED.items()}


@pytest.fixture(scope="module")
def every():
    """The outcome for each preset, proved one after the other."""
    chosen = [Systems(name, policies.find(name), WITHOUT) for name in policies.PRESETS]
    return {each.policy: each for each in several.proofs(chosen, judge.NUMBERS)}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_each_preset_is_proved_or_refuted(every):
    verdicts = {
        name: {number for number in judge.NUMBERS if each.verdict(number) == "proved"} for name, each in every.items()
    }
    assert verdicts == EXPECTED
    for name, each in every.items():
        assert set(each.refuted) == set(judge.NUMBERS) - EXPECTED[name]
        assert each.proof.tally.unanswered == 0
    shared = [name for name, each in every.items() if each.proof.tally.shared > 100]
    assert len(shared) >= 4, "policies that differ in few choices share most steps"


def test_what_breaks_a_property_is_a_step_at_which_the_proof_is_open(kept):
    left = {number: steps for number, steps in kept[0].open.items() if steps}
    systems = Systems(ONE, policies.find(ONE), WITHOUT)
    found = refuted.counterexamples(systems, left)
    assert set(found) == set(left) == {10, 11}
    assert all(one.rule in {at.rule for at in left[number]} for number, one in found.items())
    elsewhere = {10: left[11]}
    with pytest.raises(Defect, match="which the proof of per-page excludes"):
        refuted.counterexamples(systems, elsewhere)


def test_a_system_is_made_of_the_failed_step_where_no_shipped_scenario_breaks_the_property(kept, monkeypatch):
    monkeypatch.setattr(shipped, "shipped", lambda kind, **_: [])
    left = {10: kept[0].open[10]}
    systems = Systems(ONE, policies.find(ONE), all_but(FEW_KINDS))
    (one,) = refuted.counterexamples(systems, left).values()
    assert one.scenario == "made" and "[[disk]]" in one.text and one.steps > 5


def test_no_step_breaks_what_is_kept(kept):
    """Also not a fact that a step carries over from where it was kept when the step was shown, and is not any more."""
    assert asked_again(kept[0]) == {}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_step_breaks_what_is_kept_under_any_preset(every):
    assert {name: len(asked_again(each.proof)) for name, each in every.items()} == dict.fromkeys(every, 0)


# ----------------------------------------------------------------------------------------------- shared facts
def test_a_proof_begins_with_what_an_earlier_one_showed(kept):
    again = judge.prove(policies.find(ONE), without=all_but(FEW_KINDS), earlier=kept[0].earlier)
    assert proved(again) == proved(kept[0]) and again.problem.kept == kept[0].problem.kept
    assert again.tally.shared == len(again.problem.steps)
    assert again.tally.questions < kept[0].tally.questions / 3


def test_what_is_shown_beside_fewer_places_is_asked_again_beside_the_new_ones(kept):
    """With LRU batches there are more places, and steps beside them are asked about."""
    more = judge.prove(policies.find(ONE), without=all_but({*FEW_KINDS, "lru"}), earlier=kept[0].earlier)
    assert proved(more) == SAFE and 0 < more.tally.shared < len(more.problem.steps)
    assert all(n in more.shown for n in range(len(more.problem.steps)))


def test_a_fact_that_an_earlier_proof_has_and_a_broken_rule_breaks_is_dropped(kept):
    changed = {"    set_arch(s, s.task[t].page)\n": ""}
    proof = judge.prove(
        policies.find(ONE), without=all_but(FEW_KINDS), rules=Rules(changed), earlier=kept[0].earlier, numbers=(2,)
    )
    assert not proved(proof) and proof.problem.kept < kept[0].problem.kept


@pytest.mark.parametrize("name", ["per-page", "import-lock", "folio-bitmap"])
def test_facts_read_the_choices_that_are_compared(name):
    """Facts can be said where only the choices of facts.COMPARED are known: a fact that reads another is a KeyError."""
    codes = policies.find(name).codes()
    cfg = {choice: codes[choice] for choice in facts.COMPARED}
    for place in reached(unchanged(), policies.find(name).codes(), WITHOUT):
        view = View(at(place), Symbolic(STEPS), cfg)
        said = [fact.says(view) for fact in THREAD.values()]
        said += [fact(view, PAGE) for fact in facts.PAGES.values()]
        said += [pair(fact, view, view, place, PAGE) for fact in PAIRS]
        said += [fact.broken(view, PAGE) for fact in RANGES.values()]
        assert not all(isinstance(value, bool) for value in said)


def test_a_step_that_an_earlier_policy_never_takes_is_not_shared(kept):
    """A place may be there under both policies, and its thread go on under one of them only."""
    new = kept[0].problem
    place = new.steps[0].place
    old = Problem(new.rules, new.cfg, {**new.paths, place: []})
    every_step = dict.fromkeys(range(len(new.steps)), frozenset())
    stands = shared(new, Earlier(old, every_step, every_step, (1,)), (1,))
    assert set(stands.shown) == {n for n, path in enumerate(new.steps) if path.place != place}


def test_properties_are_judged_at_once_as_they_are_one_by_one(kept):
    """The rules are read once for all properties, unless one of them is about many pages; what is found is the same."""
    p = kept[0].problem
    at_once = breaking.Judges(p.rules, judge.NUMBERS, p.read)
    alone = {number: breaking.Judges(p.rules, (number,), p.read) for number in judge.NUMBERS}
    found = set()
    for path in p.steps:
        ways = {way.number for way in at_once.ways(path)}
        assert ways == {n for n, one in alone.items() if list(one._one(path, n))}, path.place.name
        found |= ways
    assert found == set(judge.NUMBERS) - {7, 8}, "what few kinds of actors may break, before any fact is known"


@pytest.mark.parametrize(
    ("name", "number", "chosen"),
    [("13-mapped-twice", 5, policies.PRESETS), ("05-late-failure", 8, [ONE])],
)
def test_what_a_proof_assumes_excludes_a_property_that_is_false(name, number, chosen):
    (file,) = (file for file in shipped.shipped("scenarios") if file.stem == name)
    story = scenario.read(file)
    assert not meets(story, WITHOUT)
    for policy in chosen:
        result = check(story, name, policies.find(policy), policy, Extent(max_states=2_000, safety=True))
        assert PROPERTIES[number] in {one.name for one in result.findings if one.verdict == "violated"}, policy


# ------------------------------------------------------------------------------------------ facts and states
def small_scenarios(left_out):
    for file in shipped.shipped("scenarios"):
        story = scenario.read(file)
        if meets(story, left_out) and sum(1 << order for order in story.memory["folios"]) <= SMALL:
            yield story


def looked_at(proof, policy, left_out, states_of, each):
    """Evaluate the facts of a proof in states of each small scenario; how many states there were."""
    made = ((story.title, scenario.system(story, policies.find(policy))) for story in small_scenarios(left_out))
    return evaluated(proof, made, states_of, each)


def test_every_fact_holds_in_reachable_states(kept):
    assert looked_at(kept[0], ONE, all_but(FEW_KINDS), lambda made, random: walked(made, random, STATES), 1) > 100


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", EXPECTED)
def test_every_fact_holds_in_many_reachable_states(name, every):
    assert looked_at(every[name].proof, name, WITHOUT, lambda made, _: reachable(made, LONG_STATES), 3) > 5_000


def test_a_wrong_fact_is_seen_in_reachable_states(kept):
    """The look at states is no look at nothing: a fact that is not kept is found to be false somewhere."""
    p = kept[0].problem
    before = p.kept
    p.keep(before | {("page", None, "no bit is set on another page of a folio than the first")})
    found = []
    for story in itertools.islice(small_scenarios(all_but(FEW_KINDS)), 5):
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
    assert list(contradicted(kept[0], policies.find(ONE), all_but(FEW_KINDS), range(12))) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", EXPECTED)
def test_the_checker_breaks_nothing_that_is_proved_in_many_systems(name, every):
    assert list(contradicted(every[name].proof, policies.find(name), WITHOUT, range(200))) == []


BROKEN_RULES = [
    name
    for name, (number, _, _, document) in BROKEN.items()
    if number not in NOT_PROVED and "refuses" not in document["memory"] and "mapping" not in document
]
"""Broken rules, and bugs of kernels, that break a property in a system that meets the assumptions, but those of
NOT_PROVED."""
FEW = ["import without the reference check"]
"""Those of ONE that the kinds FEW_KINDS show: they begin with its proof."""


def lost(name, earlier=None):
    """The properties that are not proved with a broken rule, where only the kinds of actors act that show the fault."""
    _, policy, changed, document = BROKEN[name]
    kinds = FEW_KINDS if earlier else {"vcpu", *(set(document) & set(ACTOR_KINDS))}
    proof = judge.prove(policies.find(policy), without=all_but(kinds), rules=Rules(changed), earlier=earlier)
    return set(proof.open) - proved(proof)


@pytest.mark.parametrize("name", FEW)
def test_a_broken_rule_loses_its_property(name, kept):
    assert BROKEN[name][0] in lost(name, kept[0].earlier)


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN_RULES)
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
        reached(Rules({old: new}), policies.find(ONE).codes(), WITHOUT)


# ------------------------------------------------------------------------------------------------- solvers
def test_another_solver_agrees(kept):
    answers = other_answers(kept[1], 50)
    assert "sat" not in answers and answers.count("unsat") > 40


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_another_solver_agrees_on_every_question_of_a_policy(tmp_path):
    proof = judge.prove(policies.find(ONE), without=WITHOUT, tally=Tally(smt2=tmp_path))
    answers = other_answers(tmp_path)
    assert len(answers) > len(proof.problem.steps) and set(answers) == {"unsat"}
