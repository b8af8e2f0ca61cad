"""The class of a wait that never ends, from its strongly connected component, and the obstacles that it is named after.

The definition (docs/decisions.md, "Stalls"): the *obstacles* of a component are the conditions that refuse a step of
the waiter in one of its states. The wait is *fatal* if the waiter or its guest is dead; *permanent* if an obstacle is
present in every state and no state enables a fair step that removes it, and then *vmm-bound* if every holder stands at
a step that the VMM may take and need not; else a *livelock*. The page is *taken away* if
an import of it succeeds in the component and another step ends the access that it gave.

A predicate of waits.rules depends on a state's memories and on the parts of one or two actors (check/search/
packing.py), so the plain interpreter evaluates it once per combination.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ultrafolio.check.search.graph import Graph
from ultrafolio.check.verdicts.claim import WaitKind
from ultrafolio.check.verdicts.replay import copied
from ultrafolio.model import designs
from ultrafolio.model.layout import ALLOWED, IMPORT_CALL, IMPORT_END, SPLIT, State
from ultrafolio.model.rule import UNFAIR
from ultrafolio.waits import load as waits
from ultrafolio.waits.tables import OB_REFS, OBSTACLE_OF, OBSTACLES
from ultrafolio.waits.words import bits, last

Array = np.ndarray[Any, Any]
Steps = tuple[tuple[int, str], ...]
"""Steps as (actor, name of the rule)."""


def _nowhere() -> Array:
    """Returns an empty array of edges."""
    return np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Component:
    """A maximal strongly connected set of states in which `waiter` waits and a fair run can stay for ever; or one state
    in which no fair step is enabled. members: numbers of its states, ascending."""

    waiter: int
    members: Array

    @property
    def entry(self) -> int:
        """The state of the component that is nearest to state 0."""
        return int(self.members[0])


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """The class of a component. kind: fatal, permanent, livelock or vmm-bound.

    expected  the wait is the purpose of pin shared (model.md §8.8)
    page      the page waited for;  whole: the references are counted over its folio
    named     bit set of the obstacles that it is named after;  taken: it is named after the page, which is taken away
    met       bit set of all obstacles that refuse the waiter in it
    holding   permanent, vmm-bound: the actors, and CPUs of LRU batches as (-1 - cpu), that hold a named obstacle in
              every state
    takers    livelock: the steps (actor, rule) that take the obstacle again, or the page away
    releases  livelock: the steps (actor, rule) that remove it, or import the page
    taking, releasing  the numbers of their edges
    """

    component: Component
    kind: WaitKind
    expected: bool
    page: int
    whole: bool
    named: int
    met: int
    taken: bool = False
    holding: tuple[int, ...] = ()
    takers: Steps = ()
    releases: Steps = ()
    taking: Array = field(default_factory=_nowhere)
    releasing: Array = field(default_factory=_nowhere)


class Lookup:
    """Evaluates predicates over the states of a graph, once per memories and parts of the actors they depend on."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._states: dict[int, State] = {}

    def state(self, number: int) -> State:
        """Returns state `number` as lists; cached, so the caller must not change it."""
        if number not in self._states:
            if len(self._states) > 4096:
                self._states.clear()
            self._states[number] = self.graph.lists(number)
        return self._states[number]

    def key(self, states: Array, *actors: int) -> Array:
        """Returns per state a number that is equal for equal memories and parts of these actors."""
        space = self.graph.space
        rows, fields = space.node, space.fields
        regions = len(space.region_width)
        made: Array = np.zeros(len(states), np.int64)
        for number in (*range(regions), *(regions + t for t in actors)):
            f = fields[number]
            value = (rows[states, f["word"]] >> f["shift"]) & f["mask"]
            if number:
                _, made = np.unique(made, return_inverse=True)
            made = made * (int(f["mask"]) + 1) + value
        return made

    def each(self, states: Array, predicate: Callable[[State], int], *actors: int) -> Array:
        """Returns the predicate of every state. It must depend only on the memories and the parts of `actors`."""
        _, first, inverse = np.unique(self.key(states, *actors), return_index=True, return_inverse=True)
        values: Array = np.array([int(predicate(self.state(int(states[i])))) for i in first], np.int64)
        found: Array = values[inverse.reshape(-1)]
        return found


class _Judge:
    """The states and edges of one component, and its classification."""

    def __init__(self, lookup: Lookup, component: Component) -> None:
        self.lookup, self.component, self.t = lookup, component, component.waiter
        graph, members = lookup.graph, component.members
        self.members = members
        first = graph.space.first
        counts = first[members + 1] - first[members]
        at = np.repeat(first[members] - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts) + np.arange(counts.sum())
        self.edges = at
        self.source = np.repeat(members, counts)
        self.target = graph.space.to[at].astype(np.int64)
        self.by = graph.space.via[at] >> 16
        self.fair = (graph.space.enabled[self.source] >> self.by & 1).astype(bool)
        within = np.zeros(graph.states, bool)
        within[members] = True
        self.inside = within[self.target]
        entry = lookup.state(component.entry)
        self.run, self.rules = waits.of(entry), designs.of(entry).rules
        self.page = int(self.run.waited_page(entry, self.t))

    # ------------------------------------------------------------------------------------------- the class
    def judged(self) -> Judged:
        """Returns the class of the component."""
        run, t, page = self.run, self.t, self.page
        met, whole = self._met()
        entry = self.lookup.state(self.component.entry)
        if run.is_dead(entry, t):
            return Judged(self.component, "fatal", False, page, whole, 0, met)
        here = self._present(self.members, whole)
        there = self._present(self.target, whole)
        staying = 0
        for bit in bits(met):
            if (here & bit).all() and not (self.fair & ((there & bit) == 0)).any():
                staying |= bit
        expected = is_expected(self.lookup, self.component)
        if staying:
            holding = self._holding(staying, whole)
            kind: WaitKind = "vmm-bound" if self._at_the_vmm(holding) else "permanent"
            return Judged(self.component, kind, expected, page, whole, staying, met, holding=holding)
        away = self._away_edges()
        named = last(met) if met and away is None else 0
        taking, releasing = away or self._obstacle_edges(named, whole, there)
        return Judged(
            self.component,
            "livelock",
            expected,
            page,
            whole,
            named,
            met,
            away is not None,
            takers=self._steps(taking),
            releases=self._steps(releasing),
            taking=self.edges[taking],
            releasing=self.edges[releasing],
        )

    def _met(self) -> tuple[int, bool]:
        """Returns the obstacles that refuse the waiter in the component, and whether references refuse its split."""
        run, t = self.run, self.t

        def refused(s: State) -> int:
            pc = s.task[t].pc
            outcome = run.step(copied(s), t, 0, 0)
            return OBSTACLE_OF.get(outcome, 0) | (SPLIT_MET if pc == SPLIT and outcome > 0 else 0)

        found = int(np.bitwise_or.reduce(self.lookup.each(self.members, refused, t)))
        return found & ~SPLIT_MET, bool(found & SPLIT_MET and found & OB_REFS)

    def _present(self, states: Array, whole: bool) -> Array:
        """Returns the obstacles present for the waiter in each of `states`."""
        run, t, page = self.run, self.t, self.page
        return self.lookup.each(states, lambda s: run.present(s, t, page, whole), t)

    # ----------------------------------------------------------------------------------------- who and which step
    def _at_the_vmm(self, holding: tuple[int, ...]) -> bool:
        """Whether an actor holds, every one that does stands in every state at a step that the VMM may take and need
        not, and the waiter drains the batches."""

        def everywhere(a: int) -> bool:
            return bool(self.lookup.each(self.members, lambda s: int(is_the_vmms(s, a)), a).all())

        actors, drains = [a for a in holding if a >= 0], self.run.drains(self.lookup.state(self.component.entry))
        return bool(actors) and (drains or len(actors) == len(holding)) and all(everywhere(a) for a in actors)

    def _holding(self, named: int, whole: bool) -> tuple[int, ...]:
        """Returns the actors, and CPUs of LRU batches as (-1 - cpu), that hold a named obstacle in every state."""
        run, t, page, found = self.run, self.t, self.page, []
        for a in range(len(self.lookup.graph.system.choices)):
            if a != t:

                def held(s: State, a: int = a) -> int:
                    return int(run.contributes(s, a, t, page, whole) & named)

                if self.lookup.each(self.members, held, a).all():
                    found.append(a)
        for cpu in sorted({int(c) for c in self.lookup.graph.system.state.who["cpu"]}):

            def batched(s: State, cpu: int = cpu) -> int:
                return int(run.batch_has(s, t, page, whole, cpu))

            if named & OB_REFS and self.lookup.each(self.members, batched).all():
                found.append(-1 - cpu)
        return tuple(found)

    def _away_edges(self) -> tuple[Array, Array] | None:
        """Returns masks of the edges that take the page away and that import it; None unless there are both."""
        run, t, page = self.run, self.t, self.page
        vm = int(self.lookup.graph.system.state.who["vm"][t])
        if not self.run.is_vcpu(self.lookup.state(self.component.entry), t):
            return None

        def seen(s: State) -> int:
            return int(run.hw_guest(s, vm, page) == ALLOWED)

        before, after = self.lookup.each(self.source, seen), self.lookup.each(self.target, seen)
        imported = np.zeros(len(self.by), bool)
        for a in np.unique(self.by[self.inside]).tolist():
            mine = np.flatnonzero(self.inside & (self.by == a))

            def at_call(s: State, a: int = a) -> int:
                return int(s.task[a].pc == IMPORT_CALL and s.task[a].page == page)

            def at_end(s: State, a: int = a) -> int:
                return int(s.task[a].pc == IMPORT_END)

            called = self.lookup.each(self.source[mine], at_call, a)
            ended = self.lookup.each(self.target[mine], at_end, a)
            imported[mine[(called & ended) > 0]] = True
        away = self.inside & (before > after)
        return (away, imported) if away.any() and imported.any() else None

    def _obstacle_edges(self, named: int, whole: bool, there: Array) -> tuple[Array, Array]:
        """Returns masks of the inner edges that take the obstacle, and that remove it."""
        run, t, page = self.run, self.t, self.page
        here = self._present(self.source, whole)
        taken = self.inside & ((here & named) == 0) & ((there & named) > 0)
        freed = self.inside & ((here & named) > 0) & ((there & named) == 0)
        if taken.any() and freed.any():
            return taken, freed
        # it is present in every state: the holder changes
        more, less = np.zeros((2, len(self.by)), bool)
        for a in np.unique(self.by[self.inside]).tolist():
            mine = np.flatnonzero(self.inside & (self.by == a))

            def held(s: State, a: int = a) -> int:
                return int(run.contributes(s, a, t, page, whole) & named) if a != t else 0

            before, after = (self.lookup.each(states[mine], held, a) for states in (self.source, self.target))
            more[mine[before < after]], less[mine[before > after]] = True, True
        if named == OB_REFS:
            was, now = (
                self.lookup.each(states, lambda s: run.batches_of(s, t, page, whole))
                for states in (self.source, self.target)
            )
            more |= self.inside & (was < now)
            less |= self.inside & (was > now)
        more, less = more | taken, less | freed
        if not (more.any() and less.any()):
            # no edge removes it: a fair step that would remove it is enabled, and disabled again
            could = np.unique(self.source[self.fair & ((here & named) > 0) & ((there & named) == 0)])
            able, was = np.isin(self.target, could), np.isin(self.source, could)
            return self.inside & was & ~able, self.inside & able
        return more, less

    def _steps(self, marked: Array) -> Steps:
        """Returns the marked edges as sorted distinct (actor, rule)."""
        found = set()
        for a in np.unique(self.by[marked]).tolist():

            def rule_of(s: State, a: int = a) -> int:
                return int(s.task[a].pc)

            rules = self.lookup.each(self.source[marked & (self.by == a)], rule_of, a)
            found |= {(a, self.rules[pc].name) for pc in np.unique(rules).tolist()}
        return tuple(sorted(found))


SPLIT_MET = 1 << len(OBSTACLES)


def is_expected(lookup: Lookup, component: Component) -> bool:
    """Whether the wait of a component is the purpose of pin shared: the waiter unshares a page that is pinned in every
    state."""
    return not len(without_pin(lookup, component))


def without_pin(lookup: Lookup, component: Component) -> Array:
    """Returns the states of a component by which its wait is not expected: those in which the page is not pinned; all
    if the waiter does not unshare."""
    entry, t, members = lookup.state(component.entry), component.waiter, component.members
    run = waits.of(entry)
    if not run.unshares(entry, t):
        return members
    page = int(run.waited_page(entry, t))
    found: Array = members[lookup.each(members, lambda s: s.mm[page].pins + s.mm[page].longs) == 0]
    return found


def is_the_vmms(state: State, a: int) -> bool:
    """Whether the next step of actor `a` is one that the VMM may take and need not take."""
    rule = designs.of(state).rules.get(state.task[a].pc)
    return rule is not None and rule.actor == "vmm" and rule.fairness == UNFAIR


def judge(lookup: Lookup, component: Component) -> Judged:
    """Returns the class of a component and the obstacles that it is named after."""
    return _Judge(lookup, component).judged()
