"""The regions of guest_memfd: no step and no property looks beyond its actor's pages, and huge pages that no actor has
in common add their steps."""

import random
import sys

import numpy as np
import pytest

from checking import ROOT
from plain_graph import explored
from test_reach import fenced
from ultrafolio.check.search import allocation, packing, places
from ultrafolio.check.search.graph import explore
from ultrafolio.check.search.reach import extent_of, places_of, regions_of
from ultrafolio.engine.interp import to_lists
from ultrafolio.model import policies, scenario
from ultrafolio.model.guest_memfd.layout import IDLE_PC, KINDS
from ultrafolio.model.guest_memfd.machines import NAMES
from ultrafolio.model.guest_memfd.policy import PRESETS
from ultrafolio.model.layout import ENDLESS, pack
from ultrafolio.waits import load as waits

sys.path.append(str(ROOT / "benchmarks"))
import check_spin

TWO = ("benchmarks/two-huge-pages.toml", "gmem-7.4")
STEPS, WALKS = {False: 80, True: 200}, 3
"""Steps of a walk, by --long; walks under a policy on a machine."""
ACTORS = {
    "vcpu": [{"touch": [0, 1]}, {"touch": [2, 3], "unshare": [2], "share": [3]}],
    "disk": [{"page": 2}],
    "pin": [{"page": 2, "pages": 2}],
    "vmsplice": [{"page": 3}],
    "access": [{"page": [2]}],
    "user": [{"page": [2, 3], "locked": True}],
    "vmm": [{"page": 2, "pages": 2, "to": "shared"}, {"page": 3, "to": "private"}, {"page": 0, "to": "shared"}],
    "lru": [{"page": [2]}],
    "speculative": [{"page": [3]}],
}
BESIDE_A_HOLE = {name: ACTORS[name] for name in ("vcpu", "vmm", "access")} | {
    "user": [{"page": [2, 3]}],
    "hole": [{"page": 2, "pages": 2}],
}


def story(policy, machine, hole=False):
    """Two pairs of pages, a huge page each where the policy has them; every kind of actor on the second."""
    huge = PRESETS[policy][1].large != "none"
    actors = BESIDE_A_HOLE if hole else ACTORS
    document = {
        "title": "two pairs", "design": "guest_memfd", "machine": machine,
        "memory": {"folios": [1, 1] if huge else [0] * 4, "state": ["private", "private", "shared", "private"],
                   "mapped": True, "refuses": [3], "no_table": 1, "no_folio": 1},
        **{kind: [{"starts": ENDLESS, **one} for one in some] for kind, some in actors.items()},
    }  # fmt: skip
    return scenario.parse(document, "a test")


def walk(made, run, chance, steps):
    """Take so many random steps, each over a state of which only the actor's places may be looked at, and again over
    the whole one. Returns the kinds that stepped."""
    state, stepped = to_lists(made.state), set()
    for _ in range(steps):
        able = []
        for t, choices in enumerate(made.choices):
            first, end = extent_of(made, t)
            idle = state.task[t].pc == IDLE_PC[state.who[t].kind]
            for op, page in choices if idle else [(0, 0)]:
                here, whole = fenced(state, places_of(made, t)), fenced(state, range(len(state.mm) + len(state.vm)))
                pc, about, was = here.task[t].pc, run.focus(here, t, page), 0
                p = min(max(about, first), end - 1)
                run.is_pending(here, t)
                outcome = run.step(here, t, op, page)
                if outcome >= 0:
                    told = run.broken_within(here, t, pc, p, was, outcome, first, end)
                    run.step(whole, t, op, page)
                    assert told == run.broken(whole, t, pc, about, was, outcome)
                    able.append((t, op, page, told))
        sound = [(t, op, page) for t, op, page, told in able if not told]
        if not sound:
            break
        t, op, page = chance.choice(sound)
        stepped.add(KINDS[state.who[t].kind])
        run.step(state, t, op, page)
    return stepped


@pytest.mark.parametrize("policy", sorted(PRESETS))
def test_no_step_and_no_property_looks_beyond_its_reach(policy, request):
    stepped, steps = set(), STEPS[request.config.getoption("--long")]
    for machine in NAMES:
        for number in range(WALKS if PRESETS[policy][1].fits(machine) else 0):
            hole = number == 0 and PRESETS[policy][1].large == "none"
            made = scenario.system(story(policy, machine, hole), policies.find_any(policy))
            stepped |= walk(made, waits.of(made.state), random.Random(f"{policy} {machine} {number}"), steps)
    assert {"vcpu", "vmm", "user", "access"} < stepped


def test_pairs_of_pages_are_regions_beside_that_of_the_file():
    found = regions_of(check_spin.made(*TWO))
    assert found.places == ((0, 1), (2, 3), (4,))
    assert set(found.uses) == {(True, False, True), (False, True, True), (True, False, False), (False, True, False)}


def run_once(found):
    """The number of steps that `index` has, each once, and `pool` no others."""
    space = found.space
    at = space.index[space.index > 0]
    headers = space.pool[at]
    sizes = 1 + (headers & packing.STEPS_MASK) * (space.node.shape[1] + (headers >> packing.HEAD_TOLD))
    assert len(np.unique(at)) == len(at) and int(space.count["used"][0]) == 1 + int(sizes.sum())
    return len(at)


@pytest.mark.parametrize(("order", "pages"), [(0, (2, 4)), (1, (2, 4)), (2, (0, 4))])
def test_an_actor_looks_at_whole_huge_pages_of_any_order(order, pages):
    """The order is that of the configuration: a lone page counts as one of two."""
    made = scenario.system(story("gmem-7.4", "tdx"), policies.find_any("gmem-7.4"))
    disk = [*made.state.who["kind"]].index(KINDS.index("disk"))
    made.state.cfg["block"] = order
    assert extent_of(made, disk) == pages


def test_two_huge_pages_add_their_steps():
    found = explore(check_spin.made(*TWO), edges=False, max_states=60_000)
    assert (found.space.home >= 0).all() and (found.space.beside >= 0).sum() == 5
    assert 0 < run_once(found) < 10_000


@pytest.mark.parametrize(("name", "value"), [("NARROW", 2), ("MOST_PLACES", 1 << 10)])
def test_many_memories_of_the_file_take_the_homes_and_not_the_states(name, value, monkeypatch):
    made = check_spin.made(*TWO)
    usual = explore(made, edges=False, max_states=20_000)
    for module in (allocation, packing, places):
        monkeypatch.setattr(module, name, value, raising=False)
    found = explore(made, edges=False, max_states=20_000)
    assert (found.space.home < 0).sum() == 5
    assert (found.states, found.edges, found.depth) == (usual.states, usual.edges, usual.depth)
    for number in range(0, usual.states, 997):
        assert pack(found.unpack(number)) == pack(usual.unpack(number))


@pytest.mark.parametrize("machine", ["snp", "tdx"])
def test_after_a_violation_all_pages_are_asked(machine):
    """On tdx a step about another folio finds property 8 broken, where property 6 was broken before."""
    document = {
        "title": "two folios", "design": "guest_memfd", "machine": machine,
        "memory": {"folios": [0] * 4, "state": ["private", "private", "shared", "private"], "mapped": True,
                   "refuses": [0]},
        "vmm": [{"page": 0, "to": "shared"}], "user": [{"page": [0]}], "pin": [{"page": 3}],
        "vcpu": [{"touch": [3], "unshare": [2]}],
    }  # fmt: skip
    made = scenario.system(scenario.parse(document, "a test"), policies.find_any("gmem-7.4"))
    truth, found = explored(made, most=2_000), explore(made)
    first = {}
    for number, edges in enumerate(truth.edges):
        for edge in edges:
            if edge.broke:
                first.setdefault(edge.broke, truth.depth[number] + 1)
    steps = {n: len(found.path(int(f["state"]))) + 1 for n, f in enumerate(found.space.found) if f["state"] >= 0}
    assert (found.states, steps) == (len(truth.states), first) and first
    assert len(regions_of(made).places) > 1
