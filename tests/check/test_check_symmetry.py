"""Symmetry reduction: the folded graph is the full graph up to permutation of interchangeable pages and guests."""

import itertools
import math

import pytest

from checking import ROOT, naive
from ultrafolio.check.search.graph import explore
from ultrafolio.check.symmetry import like_guests, like_pages
from ultrafolio.check.verdicts.concrete import Representatives, concrete_path
from ultrafolio.check.verdicts.replay import certify_violation, copied, frozen, replay
from ultrafolio.errors import InputError
from ultrafolio.model import scenario
from ultrafolio.model.layout import (
    AGAIN,
    DEAD,
    DISK,
    IDLE_PC,
    NON_SECURE,
    NOTHING,
    PIN,
    REBOOT,
    RING,
    RUN,
    UNPIN,
    VCPU,
)
from ultrafolio.model.policies import find

AWAY = {"folios": [2], "state": ["shared", "exported", "exported", "exported"]}
SYSTEMS = {
    "direct I/O": ({"memory": AWAY, "vcpu": [{}], "disk": [{"page": 0}]}, "per-page"),
    "two vCPUs": ({"memory": AWAY, "vcpu": [{"touch": [1, 2, 3]}, {"touch": [1, 2, 3], "cpu": 1}]}, "whole-folio"),
    "reclaim": ({"memory": AWAY, "vcpu": [{}], "reclaim": [{"page": [1, 2, 3]}]}, "folio-bitmap"),
    "share": ({"memory": AWAY, "vcpu": [{"share": [1, 2, 3], "unshare": [1, 2, 3]}]}, "per-page"),
    "batches": ({"memory": AWAY, "vcpu": [{"touch": [1, 2, 3]}], "lru": [{"page": [1, 2, 3]}],
                 "speculative": [{"page": [1, 2, 3]}]}, "whole-folio"),
    "not yet split": ({"memory": {"folios": [2], "state": ["non_secure"]}, "vcpu": [{}]}, "split"),
    "small folios": ({"memory": {"folios": [0, 0, 0], "state": ["exported"]}, "vcpu": [{}],
                      "writeback": [{"starts": 1}]}, "import-lock"),
    "reboot": ({"memory": AWAY, "vcpu": [{}], "reboot": [{}]}, "whole-folio"),
    "host accesses": ({"memory": AWAY, "vcpu": [{"touch": [1, 2, 3]}],
                       "access": [{"read": [1, 2, 3], "write": [1, 2, 3]}]}, "folio-bitmap"),
    "one after the other": ({"memory": AWAY, "vcpu": [{"touch": [1, 2, 3]}],
                             "access": [{"read": [1, 2, 3], "after": "reclaim"}], "reclaim": [{"page": [1, 2, 3]}]},
                            "folio-bitmap-pins"),
    "a pin beside": ({"memory": AWAY, "vcpu": [{"touch": [1, 2, 3]}], "pin": [{"page": 0}]}, "per-page"),
    "an interrupt beside": ({"memory": AWAY, "vcpu": [{"touch": [1, 2, 3]}], "interrupt": [{"page": 0}]},
                            "folio-bitmap"),
    "an import's own reference": ({"memory": {"folios": [0, 0, 0], "state": ["exported"]},
                                   "vcpu": [{}, {"cpu": 1}]}, "linux-6.16"),
    "unmapped under an import": ({"memory": {"folios": [0, 0, 0], "state": ["exported"]}, "vcpu": [{}],
                                  "reclaim": [{}]}, "linux-7.1~42546fc642e9~9a1dfbbd3506~6ae67dcac742"),
}  # fmt: skip
TWO = {"folios": [1, 1], "state": ["shared", "exported"] * 2, "owner": [0, 0, 1, 1]}
APART = {"folios": [0, 0], "state": ["exported"], "owner": [0, 1]}
TOUCHES = [{"touch": [0]}, {"guest": 1, "touch": [1]}]
GUESTS = {
    "a vCPU each": ({"memory": TWO, "vcpu": [{"touch": [1]}, {"guest": 1, "touch": [3]}]}, "whole-folio"),
    "a device each": ({"memory": TWO, "disk": [{"page": 0}, {"guest": 1, "page": 2}]}, "folio-bitmap"),
    "a ring each": ({"memory": TWO, "virtio": [{"page": 0}, {"guest": 1, "page": 2}],
                     "reboot": [{}, {"guest": 1}]}, "whole-folio-literal"),
    "writeback of either": ({"memory": TWO, "vcpu": [{"touch": [1]}, {"guest": 1, "touch": [3]}],
                             "writeback": [{"page": [0, 2]}]}, "whole-folio"),
    "reclaim for each": ({"memory": {**APART, "state": ["secure"]}, "reclaim": [{"page": [1]}, {"page": [0]}],
                          "lru": [{"page": [0, 1]}]}, "folio-bitmap"),
    "a mutex each": ({"memory": APART, "vcpu": TOUCHES,
                      "reboot": [{"starts": 0}, {"guest": 1, "starts": 0}]}, "import-lock"),
    "share and unshare": ({"memory": {**APART, "state": ["secure"]}, "vcpu": [
        {"share": [0], "unshare": [0]}, {"guest": 1, "share": [1], "unshare": [1]}]}, "split"),
    "like pages of like guests": ({"memory": {"folios": [0] * 4, "state": ["exported"], "owner": [0, 0, 1, 1]},
                                   "vcpu": [{"touch": [0, 1]}, {"guest": 1, "touch": [2, 3]}]}, "split-false-success"),
    "a pin and an interrupt each": ({
        "memory": TWO, "pin": [{"page": 1}, {"guest": 1, "page": 3}],
        "interrupt": [{"page": 0}, {"guest": 1, "page": 2}]}, "linux-7.2"),
    "a plain reference by each interrupt": ({
        "memory": TWO, "vcpu": [{"touch": [1]}, {"guest": 1, "touch": [3]}],
        "interrupt": [{"page": 0}, {"guest": 1, "page": 2}]}, "whole-folio"),
    "accesses to either": ({"memory": {**TWO, "state": ["secure", "shared"] * 2},
                            "access": [{"read": [0, 2], "write": [1, 3]}]}, "whole-folio"),
    "reclaim of whole folios": ({"memory": {**TWO, "state": ["secure", "shared"] * 2}, "reclaim": [{"page": [1, 3]}],
                                 "vcpu": [{"touch": [0]}, {"guest": 1, "touch": [2]}]}, "folios-unmapped"),
    "each after its own": ({"memory": APART, "vcpu": TOUCHES, "lru": [
        {"page": [0], "after": "vcpu 0"}, {"page": [1], "after": "vcpu 1"}]}, "per-page"),
    "each after the other's": ({"memory": APART, "vcpu": TOUCHES, "lru": [
        {"page": [0], "after": "vcpu 1"}, {"page": [1], "after": "vcpu 0"}]}, "per-page"),
    "both after a thread of the host": ({"memory": {**APART, "state": ["secure"]}, "reclaim": [{"page": [0, 1]}],
                                         "access": [{"read": [0], "after": "reclaim"},
                                                    {"read": [1], "after": "reclaim"}]}, "per-page"),
    "three guests": ({"memory": {"folios": [0] * 3, "state": ["exported"], "owner": [0, 1, 2]},
                      "vcpu": [{"guest": n, "touch": [n]} for n in range(3)]}, "split-writeback"),
}  # fmt: skip
REFUSED = {
    "one folio for two guests": ({"memory": {**AWAY, "owner": [0, 0, 1, 1]}, "disk": [{"page": 0}],
                                  "vcpu": [{"touch": [1]}, {"guest": 1, "touch": [3]}]}, "per-page",
                                 "guests 0, 1 have pages in it"),
    "guests that differ": ({"memory": APART, "vcpu": [{"touch": [0]}, {"guest": 1, "touch": [1], "share": [1]}]},
                           "per-page", "no two guests"),
    "devices that differ": ({"memory": APART, "vcpu": TOUCHES,
                             "disk": [{"page": 0, "starts": 2}, {"guest": 1, "page": 1}]}, "per-page", "no two guests"),
    "both after the same": ({"memory": APART, "vcpu": TOUCHES, "lru": [
        {"page": [0], "after": "vcpu 0"}, {"page": [1], "after": "vcpu 0"}]}, "per-page", "no two guests"),
    "I/O that never completes": ({"memory": {**APART, "state": ["shared"]}, "vcpu": TOUCHES, "disk": [
        {"page": 0, "completes": False}, {"guest": 1, "page": 1}]}, "per-page", "no two guests"),
    "writeback": ({"memory": AWAY, "vcpu": [{}], "writeback": [{"starts": 1}]}, "per-page", "writeback makes"),
    "a pin of the folio": ({"memory": {**AWAY, "state": ["shared", "secure", "secure", "secure"]}, "vcpu": [{}],
                            "reclaim": [{"page": [1, 2, 3]}], "disk": [{"page": 0}]}, "whole-folio", "a pin makes"),
    "an access to the folio": ({"memory": {**AWAY, "state": ["secure"]}, "access": [{"read": [1, 2, 3]}],
                                "vcpu": [{}]}, "whole-folio", "a host access makes"),
    "reclaim of the folio": ({"memory": {**AWAY, "state": ["shared", "secure", "secure", "secure"]},
                              "reclaim": [{"page": [1, 2, 3]}], "vcpu": [{}]}, "folios-unmapped", "reclaim exports"),
    "nothing alike": ({"memory": {"folios": [1]}, "vcpu": [{"touch": [1]}]}, "per-page", "no two pages"),
}  # fmt: skip


OWN = {"folios-unmapped": {"base": "per-page", "unmap": "folio"}}
"""Policies that are no presets."""


def made(document, policy):
    return scenario.system(scenario.parse(document, "test"), find(policy, OWN))


def permuted(state, order, alike):
    """A state as lists in which page `order[p]` holds what page p held. Written out here a second time, by hand."""
    other = copied(state)
    for p, q in enumerate(order):
        for name in ("uv", "mm", "io", "pt"):
            getattr(other, name)[q] = getattr(state, name)[p]
    for t, actor in enumerate(other.actor):
        task, kind = other.task[t], other.who[t].kind
        if kind == VCPU and actor.op != NOTHING and alike[actor.page]:
            actor.page = order[actor.page]
            if task.pc not in (RUN, AGAIN, DEAD):
                task.page = order[task.page]
        elif kind != VCPU and task.pc != IDLE_PC[kind] and alike[task.page]:
            by = order[task.page] - task.page
            task.page += by
            if task.end:
                task.start, task.i, task.end = task.start + by, task.i + by, task.end + by
            task.failed += by if task.failed else 0
    return other


def permuted_all(state, permutation):
    """A state as lists in which every page, machine and actor mapped by `permutation`. Written out by hand, too."""
    other, old = copied(state), copied(state)
    pages, vms = len(state.mm), len(state.vm)
    page, vm = permutation[:pages], [v - pages for v in permutation[pages : pages + vms]]
    actor = [a - pages - vms for a in permutation[pages + vms :]]
    moved = {**dict.fromkeys(("uv", "mm", "io", "pt"), page), "vm": vm, "task": actor, "actor": actor}
    for name, to in moved.items():
        for n, q in enumerate(to):
            getattr(other, name)[q] = getattr(old, name)[n]
    for uv in other.uv:
        uv.owner = vm[uv.owner] if uv.state != NON_SECURE else uv.owner
    for machine in other.vm:
        machine.mutex = actor[machine.mutex - 1] + 1 if machine.mutex else 0
    for t, task in enumerate(other.task):
        kind, wants = state.who[t].kind, other.actor[t]
        busy = wants.op != NOTHING if kind == VCPU else task.pc != IDLE_PC[kind] and kind != REBOOT
        if not busy:
            continue
        if kind == VCPU or (kind in (DISK, RING, PIN) and not (task.pc == UNPIN and wants.page == 0)):
            wants.page = page[wants.page]
        if task.end:
            last = page[task.end - 1] + 1
            task.start, task.i, task.end = last - task.end + task.start, last - task.end + task.i, last
        task.failed = page[task.failed - 1] + 1 if task.failed else 0
        if kind != VCPU or task.pc not in (RUN, AGAIN, DEAD):
            task.page = page[task.page]
    return other


def orders(alike):
    """Yields every permutation of interchangeable pages."""
    groups = [[p for p, kind in enumerate(alike) if kind == n] for n in range(1, max(alike) + 1)]
    for chosen in itertools.product(*(itertools.permutations(group) for group in groups)):
        order = list(range(len(alike)))
        for group, put in zip(groups, chosen, strict=True):
            for p, q in zip(group, put, strict=True):
                order[p] = q
        yield order


def images(state, like):
    """Yields every permutation of a state."""
    for permutation in (None, *like.permutations):
        for order in orders(like.page_class):
            yield permuted(permuted_all(state, permutation) if permutation else state, order, like.page_class)


def orbits(states, like):
    """Returns one state of each orbit under permutation."""
    return {min(frozen(image) for image in images(state, like)) for state in states}


@pytest.mark.parametrize("name", [*SYSTEMS, *GUESTS])
def test_the_folded_graph_is_the_full_one_up_to_permutation(name):
    system = made(*(SYSTEMS | GUESTS)[name])
    like = like_pages.required_symmetry(system)
    assert bool(like.permutations) == (name in GUESTS)
    full, folded = naive(system), explore(system, edges=False, fold=True)
    assert folded.states == len(orbits(full.states, like)) < len(full.states)
    assert folded.depth == max(full.depth)
    assert {n for n, f in enumerate(folded.space.found) if f["state"] >= 0} == set(full.broke)
    representatives = Representatives(folded)
    for state, depth in list(zip(full.states, full.depth, strict=True))[:: max(1, len(full.states) // 100)]:
        here = representatives.number(state)
        assert here >= 0 and folded.depth_of(here) <= depth
        assert {representatives.number(image) for image in images(state, like)} == {here}


def test_a_path_of_the_folded_graph_is_a_path_of_the_system():
    system = made(*SYSTEMS["direct I/O"])
    folded = explore(system, edges=False, fold=True)
    representatives = Representatives(folded)
    for number in range(0, folded.states, max(1, folded.states // 20)):
        path = concrete_path(folded, number)
        assert len(path) == folded.depth_of(number)
        assert representatives.number(replay(system, path)[1]) == number


def test_a_counterexample_is_concrete_certified_and_as_short_as_without():
    document = {
        "memory": {"folios": [2], "state": ["exported"]},
        "vcpu": [{"touch": [1, 2, 3]}],
        "mapping": [{"page": [1, 2, 3]}],
    }
    system = made(document, "whole-folio")
    folded, full = explore(system, edges=False, fold=True), naive(system)
    assert full.broke
    for number, length in full.broke.items():
        path = concrete_path(folded, int(folded.space.found[number]["state"]), number)
        assert len(certify_violation(system, path, number)) == length


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_the_reason(name):
    document, policy, reason = REFUSED[name]
    with pytest.raises(InputError, match=reason):
        explore(made(document, policy), edges=False, fold=True)


@pytest.mark.parametrize("name", ["writeback", "a pin of the folio", "an access to the folio", "reclaim of the folio"])
def test_where_it_is_refused_it_would_count_wrong(name, monkeypatch):
    document, policy, _ = REFUSED[name]
    system = made(document, policy)
    monkeypatch.setattr(like_pages, "order_reason", lambda system, head: "")
    like = like_pages.required_symmetry(system)
    folded = explore(system, edges=False, fold=True)
    assert folded.states != len(orbits(naive(system).states, like))


@pytest.mark.parametrize("name", ["guests that differ", "both after the same", "I/O that never completes"])
def test_guests_that_differ_would_count_wrong(name, monkeypatch):
    document, policy, _ = REFUSED[name]
    system = made(document, policy)
    swapped = [t ^ 1 for t in range(len(system.choices))]
    monkeypatch.setattr(like_guests, "_actor_mapping", lambda system, page, vms: swapped)
    like = like_pages.required_symmetry(system)
    folded = explore(system, edges=False, fold=True)
    assert folded.states != len(orbits(naive(system).states, like))


def test_at_most_max_guests_are_permuted():
    many = like_guests.MAX_GUESTS + 1
    document = {
        "memory": {"folios": [0] * many, "owner": list(range(many))},
        "vcpu": [{"guest": n, "touch": [n]} for n in range(many)],
    }
    permutations = like_pages.symmetry_of(made(document, "per-page")).permutations
    assert len(permutations) == math.factorial(like_guests.MAX_GUESTS) - 1
    last = like_guests.MAX_GUESTS
    assert all(permutation[last] == last for permutation in permutations), "the last one stays"


def test_leads_to_is_never_folded():
    with pytest.raises(InputError, match="safety only"):
        explore(made(*SYSTEMS["direct I/O"]), fold=True)


def test_device_pages_and_the_first_page_of_a_folio_are_not_permuted():
    document = {"memory": {"folios": [3], "state": ["exported"]}, "vcpu": [{}], "disk": [{"page": 3, "pages": 2}]}
    assert like_pages.symmetry_of(made(document, "per-page")).page_class == (0, 1, 1, 0, 0, 1, 1, 1)
    system = scenario.system(scenario.read(ROOT / "benchmarks" / "eight-pages.toml"), find("per-page"))
    assert like_pages.symmetry_of(system).page_class == (0, 0, 1, 1, 0, 2, 2, 2)
