"""Leads-to under weak fairness, on graphs drawn by hand: the traps that other checkers fell into, one test each.

A graph is a list of steps (from, actor, to). Actor 0 waits wherever a state is pending.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from checking import PATHS, graph, naive, story, system
from ultrafolio.check.explore import Graph
from ultrafolio.check.layout import COUNT
from ultrafolio.check.liveness import lassos
from ultrafolio.check.verdict import check
from ultrafolio.model.layout import ACC_CLEAR, ACC_TEST, DISK, NOTHING, PIN_GET, RING, VCPU, WB_IDLE, WRITEBACK
from ultrafolio.model.policies import find


def drawn(steps, pending, fair, actors=3):
    """A Graph of these steps; `pending`: states in which actor 0 waits; `fair`: actors enabled fairly, by state."""
    states = 1 + max(state for step in steps for state in (step[0], step[2]))
    edges = sorted(steps, key=lambda step: step[0])
    parent, by, seen, queue = np.zeros(states, np.int32), np.zeros(states, np.int32), {0}, [0]
    for here in queue:
        for start, actor, to in edges:
            if start == here and to not in seen:
                parent[to], by[to] = here, actor << 16
                seen.add(to)
                queue.append(to)
    count = np.zeros(1, COUNT)
    count["states"], count["edges"] = states, len(edges)
    space = SimpleNamespace(
        count=count, parent=parent, by=by,
        pending=np.array([int(s in pending) for s in range(states)], np.int64),
        enabled=np.array([sum(1 << a for a in fair.get(s, ())) for s in range(states)], np.int64),
        first=np.array([sum(e[0] < s for e in edges) for s in range(states + 1)], np.int64),
        to=np.array([e[2] for e in edges], np.int32), via=np.array([e[1] << 16 for e in edges], np.int32),
    )  # fmt: skip
    return Graph(SimpleNamespace(choices=[[]] * actors), space, True, "", 0, None, None)


def walked(steps, start, path):
    """Where a path of actors leads from `start`; each step must be there, and only once."""
    for by in path:
        (start,) = [to for here, actor, to in steps if here == start and actor == by >> 16]
    return start


def actors_of(lasso):
    return [by >> 16 for by in lasso.cycle]


EIGHT = [(0, 0, 1), (1, 0, 2), (2, 0, 1), (1, 1, 3), (3, 0, 1)]  # two loops, 1-2 and 1-3, that share state 1


def test_a_component_is_not_printed_as_if_it_were_a_cycle():
    (lasso,) = lassos(drawn(EIGHT, {1, 2, 3}, {1: {0}, 2: {0}, 3: {0}}))
    assert lasso.members.tolist() == [1, 2, 3] and lasso.entry == 1
    assert actors_of(lasso) == [0, 0], "the shorter of two loops, not a list of the component's states"
    assert walked(EIGHT, 0, lasso.stem) == 1 and walked(EIGHT, 1, lasso.cycle) == 1


def test_fairness_holds_on_the_cycle_shown_and_not_only_on_its_component():
    fair = {1: {0, 1}, 2: {0, 1}, 3: {0, 1}}
    (lasso,) = lassos(drawn(EIGHT, {1, 2, 3}, fair))
    assert 1 in actors_of(lasso), "actor 1 stays enabled; a cycle without a step of it is not fair"
    assert walked(EIGHT, 1, lasso.cycle) == 1


def test_a_thread_that_is_not_enabled_all_along_is_owed_nothing():
    (lasso,) = lassos(drawn(EIGHT, {1, 2, 3}, {1: {0, 1}, 2: {0}, 3: {0}}))
    assert actors_of(lasso) == [0, 0]


def test_a_loop_that_a_fair_step_must_leave_is_no_hang():
    steps = [(0, 0, 1), (1, 0, 0), (0, 1, 2), (1, 1, 2), (2, 2, 2)]
    assert lassos(drawn(steps, {0, 1}, {0: {0, 1}, 1: {0, 1}})) == []


def test_resting_is_not_forgotten():
    (lasso,) = lassos(drawn([(0, 0, 1)], {1}, {}))
    assert (lasso.entry, lasso.cycle) == (1, [])


def test_resting_counts_where_only_an_unfair_step_would_end_it():
    (lasso,) = lassos(drawn([(0, 0, 1), (1, 2, 2)], {1}, {}))
    assert (lasso.entry, lasso.cycle) == (1, []), "nobody has to tear the device down"


def test_nobody_rests_where_a_fair_step_is_enabled():
    assert lassos(drawn([(0, 0, 1), (1, 1, 2)], {1}, {1: {1}})) == []


def test_another_threads_stutter_is_no_progress_of_the_one_that_must_step():
    steps = [(0, 2, 0), (0, 1, 1)]
    assert lassos(drawn(steps, {0}, {0: {1}})) == [], "the self-loop of actor 2 does not excuse actor 1"


def test_a_waiter_that_only_stutters_hangs():
    (lasso,) = lassos(drawn([(0, 0, 0)], {0}, {0: {0}}))
    assert actors_of(lasso) == [0]


def test_the_cycle_stays_where_the_waiter_waits():
    steps = [(0, 0, 1), (1, 0, 2), (2, 0, 0)]
    assert lassos(drawn(steps, {0, 1}, {0: {0}, 1: {0}, 2: {0}})) == [], "it gets through once a round"


def test_what_was_not_explored_to_the_end_is_unknown():
    result = check(story("07-over-indication"), "07", find("split"), "split", max_states=100)
    assert result.verdict == "unknown" and result.reason and not result.complete
    assert {f.verdict for f in result.findings} == {"unknown"}


def pending(state, t):
    """Whether actor `t` has begun what must end, in words of its own and not the kernel's."""
    kind, pc = state.who[t].kind, state.task[t].pc
    return {
        VCPU: state.actor[t].op != NOTHING,
        WRITEBACK: pc != WB_IDLE,
        DISK: pc == PIN_GET or ACC_TEST <= pc <= ACC_CLEAR,
        RING: pc == PIN_GET or ACC_TEST <= pc <= ACC_CLEAR,
    }.get(kind, False)


def hangs(mine, actors):
    """{waiter: steps to the first state from which it can wait for ever}, by reachability alone, state by state."""
    found = {}
    for t in range(actors):
        waits = [pending(state, t) for state in mine.states]
        inner = [[(a, to) for a, to in steps if waits[here] and waits[to]] for here, steps in enumerate(mine.edges)]
        reach = [closure(inner, here) if waits[here] else set() for here in range(len(inner))]
        for here, depth in enumerate(mine.depth):
            if not waits[here] or depth >= found.get(t, 1 << 30):
                continue
            ring = {v for v in reach[here] if here in reach[v]}
            if not ring and not mine.fair[here]:
                found[t] = depth
            taken = {a for v in ring for a, to in inner[v] if to in ring}
            if ring and set.intersection(*(mine.fair[v] for v in ring)) <= taken:
                found[t] = depth
    return found


def closure(steps, here):
    seen, todo = set(), [here]
    while todo:
        for _, to in steps[todo.pop()]:
            if to not in seen:
                seen.add(to)
                todo.append(to)
    return seen


SMALL = [
    (name, policy)
    for name in PATHS
    for policy in ("per-page", "whole-folio", "split", "split-writeback", "folio-bitmap", "never-drains", "sleeps")
    if story(name).expect.get(policy, {"states": 999})["states"] <= 150
]


@pytest.mark.parametrize(("name", "policy"), SMALL)
def test_who_hangs_and_how_soon_is_what_reachability_says(name, policy):
    made = system(name, policy)
    soonest = {}
    for lasso in lassos(graph(name, policy)):
        soonest.setdefault(lasso.waiter, len(lasso.stem))
    assert soonest == hangs(naive(made), len(made.choices))
