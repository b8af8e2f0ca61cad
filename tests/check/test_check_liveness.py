"""Leads-to under fairness, on graphs written by hand: one test for each known bug of other checkers.

A graph is a list of steps (from, actor, to). Actor 0 waits wherever a state is pending. The bugs, and the tests:

    stateright #3, "eventually" misses joins and cycles   test_a_wait_is_found_on_whichever_way_...
    TLC #59, #644, symmetry misses or invents a wait      test_each_of_two_equal_waiters_is_found, test_of_two_equal_...
    TLC #839, a constraint makes liveness vacuous         test_what_was_not_explored_to_the_end_is_unknown
    TLC #1193, trivially true and not said                test_what_holds_vacuously_is_marked_trivial
    tla-rs #64, a component printed as a cycle            test_a_component_is_not_printed_as_if_it_were_a_cycle
    tla-rs #59, fairness of the component                 test_fairness_holds_on_the_cycle_shown_...
    tla-rs #62, stuttering forgotten                      test_resting_is_not_forgotten, test_resting_counts_...
    tla-rs #65, a stutter counted as progress             test_another_threads_stutter_is_no_progress_...
    PSharp #89, a lasso that cannot be replayed           test_check_stories.py, every story of every scenario
    PSharp #78, liveness switched off silently            test_every_leads_to_has_a_verdict
"""

import random
from types import SimpleNamespace

import numpy as np
import pytest

from checking import PATHS, finding, graph, naive, story, system
from ultrafolio.check.search.graph import Graph, explore
from ultrafolio.check.search.packing import COUNT
from ultrafolio.check.verdicts import liveness
from ultrafolio.check.verdicts.liveness import components_of, cycle_through
from ultrafolio.check.verdicts.replay import certify_lasso
from ultrafolio.check.verdicts.verdict import Extent, check
from ultrafolio.errors import Defect
from ultrafolio.export.text import result_text
from ultrafolio.model import scenario
from ultrafolio.model.layout import (
    ACC_CLEAR,
    ACC_TEST,
    AGAIN,
    DISK,
    IMPORT_MUTEX,
    NOTHING,
    PIN_GET,
    RING,
    SPLIT_LOCK,
    UNSHARE,
    VCPU,
    WB_IDLE,
    WB_LOCK,
    WRITEBACK,
)
from ultrafolio.model.policies import find
from ultrafolio.model.rule import RULES, STRONG, UNFAIR, WEAK
from ultrafolio.waits.words import LEADS_TO


def drawn(steps, pending, fair, asleep=(), actors=3):
    """A Graph of these steps; `pending`: states in which actor 0 waits; `fair`: actors enabled fairly, by state;
    `asleep`: actors that stand at a strongly fair rule."""

    class Drawn(Graph):
        def unpack(self, number):
            return SimpleNamespace(task={"pc": np.array([WB_LOCK if a in asleep else AGAIN for a in range(actors)])})

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
        count=count,
        parent=parent,
        by=by,
        pending=np.array([int(s in pending) for s in range(states)], np.int64),
        enabled=np.array([sum(1 << a for a in fair.get(s, ())) for s in range(states)], np.int64),
        first=np.array([sum(e[0] < s for e in edges) for s in range(states + 1)], np.int64),
        to=np.array([e[2] for e in edges], np.int32),
        via=np.array([e[1] << 16 for e in edges], np.int32),
    )
    return Drawn(SimpleNamespace(choices=[[]] * actors, state=None), space, True, "", 0, None, None)


def lassos(graph):
    """The components of a graph, each with the way to it and a fair way around."""
    return [
        SimpleNamespace(
            waiter=c.waiter, entry=c.entry, members=c.members, stem=graph.path(c.entry), cycle=cycle_through(graph, c)
        )
        for c in components_of(graph)
    ]


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


def test_a_wait_is_found_on_whichever_way_its_states_are_first_reached():
    joined = [(0, 0, 1), (0, 1, 2), (1, 1, 3), (2, 0, 3), (3, 0, 4), (4, 0, 3)]
    (lasso,) = lassos(drawn(joined, {2, 3, 4}, {2: {0}, 3: {0}, 4: {0}}))
    assert lasso.entry == 3 and walked(joined, 0, lasso.stem) == 3, "first reached where none waits"
    back = [(0, 0, 1), (1, 0, 2), (2, 0, 1), (0, 1, 3)]
    assert [lasso.entry for lasso in lassos(drawn(back, {1, 2}, {1: {0}, 2: {0}}))] == [1], "a way back is a cycle"


def test_a_thread_that_is_not_enabled_all_along_is_owed_nothing():
    (lasso,) = lassos(drawn(EIGHT, {1, 2, 3}, {1: {0, 1}, 2: {0}, 3: {0}}))
    assert actors_of(lasso) == [0, 0]


def test_a_loop_that_a_fair_step_must_leave_is_no_hang():
    steps = [(0, 0, 1), (1, 0, 0), (0, 1, 2), (1, 1, 2), (2, 2, 2)]
    assert lassos(drawn(steps, {0, 1}, {0: {0, 1}, 1: {0, 1}})) == []


def test_a_run_that_ends_in_a_wait_is_a_lasso_without_a_cycle():
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


def test_a_sleeper_that_is_woken_again_and_again_gets_its_turn():
    steps, fair = [(0, 0, 1), (1, 0, 0), (0, 1, 2)], {0: {0, 1}, 1: {0}}
    assert [actors_of(lasso) for lasso in lassos(drawn(steps, {0, 1}, fair))] == [[0, 0]], "weakly fair: overtaken"
    assert lassos(drawn(steps, {0, 1}, fair, asleep={1})) == [], "strongly fair: handed over"


def test_a_sleeper_that_nobody_wakes_excuses_nothing():
    (lasso,) = lassos(drawn([(0, 0, 1), (1, 0, 0)], {0, 1}, {0: {0}, 1: {0}}, asleep={1}))
    assert actors_of(lasso) == [0, 0]


def test_what_is_left_of_a_component_is_looked_at_again():
    steps = [*EIGHT, (3, 2, 4)]
    fair = {1: {0}, 2: {0}, 3: {0, 2}}
    (lasso,) = lassos(drawn(steps, {1, 2, 3}, fair, asleep={2}))
    assert lasso.members.tolist() == [1, 2] and actors_of(lasso) == [0, 0], "the loop that never wakes the sleeper"


def test_the_cycle_shown_lets_the_sleeper_have_it():
    steps, fair = [(0, 0, 1), (1, 0, 0), (1, 1, 2), (2, 0, 0)], {0: {0}, 1: {0, 1}, 2: {0}}
    assert [actors_of(lasso) for lasso in lassos(drawn(steps, {0, 1, 2}, fair))] == [[0, 0]]
    assert [actors_of(lasso) for lasso in lassos(drawn(steps, {0, 1, 2}, fair, asleep={1}))] == [[0, 1, 0]]


def some_graph(seed):
    """(steps, fair, asleep, pending) at random: at most one step of each of three actors in each of seven states."""
    draw = random.Random(seed)
    steps = [(v, a, draw.randrange(7)) for v in range(7) for a in range(3) if draw.random() < 0.6]
    steps += [(v, 0, v + 1) for v in range(6) if (v, 0) not in {step[:2] for step in steps}]
    unfair = draw.choice([set(), {2}])
    fair = {v: {a for here, a, _ in steps if here == v} - unfair for v in range(7)}
    return steps, fair, set(draw.sample(range(3), draw.randrange(3))), set(draw.sample(range(7), 4))


def test_on_graphs_drawn_at_random_reachability_says_the_same():
    seen = 0
    for seed in range(300):
        steps, fair, asleep, waits = some_graph(seed)
        graph = drawn(steps, waits, fair, asleep)
        reached = closure({v: [(a, to) for here, a, to in steps if here == v] for v in range(7)}, 0) | {0}
        edges = [[(a, to) for here, a, to in steps if here == v] for v in range(7)]
        ever = fair_states(edges, fair, [asleep] * 7, waits & reached)
        found = [lasso for lasso in lassos(graph) if lasso.entry in reached]
        assert {v for lasso in found for v in lasso.members.tolist()} & reached == ever, seed
        for lasso in found:
            at, visited = lasso.entry, [lasso.entry]
            for by in lasso.cycle:
                at = walked(steps, at, [by])
                visited.append(at)
            idle = {0, 1, 2} - set(actors_of(lasso))
            assert at == lasso.entry and set(visited) <= waits
            assert not idle & set.intersection(*(fair[v] for v in visited)), seed
            assert not idle & asleep & set.union(*(fair[v] for v in visited)), seed
            seen += bool(lasso.cycle and asleep)
    assert seen > 50


POLLING = {
    "memory": {"folios": [0], "state": ["shared"]}, "vcpu": [{"unshare": [0]}], "virtio": [{"page": 0}],
    "writeback": [{"page": [0], "starts": 1}],
}  # fmt: skip


TWINS = {
    "memory": {"folios": [2], "state": ["shared", "secure", "secure", "secure"]},
    "vcpu": [{"touch": [2]}, {"touch": [3]}],
}


def test_each_of_two_equal_waiters_is_found():
    """Pages 2 and 3 and their vCPUs could be exchanged: each hangs, after equally many steps, in a story of its own."""
    twins = scenario.system(scenario.parse({**TWINS, "virtio": [{"page": 0}]}, "twins"), find("whole-folio"))
    soonest = {}
    for lasso in lassos(explore(twins)):
        soonest.setdefault(lasso.waiter, lasso)
    assert set(soonest) == {0, 1} and len({len(lasso.stem) for lasso in soonest.values()}) == 1
    for waiter, lasso in soonest.items():
        certify_lasso(twins, lasso.stem, lasso.cycle, waiter)


def test_of_two_equal_waiters_that_go_on_in_turn_none_is_invented():
    """A cycle between states that differ only by an exchange of the twins would be one; there is none."""
    twins = scenario.parse({**TWINS, "disk": [{"page": 0}]}, "twins")
    result = check(twins, "twins", find("whole-folio"), "whole-folio")
    assert finding(result, "touch").kind == "transient"


def test_writeback_sleeps_for_the_lock_beside_a_vcpu_that_polls_for_ever(monkeypatch):
    """Under weak fairness alone the poller would take the lock first every time; the kernel hands it over."""
    polling = scenario.parse(POLLING, "polling")
    result = check(polling, "polling", find("per-page"), "per-page")
    assert finding(result, "unshare").expected, "the poller does poll for ever"
    assert finding(result, "writeback leads to").verdict == "holds"
    monkeypatch.setattr(liveness, "sleepers", lambda graph, number: 0)
    with pytest.raises(Defect, match="whose strongly fair step is enabled in it"):
        check(polling, "polling", find("per-page"), "per-page")


def test_the_rules_that_sleep_in_a_queue_are_strongly_fair():
    assert {pc for pc, rule in RULES.items() if rule.fairness == STRONG} == STRONG_PLACES
    assert {rule.fairness for rule in RULES.values()} == {WEAK, STRONG, UNFAIR}


def test_what_was_not_explored_to_the_end_is_unknown():
    result = check(story("07-over-indication"), "07", find("split"), "split", Extent(max_states=100))
    assert result.verdict == "unknown" and result.reason and not result.complete
    assert {f.verdict for f in result.findings} == {"unknown"}


def not_trivial(result):
    """Returns the numbers of the leads-to properties that are not vacuous."""
    return {LEADS_TO.index(f.name) for f in result.findings if f.name in LEADS_TO and not f.trivial}


def test_what_holds_vacuously_is_marked_trivial():
    by_page, whole = (check(story("03-virtio"), "03", find(name), name) for name in ("per-page", "whole-folio"))
    assert not_trivial(by_page) == {2}, "a pin is all that takes time"
    assert not_trivial(whole) == {0, 2}
    assert "trivially true" in result_text(by_page) and "touch leads to access; unshare" in " ".join(
        result_text(by_page).split()
    )


@pytest.mark.parametrize("name", ["01-direct-io", "06-import-and-unshare", "20-unshare-after-io", "39-busy-folio"])
def test_trivial_is_what_no_state_shows(name):
    made = system(name, "per-page")
    result, mine, seen = check(story(name), name, find("per-page"), "per-page"), naive(made), set()
    for state in mine.states:
        for t in range(len(made.choices)):
            if pending(state, t):
                kind, op = state.who[t].kind, state.actor[t].op
                seen.add((1 if op == UNSHARE else 0) if kind == VCPU else 2 if kind in (DISK, RING) else 3)
    assert not_trivial(result) == seen


def test_every_leads_to_has_a_verdict():
    for name in ("03-virtio", "06-import-and-unshare"):
        result = check(story(name), name, find("split"), "split")
        assert list(dict.fromkeys(f.name for f in result.findings if f.name in LEADS_TO)) == list(LEADS_TO)
        assert all(f.verdict in ("holds", "violated") for f in result.findings)


def pending(state, t):
    """Whether actor `t` has begun what must end; written independently of waits/rules.py."""
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
    asleep = [{t for t, k in enumerate(state.task) if k.pc in STRONG_PLACES} for state in mine.states]
    for t in range(actors):
        waits = {v for v, state in enumerate(mine.states) if pending(state, t)}
        ever = fair_states(mine.edges, mine.fair, asleep, waits)
        if ever:
            found[t] = min(mine.depth[v] for v in ever)
    return found


STRONG_PLACES = {IMPORT_MUTEX, SPLIT_LOCK, WB_LOCK}


def fair_states(edges, fair, asleep, inside):
    """Returns the states `inside` that are on a fair cycle there, or that enable no fair step. Per state: edges as
    (actor, to), actors whose fair step is enabled, actors at a strongly fair rule."""
    inner = {v: [(a, to) for a, to in edges[v] if to in inside] for v in inside}
    reach, found, left = {v: closure(inner, v) for v in inside}, set(), set(inside)
    while left:
        here = left.pop()
        ring = {v for v in reach[here] if here in reach[v]}
        left -= ring
        if not ring:
            found |= set() if fair[here] else {here}
            continue
        taken = {a for v in ring for a, to in inner[v] if to in ring}
        if set.intersection(*(fair[v] for v in ring)) <= taken:
            starving = {v for v in ring if (fair[v] & asleep[v]) - taken}
            found |= fair_states(edges, fair, asleep, ring - starving) if starving else ring
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
