"""Proofs about guest_memfd: what is proved, that a broken rule loses its property, that no fact is wrong anywhere."""

import itertools
import re
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

pytest.importorskip("z3", reason="the extra `prove` is not installed")

import memfd_cases
from proving import (
    FEW_MEMFD,
    asked_again,
    evaluated,
    other_answers,
    place_of,
    reachable,
    walked,
    wrong_in,
)
from test_guest_memfd import BROKEN
from ultrafolio.check.verdicts.verdict import Extent, check
from ultrafolio.engine.interp import to_lists
from ultrafolio.model import policies, scenario
from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.model.guest_memfd.machines import NAMES
from ultrafolio.model.guest_memfd.policy import PRESETS
from ultrafolio.model.guest_memfd.policy import VARIANTS as NAMED
from ultrafolio.prove import all_but, breaking, judge, several, without
from ultrafolio.prove.before import PAGE
from ultrafolio.prove.evaluate import Concrete
from ultrafolio.prove.facts import View
from ultrafolio.prove.houdini import Houdini, Tally
from ultrafolio.prove.memfd import start
from ultrafolio.prove.memfd.configuration import configuration
from ultrafolio.prove.paths import STEPS, at
from ultrafolio.prove.rules import Rules, unchanged
from ultrafolio.prove.state import Refused, Symbolic
from ultrafolio.prove.systems import Systems
from ultrafolio.prove.window import Window

ONE, ALL = "gmem-7.4", tuple(range(1, len(GUEST_MEMFD.properties)))
FEW = all_but(FEW_MEMFD, GUEST_MEMFD)
STATES, LONG_STATES = 40, 2_000
"""Steps of the walk through each scenario in whose states facts are evaluated; --long looks at LONG_STATES states."""
SMALL = 4
"""Pages of a scenario at most for that."""


def proved(proof):
    return {number for number, places in proof.open.items() if not places}


def proof_of(policy, machine, left_out, **more):
    cfg = configuration(policies.find_any(policy), machine)
    given = {"rules": unchanged(GUEST_MEMFD), "numbers": ALL, **more}
    return judge.prove_under(cfg, without=left_out, **given)


# --------------------------------------------------------------------------------------------- what is proved
def test_the_short_policy_is_proved(kept_memfd):
    assert proved(kept_memfd[0]) == set(ALL)
    assert kept_memfd[0].tally.unanswered == 0


def test_each_rule_can_be_run(kept_memfd):
    """No proof of nothing: all facts together leave a way through each rule."""
    p = kept_memfd[0].problem
    run = Houdini(p, Tally())
    possible = {
        path.place.name for path in p.steps if not run.given(path, Window(p, path), [], "possible").excludes([True])
    }
    assert possible == {place.name for place in p.places}


def test_no_step_breaks_what_is_kept(kept_memfd):
    assert asked_again(kept_memfd[0]) == {}


def test_properties_are_judged_at_once_as_they_are_one_by_one(kept_memfd):
    p = kept_memfd[0].problem
    at_once = breaking.Judges(p.rules, ALL, p.read)
    alone = {number: breaking.Judges(p.rules, (number,), p.read) for number in ALL}
    for path in p.steps[::3]:
        ways = {way.number for way in at_once.ways(path)}
        assert ways == {n for n, one in alone.items() if list(one._one(path, n))}, path.place.name


@pytest.fixture(scope="module")
def every():
    """The outcome for each preset on each machine that it fits, by its label, for single pages."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(several, "forms", lambda systems: [systems])
        return {each.systems.label: each for each in several.proofs(asked(), ALL)}


def asked():
    return [
        Systems(name, policy, without(GUEST_MEMFD), machine)
        for name, (_, policy) in PRESETS.items()
        for machine in NAMES
        if policy.fits(machine)
    ]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_each_preset_is_proved_or_refuted_as_the_guide_says(every):
    assert {label: verdicts(each) for label, each in every.items()} == told_by_the_guide()
    assert not any(each.proof and each.proof.tally.unanswered for each in every.values())


def verdicts(outcome):
    """The numbers in documents that are proved, false, and not proved."""
    found = {"proved": [], "false": [], "not proved": []}
    for number in ALL:
        found[outcome.verdict(number)].append(outcome.number(number))
    return tuple(found.values())


def told_by_the_guide():
    text = (Path(__file__).parents[2] / "docs/read-a-proof.md").read_text()
    rows = re.findall(
        r"^\| `([a-z0-9.-]+)` \| ([a-z, ]+) \| ([\d, ]*) \| ([\d, ]*) \| ([\d, ]*) \|$", text, re.MULTILINE
    )
    return {
        f"{name} on {where}": tuple([int(n) for n in cell.split(",") if n.strip()] for cell in cells)
        for name, where, *cells in rows
    }


def test_the_guide_has_each_preset_on_each_machine():
    labels = {systems.label for systems in asked()}
    told = told_by_the_guide()
    assert set(told) == labels
    assert all(sorted(itertools.chain(*cells)) == [GUEST_MEMFD.first + n for n in ALL] for cells in told.values())


# ------------------------------------------------------------------------------------------ facts and states
def small_systems(systems):
    """The small shipped scenarios among these systems, each as its name and its first state."""
    for story, name, _ in systems.shipped():
        if sum(1 << order for order in story.memory["folios"]) <= SMALL:
            yield name, scenario.system(story, systems.policy)


def test_every_fact_holds_in_reachable_states(kept_memfd):
    systems = Systems(ONE, policies.find_any(ONE), FEW, "software")
    made = small_systems(systems)
    assert evaluated(kept_memfd[0], made, lambda made, random: walked(made, random, STATES), 2) > 100


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_fact_holds_in_many_reachable_states(every):
    for each in every.values():
        if each.proof:
            made = small_systems(each.systems)
            assert evaluated(each.proof, made, lambda made, _: reachable(made, LONG_STATES), 3) > 1_000, each.policy


def test_a_wrong_fact_is_seen_in_reachable_states(kept_memfd):
    """A fact that does not hold is refuted by a state of a scenario."""
    p, wrong = kept_memfd[0].problem, "faults share the lock"
    before = p.kept
    p.keep(before | {("thread", place, wrong) for place in p.places})
    systems = Systems(ONE, policies.find_any(ONE), FEW, "software")
    found = []
    for _, made in itertools.islice(small_systems(systems), 3):
        found += wrong_in(kept_memfd[0], walked(made, Random(1), 40), Random(2), 1)[0]
    p.keep(before)
    assert {fact[2] for _, fact in found} == {wrong}


def drawn(number):
    """A random system that meets the assumptions, and its first state; None where the case of this number does not."""
    case = memfd_cases.drawn(number)
    systems = Systems(case.name, case.policy, without(GUEST_MEMFD), case.document["machine"])
    return (case, case.system()) if systems.meets(case.story) else None


@pytest.mark.parametrize("convert", ["in-place", "two-backings", "by-guest"])
def test_initial_states_are_those_of_scenarios(convert):
    found = [made for made in map(drawn, range(200)) if made and made[0].policy.convert == convert]
    assert len(found) > 5
    for case, made in found:
        cfg, state = configuration(case.policy, case.document["machine"]), to_lists(made.state)
        for t, page in itertools.product(range(len(state.task)), range(len(state.mm))):
            place = place_of(state, t)
            view = View(at(place), Symbolic(STEPS), cfg)
            here = Concrete(state, {STEPS: t}, {PAGE.args[0]: page})
            for formula in (*start.of_thread(view, place), *start.of_machine(view), *start.of_page(view, PAGE)):
                assert here.holds(formula), (case.name, place.name, formula)


# --------------------------------------------------------------------------------------- against the checker
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_checker_breaks_nothing_that_is_proved(every):
    """Random systems under the presets, on the machine that was drawn."""
    tried = 0
    for number in range(400):
        case = memfd_cases.drawn(number)
        for name, (_, policy) in PRESETS.items():
            systems = Systems(name, policy, without(GUEST_MEMFD), case.document["machine"])
            if not policy.fits(systems.machine) or not systems.meets(case.story):
                continue
            tried += 1
            result = check(case.story, "drawn", policy, name, Extent(max_states=2_000, safety=True))
            broken = {GUEST_MEMFD.properties.index(f.name) for f in result.findings if f.verdict == "violated"}
            assert not broken & {n for n in ALL if every[systems.label].verdict(n) == "proved"}, (number, name)
    assert tried > 200


BROKEN_RULES = [name for name, (number, where, changed) in BROKEN.items() if changed and number < 10]
"""Broken rules that break a property in a system that meets the assumptions."""
SHORT = ("a user's fault does not read the attribute", "an invalidation makes no snapshot old")


def lost(name, machine="software", left_out=FEW, **more):
    """The properties that are not proved with a broken rule."""
    rules = Rules(BROKEN[name][2], GUEST_MEMFD)
    proof = proof_of(ONE, machine, left_out, rules=rules, **more)
    return set(proof.open) - proved(proof)


@pytest.mark.parametrize("name", SHORT)
def test_a_broken_rule_loses_its_property(name, kept_memfd):
    assert BROKEN[name][0] in lost(name, earlier=kept_memfd[0].earlier, numbers=(3, 4))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", BROKEN_RULES)
def test_each_broken_rule_loses_its_property(name):
    story = memfd_cases.STORIES[BROKEN[name][1]]
    left_out = all_but({GUEST_MEMFD.kinds[kind] for kind, _ in story.actors}, GUEST_MEMFD)
    try:
        assert BROKEN[name][0] in lost(name, story.machine, left_out)
    except Refused as refused:
        assert str(refused).startswith("rule ")


VARIANTS = {
    # variant: machine, policy, the property that it breaks
    "end-before-store": ("software", ONE, 4),
    "free-without-reclaim": ("snp", ONE, 8),
    "no-kick": ("tdx", ONE, 9),
    "no-reference-test": ("software", ONE, 3),
    "quiet-hole": ("software", ONE, 5),
    "pamt-race": ("tdx", ONE, 9),
    "one-hook": ("pkvm", ONE, 7),
}
"""The variants that do something where pages are single."""


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("variant", VARIANTS)
def test_each_bug_of_a_kernel_loses_its_property(variant):
    machine, base, number = VARIANTS[variant]
    policy = replace(policies.find_any(base), variants=(variant,))
    left_out = all_but({"vcpu", "vmm", "user", "hole"}, GUEST_MEMFD)
    try:
        proof = judge.prove_under(
            configuration(policy, machine), without=left_out, rules=unchanged(GUEST_MEMFD), numbers=(number,)
        )
    except Refused as refused:
        assert str(refused).startswith("rule ")
        return
    assert proof.open[number]


def test_each_variant_is_broken_or_for_huge_pages():
    huge = {"ignores-accept-level", "merge-up-to-date", "double-allocation", "refuses-a-split", "clear-without-wake-up"}
    assert {*VARIANTS} | huge == set(NAMED)


# ------------------------------------------------------------------------------------------------- solvers
def test_another_solver_agrees(kept_memfd):
    answers = other_answers(kept_memfd[1], 20)
    assert "sat" not in answers and answers.count("unsat") > 15
