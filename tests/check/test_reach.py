"""The regions of a system: no step looks at a page or a machine outside those that its actor is said to look at."""

import random

import numpy as np
import pytest

from checking import naive, system
from ultrafolio.check.search import packing
from ultrafolio.check.search.graph import explore
from ultrafolio.check.search.reach import MOST_REGIONS, places_of, regions_of
from ultrafolio.check.verdicts.replay import copied
from ultrafolio.engine.interp import to_lists
from ultrafolio.model import scenario
from ultrafolio.model.layout import ACTOR_KINDS, IDLE_PC
from ultrafolio.model.policies import PRESETS, find
from ultrafolio.waits import load as waits

STEPS, WALKS = 120, 6
OF_A_PAGE = ("uv", "mm", "io", "pt")


class Forbidden:
    """A record that nobody may read or write."""

    def __init__(self, name, at):
        object.__setattr__(self, "_where", f"{name}[{at}]")

    def __getattr__(self, field):
        raise AssertionError(f"{object.__getattribute__(self, '_where')}.{field} is read")

    def __setattr__(self, field, value):
        raise AssertionError(f"{object.__getattribute__(self, '_where')}.{field} is written")


def story(backing="anon", apart=True):
    """Two guests, each with a folio of its own, and every kind of actor on the second."""
    first, second = [0, 1], [2, 3]
    return scenario.parse(
        {
            "title": "two folios",
            "memory": {
                "folios": [1, 1], "owner": [0, 0, 1, 1], "backing": backing,
                "state": ["shared", "exported", "shared", "exported"],
            },
            "vcpu": [
                {"guest": 0, "touch": first, "unshare": [0], "share": [1]},
                {"guest": 1, "touch": second if apart else [1, 2, 3], "unshare": [2], "share": [3]},
            ],
            "disk": [{"guest": 1, "page": 2}],
            "virtio": [{"guest": 1, "page": 2}],
            "pin": [{"guest": 1, "page": 2, "pages": 2}],
            "interrupt": [{"guest": 1, "page": 3}],
            "writeback": [{"page": second}],
            "reclaim": [{"page": second}],
            "lru": [{"page": second}],
            "mapping": [{"page": second}],
            "speculative": [{"page": second}],
            "access": [{"read": second, "write": [3]}],
            "tamper": [{"page": [3]}],
        },
        "a test",
    )  # fmt: skip


def fenced(state, places):
    """A copy of a state (as lists) in which only these pages and machines may be looked at."""
    made, pages = copied(state), len(state.mm)
    for name in OF_A_PAGE:
        section = getattr(made, name)
        section[:] = [record if p in places else Forbidden(name, p) for p, record in enumerate(section)]
    made.vm[:] = [record if pages + v in places else Forbidden("vm", v) for v, record in enumerate(made.vm)]
    return made


def walk(made, run, chance):
    """Take random steps, each over a fenced state, and again over the whole one. Returns the kinds that stepped."""
    state, stepped = to_lists(made.state), set()
    reached = [places_of(made, t) for t in range(len(made.choices))]
    for _ in range(STEPS):
        able = []
        for t, choices in enumerate(made.choices):
            idle = state.task[t].pc == IDLE_PC[state.who[t].kind]
            for op, page in choices if idle else [(0, 0)]:
                here = fenced(state, reached[t])
                pc, p = here.task[t].pc, run.focus(here, t, page)
                run.is_pending(here, t)
                was = here.uv[p].state if p in reached[t] else None
                outcome = run.step(here, t, op, page)
                if outcome >= 0:
                    assert was is not None, "a step is about a page that its actor does not look at"
                    run.broken(here, t, pc, p, was, outcome)
                    able.append((t, op, page))
        if not able:
            break
        t, op, page = chance.choice(able)
        stepped.add(ACTOR_KINDS[state.who[t].kind])
        run.step(state, t, op, page)
    return stepped


@pytest.mark.parametrize("policy", sorted(PRESETS))
def test_no_step_looks_beyond_its_reach(policy):
    stepped = set()
    for number in range(WALKS):
        made = scenario.system(story(("anon", "shmem", "iomap")[number % 3]), find(policy, {}))
        stepped |= walk(made, waits.of(made.state), random.Random(f"{policy} {number}"))
    assert "vcpu" in stepped and len(stepped) > 4


def test_folios_of_different_actors_are_regions_and_their_machines_are_of_them():
    found = regions_of(scenario.system(story(), find("per-page", {})))
    assert found.places == ((0, 1, 4), (2, 3, 5))
    assert found.uses[0] == (True, False) and set(found.uses[1:]) == {(False, True)}


def test_an_actor_of_two_folios_uses_two_regions_and_a_reboot_all():
    found = regions_of(scenario.system(story(apart=False), find("per-page", {})))
    assert found.uses[1] == (True,) * len(found.places)
    made = system("25-reboot-with-device", "whole-folio")
    reboot = made.state.who["kind"].tolist().index(ACTOR_KINDS.index("reboot"))
    assert all(regions_of(made).uses[reboot])


def test_many_folios_of_different_actors_are_few_regions():
    pages = range(MOST_REGIONS + 3)
    document = {"memory": {"folios": [0] * len(pages), "state": ["exported"]}, "vcpu": [{"touch": [p]} for p in pages]}
    found = regions_of(scenario.system(scenario.parse({"title": "many", **document}, "a test"), find("per-page", {})))
    assert len(found.places) == MOST_REGIONS
    assert sorted(place for places in found.places for place in places) == list(range(len(pages) + 1))


def crossing():
    """A guest of two folios and a reboot: a vCPU of both, direct I/O on the first."""
    return scenario.parse(
        {
            "title": "crossing", "memory": {"folios": [1, 0], "state": ["shared", "exported", "exported"]},
            "vcpu": [{"touch": [1, 2]}], "disk": [{"page": 0}], "reboot": [{}],
        },
        "a test",
    )  # fmt: skip


@pytest.mark.parametrize("policy", ["whole-folio", "per-page"])
def test_steps_that_look_at_several_regions_lead_to_the_same_states(policy):
    made = scenario.system(crossing(), find(policy, {}))
    truth, found = naive(made), explore(made)
    assert len(regions_of(made).places) > 1 and (np.array(found.space.home) < 0).any()
    assert found.states == len(truth.states) > 100
    assert found.edges == sum(len(steps) for steps in truth.edges)
    assert found.depth == max(truth.depth)


def test_steps_that_look_at_several_regions_are_kept_once():
    """`pool` has a header, the steps, and for an actor without a home its masked row; no words between them."""
    space = explore(scenario.system(crossing(), find("whole-folio", {}))).space
    width, apart = space.node.shape[1], space.memo_table[space.memo_table > 0]
    at = np.concatenate([apart, space.index[space.index > 0]])
    steps, told = space.pool[at] & packing.STEPS_MASK, space.pool[at] >> packing.HEAD_TOLD
    ends = at + 1 + steps * (width + told) + np.where(np.arange(len(at)) < len(apart), width, 0)
    assert 0 < len(apart) == int(space.count["kept"][0]) < len(at)
    assert sorted([1, *ends.tolist()]) == sorted([*at.tolist(), int(space.count["used"][0])])
