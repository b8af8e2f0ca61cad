"""The verdict of one policy on one scenario, and the box of the policies that share it.

The verdict is check's own: a policy fails if one of its findings does (Finding.fails). A failure is told by its first
story, which the plain interpreter confirms; what passes is shared with the policies of the same graph.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ultrafolio.check.search.first import explore
from ultrafolio.check.search.graph import Graph
from ultrafolio.check.verdicts.components import Component, Lookup, without_pin
from ultrafolio.check.verdicts.liveness import components_of, cycle_through
from ultrafolio.check.verdicts.verdict import MAX_MIB, MAX_STATES, Finding
from ultrafolio.model import designs, scenario
from ultrafolio.search.asking import passes, stories
from ultrafolio.search.asking.system import Settings
from ultrafolio.search.space import Values
from ultrafolio.waits import telling

FEW = 2_000
"""States after which a violation that was found is told, without the rest of the graph."""
VERDICTS = range(1, 5)
NOT_ASKED, PASSES, FAILS, UNKNOWN = VERDICTS
"""Verdicts: the scenario refuses the policy; nothing fails; something fails; a limit was reached."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The verdict on every policy of a box. name: the property that fails first, or "". states: of the graph."""

    verdict: int
    box: int
    name: str = ""
    states: int = 0


def ask(settings: Settings, values: Values, max_states: int = MAX_STATES) -> Answer:
    """The verdict of this policy on the scenario."""
    policy = settings.space.bits(values)
    box, setting = settings.initial(policy, values)
    if setting is None:
        return Answer(NOT_ASKED, box)
    system = scenario.system(settings.story, settings.space.policy(values))
    few = min(FEW, max_states)
    graph = explore(system, max_states=few, max_mib=MAX_MIB)
    number = _broken(graph)
    if not number and not graph.complete and few < max_states:
        graph = explore(system, max_states=max_states, max_mib=MAX_MIB)
        number = _broken(graph)
    if number:
        found = graph.space.found[number]
        path = [*graph.path(int(found["state"])), int(found["by"])]
        finding = Finding(setting.design.properties[number], "violated", "safety")
        if finding.fails:
            box = stories.violation(setting, values, box, path, number)
            return Answer(FAILS, box, finding.name, graph.states)
    if not graph.complete:
        return Answer(UNKNOWN, policy, graph.reason, graph.states)
    lookup = Lookup(graph)
    for component in components_of(graph):
        counted = without_pin(lookup, component)
        entry = lookup.state(component.entry)
        name = str(telling.of(entry).owed(entry, component.waiter))
        if Finding(name, "violated", expected=not len(counted)).fails:
            cycle = cycle_through(graph, component, _edges_into(graph, component, counted))
            box = stories.hang(setting, values, box, graph.path(component.entry), cycle, component.waiter)
            return Answer(FAILS, box, name, graph.states)
    return Answer(PASSES, passes.box_of(setting, graph, values, box), "", graph.states)


def _broken(graph: Graph) -> int:
    """The property that is broken first, 0 if none is."""
    found = graph.space.found["state"][: len(designs.of(graph.system.state).properties)]
    some = [number for number in range(1, len(found)) if found[number] >= 0]
    return min(some, key=lambda number: (int(found[number]), number), default=0)


def _edges_into(graph: Graph, component: Component, states: np.ndarray) -> list[np.ndarray]:  # type: ignore[type-arg]
    """The edges of the component that end in one of these of its states, if they are not all: a cycle by one of them
    shows that the wait counts."""
    if len(states) == len(component.members):
        return []
    first, inside = graph.space.first, set(states.tolist())
    edges = [e for v in component.members.tolist() for e in range(int(first[v]), int(first[v + 1]))]
    return [np.array([e for e in edges if int(graph.space.to[e]) in inside], np.int64)]
