"""Proofs about guest_memfd with huge pages: which rules have paths, what is proved, that a broken rule loses its
property, that no fact is wrong anywhere."""

import itertools
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("z3", reason="the extra `prove` is not installed")

import memfd_cases
from proving import FEW_HUGE, asked_again, evaluated, place_of, reachable, walked
from ultrafolio.check.verdicts.verdict import Extent, check
from ultrafolio.engine.interp import to_lists
from ultrafolio.model import policies, scenario
from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.model.guest_memfd.layout import HOLE
from ultrafolio.model.guest_memfd.machines import NAMES
from ultrafolio.prove import all_but, judge, paths, terms, without
from ultrafolio.prove.before import PAGE
from ultrafolio.prove.evaluate import Concrete
from ultrafolio.prove.facts import View
from ultrafolio.prove.houdini import Houdini, Tally
from ultrafolio.prove.memfd.configuration import configuration
from ultrafolio.prove.memfd.subject import HUGE
from ultrafolio.prove.paths import STEPS, at
from ultrafolio.prove.rules import Rules, unchanged
from ultrafolio.prove.solver import impossible, in_blocks
from ultrafolio.prove.state import Gather, Refused, Symbolic
from ultrafolio.prove.systems import Systems
from ultrafolio.prove.window import Window

MAY, DECEMBER = "gmem-hugetlb-2025-05", "gmem-hugetlb-2025-12"
ALL = tuple(range(1, len(GUEST_MEMFD.properties)))
REFUSED_BY_KVMS = 2
"""Property 13, which KVM's own reference breaks."""
NO_HOLE = without(GUEST_MEMFD) | {HOLE}


def cfg(policy, machine):
    return configuration(policies.find_any(policy), machine, huge=True)


# --------------------------------------------------------------------------------------------- paths
@pytest.mark.parametrize("policy", [MAY, DECEMBER, f"{MAY},merge=on-free", f"{DECEMBER},merge=on-free"])
@pytest.mark.parametrize("machine", NAMES)
def test_every_rule_has_paths_but_an_unmapping_that_may_lack_memory(policy, machine):
    """On CCA an entry is split as a page of it is unmapped, each turn of the loop with one table less."""
    if machine == "cca":
        with pytest.raises(Refused, match=r"^rule convert-zap: .* vm\.no_table"):
            paths.reached(unchanged(GUEST_MEMFD), cfg(policy, machine), NO_HOLE)
        return
    found = paths.reached(unchanged(GUEST_MEMFD), cfg(policy, machine), NO_HOLE)
    assert {"convert-restructure", "fault-map"} <= {place.rule for place in found}


def zap_and_restructure(changed):
    """Read two rules of loops over huge pages, with changed source text."""
    rules, vmm = Rules(changed, GUEST_MEMFD), GUEST_MEMFD.kinds.index("vmm")
    for pc, rule in GUEST_MEMFD.rules.items():
        if rule.name in ("convert-zap", "convert-restructure"):
            paths.paths_of(rules, cfg(MAY, "software"), paths.Place(vmm, pc, design="guest_memfd"))


SET = "        if p == k.start or p == block_of(s, p):\n            set_order"
OTHERS = "        for q in range(block_of(s, p), block_after(s, p)):\n            if q != p"
ZAPPED = "        s.mm[p].zapped = 1\n"
REFUSED = {
    # source text that is replaced, and what is said
    "two turns change one huge page": (
        {SET: SET.replace("p == k.start or p == block_of(s, p)", "True")},
        "two turns may change the pages of one huge page",
    ),
    "a turn reads what another one writes": (
        {ZAPPED: "        s.mm[p].zapped = s.pt[p + 1].present\n"},
        "reads pt.present of another page",
    ),
    "a turn writes other pages than those of its huge page": (
        {OTHERS: OTHERS.replace("block_of(s, p)", "0")},
        "over other pages than those of a huge page",
    ),
    "a turn writes a page that is not its own": (
        {ZAPPED: "        s.mm[p + 1].zapped = 1\n"},
        "changes mm.zapped of one page",
    ),
    "a number is one of two that `or` joins": (
        {"TAKEN_FOR_WRITTEN if s.cfg[0].merge_whole else": "TAKEN_FOR_WRITTEN or"},
        "no formula for: TAKEN_FOR_WRITTEN or UP_TO_DATE",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_read_wrongly_is_refused(name):
    changed, why = REFUSED[name]
    zap_and_restructure(None)
    with pytest.raises(Refused, match=why):
        zap_and_restructure(changed)


def test_any_two_huge_pages_are_one_or_apart():
    p, q = terms.var("p"), terms.var("q")
    same = terms.equal(terms.block(p), terms.block(q))
    one_behind = terms.equal(terms.plus(terms.block(p), 1), terms.block(q))
    assert impossible([one_behind], [p, q]) and not impossible([same], [p, q])
    assert not impossible([terms.negate(same)], [p, q])
    assert terms.at_most(2, terms.SIZE) in in_blocks([p])


def test_a_number_of_folios_grows_by_the_turns_that_name_them():
    """Two of three turns change the folio at 0, none the one at 2."""
    page = terms.var(terms.BOUND)
    entry = Gather("mm.refs", 0, 3, terms.block(page), terms.negate(terms.equal(page, 1)), 1)
    state = SimpleNamespace(cfg=[SimpleNamespace(block=2)])
    grown = [Concrete(state, {}).number(entry.turns(index)) for index in (0, 2)]
    assert grown == [2, 0]
    with pytest.raises(Refused):
        entry.turns(terms.var(terms.BOUND))


# --------------------------------------------------------------------------------------------- what is proved
def test_the_short_policy_is_proved(kept_huge):
    assert not any(kept_huge.open.values())
    assert kept_huge.tally.unanswered == 0


def test_each_rule_can_be_run(kept_huge):
    """No proof of nothing: all facts together leave a way through each rule."""
    p = kept_huge.problem
    run = Houdini(p, Tally())
    possible = {
        path.place.name for path in p.steps if not run.given(path, Window(p, path), [], "possible").excludes([True])
    }
    assert possible == {place.name for place in p.places}


def test_no_step_breaks_what_is_kept(kept_huge):
    assert asked_again(kept_huge) == {}


def systems_of(kinds):
    """Systems of two huge pages with these kinds of actors on every page, each as its name and its first state."""
    for states, allocated in itertools.product(
        (["private"], ["shared"], ["private", "private", "shared", "private"]), (True, False)
    ):
        document = {
            "design": "guest_memfd",
            "memory": {"folios": [1, 1], "state": states, "allocated": allocated, "mapped": allocated},
            **{kind: [{"page": [0, 1, 2, 3], "starts": 3}] for kind in kinds},
        }
        name = f"{states}, {allocated}"
        yield name, scenario.system(scenario.parse(document, name), policies.find_any(MAY))


def test_every_fact_holds_in_reachable_states(kept_huge):
    made = systems_of(FEW_HUGE)
    assert evaluated(kept_huge, made, lambda made, random: walked(made, random, 40), 2) > 20


@pytest.mark.parametrize("convert", ["in-place", "two-backings", "by-guest"])
def test_initial_states_are_those_of_scenarios(convert):
    cases = [case for case in map(memfd_cases.drawn_huge, range(200)) if case.policy.convert == convert]
    cases = [case for case in cases if Systems(case.name, case.policy, NO_HOLE, huge=True).meets(case.story)]
    assert len(cases) > 5
    for case in cases:
        state, given = to_lists(case.system().state), configuration(case.policy, case.document["machine"], huge=True)
        for t, page in itertools.product(range(len(state.task)), range(len(state.mm))):
            place = place_of(state, t)
            view = View(at(place), Symbolic(STEPS), given)
            here = Concrete(state, {STEPS: t}, {PAGE.args[0]: page})
            for formula in (*HUGE.of_thread(view, place), *HUGE.of_machine(view), *HUGE.of_page(view, PAGE)):
                assert here.holds(formula), (case.name, place.name, formula)


def proof_of(policy, machine, kinds, changed=None, numbers=ALL):
    left_out = all_but(kinds, GUEST_MEMFD)
    return judge.prove_under(cfg(policy, machine), without=left_out, rules=Rules(changed, GUEST_MEMFD), numbers=numbers)


def open_in(proof):
    return {number for number, places in proof.open.items() if places}


def test_a_users_fault_that_does_not_read_the_attribute_loses_its_property():
    page = "m, in_place = s.mm[s.task[t].page + s.task[t].at], "
    changed = {page + "s.cfg[0].convert == IN_PLACE": page + "False"}
    assert open_in(proof_of(MAY, "software", FEW_HUGE, changed)) == {3}


def test_a_reference_that_its_folio_does_not_count_breaks_the_sum(kept_huge):
    """A reference is counted on its page, and not on its folio."""
    changed = {"    s.mm[head(s, p)].refs += 1\n\n\n@fn\ndef put_ref": "    s.mm[p].refs += 1\n\n\n@fn\ndef put_ref"}
    broken = proof_of(MAY, "software", {"speculative"}, changed)
    dropped = {name for kind, _, name in broken.tally.dropped if kind == "sum"}
    assert dropped == {total.name for total in HUGE.sums}
    assert all(kept_huge.problem.has("sum", total.name) for total in HUGE.sums)


TAKEN = "TAKEN_FOR_WRITTEN if s.cfg[0].merge_whole else"
BROKEN = {
    # property, source text that is replaced
    "KVM maps by one entry what is under invalidation": (10, {" or s.mm[q].zapped:\n": ":\n"}),
    "an unmapped page leaves the others of its entry": (
        10,
        {OTHERS + ":\n                leave": OTHERS.replace("q != p", "False") + ":\n                leave"},
    ),
    "a merge takes all of it for written": (11, {TAKEN: "TAKEN_FOR_WRITTEN if True else"}),
    "nothing keeps two allocations apart": (12, {"s.cfg[0].looks_first and": ""}),
    "a failed split does not set the attributes back": (1, {"private ^= s.mm[p].turned": "private ^= 0"}),
    "references are not counted": (3, {"if extra_refs(s, k.i) == 0 and not s.mm[k.i].users:": "if True:"}),
}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", BROKEN)
def test_each_broken_rule_loses_its_property(name):
    number, changed = BROKEN[name]
    assert open_in(proof_of(MAY, "software", {"vcpu", "vmm", "user"}, changed, (number,))) == {number}


def told_by_the_guide():
    """(policy, machine, kinds, what is proved of it, what is not) of each row about huge pages."""
    text = (Path(__file__).parents[2] / "docs/read-a-proof.md").read_text()
    row = r"^\| `([a-z0-9.-]+)` \| ([a-z]+) \| ([a-z, ]+) \| ([\d, ]*) \| ([\d, ]*) \| [\d.]+ \|$"
    for name, machine, kinds, *cells in re.findall(row, text, re.MULTILINE):
        proved, left = ({int(n) - GUEST_MEMFD.first for n in cell.split(",") if n.strip()} for cell in cells)
        yield name, machine, {kind.strip() for kind in kinds.split(",")}, proved, left


ROWS = list(told_by_the_guide())


def test_the_guide_has_each_property_of_huge_pages():
    assert ROWS and all(sorted([*proved, *left]) == [*ALL] for *_, proved, left in ROWS)
    assert all(kinds <= set(GUEST_MEMFD.kinds) for _, _, kinds, _, _ in ROWS)


@pytest.fixture(scope="module")
def every():
    """The proof that each row of the guide is about, by its number."""
    return [proof_of(name, machine, kinds) for name, machine, kinds, *_ in ROWS]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_what_the_guide_says_is_proved(every):
    for (*_, left), proof in zip(ROWS, every, strict=True):
        assert open_in(proof) == left and proof.tally.unanswered == 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_checker_breaks_nothing_that_is_proved_and_every_fact_holds(every):
    """Random systems of the rows: those of drawn cases without the actors that a row has not."""
    for (name, machine, kinds, proved, _), proof in zip(ROWS, every, strict=True):
        systems = Systems(name, policies.find_any(name), all_but(kinds, GUEST_MEMFD), machine, huge=True)
        made = list(restricted(systems, kinds, 100))
        assert len(made) > 30
        for story in made:
            result = check(story, "drawn", systems.policy, name, Extent(max_states=2_000, safety=True))
            broken = {GUEST_MEMFD.properties.index(f.name) for f in result.findings if f.verdict == "violated"}
            assert not broken & proved, story
        named = [(str(story), scenario.system(story, systems.policy)) for story in made]
        assert evaluated(proof, named, lambda made, _: reachable(made, 400), 2) > 1_000


def restricted(systems, kinds, count):
    """Drawn cases with actors of these kinds alone; two more where fewer than two are left."""
    for number in range(count):
        case = memfd_cases.drawn_huge(number)
        actors = {kind: made for kind, made in case.document.items() if kind in kinds}
        rest = {key: value for key, value in case.document.items() if not isinstance(value, list)}
        if sum(map(len, actors.values())) < 2:
            actors.setdefault("vcpu", []).append({"touch": [0], "share": [1], "unshare": [1, 0], "starts": 3})
            actors.setdefault("user", []).append({"page": [0, 1], "starts": 2})
        story = scenario.parse({**rest, **actors, "machine": systems.machine}, case.name)
        if systems.meets(story):
            yield story
