"""State graphs of shipped scenarios of guest_memfd, by the plain implementation, and what tests ask of them."""

import functools

from memfd_cases import system
from plain_graph import explored


@functools.cache
def graph(name, policy="gmem-7.4", machine=""):
    return explored(system(name, policy, machine))


def steps(found):
    """Every step of a graph: (state before, step, state after)."""
    return [(found.states[v], edge, found.states[edge.to]) for v, edges in enumerate(found.edges) for edge in edges]


def outcomes(found, *places):
    """The outcomes of the steps at these places."""
    return {edge.outcome for edges in found.edges for edge in edges if edge.pc in places}


def ends(found):
    """The states in which nobody is under way."""
    return [s for v, s in enumerate(found.states) if not found.pending[v] and not found.fair[v]]


def attributes(s):
    return [m.private for m in s.mm]


def broken_properties(name, rules=None, policy="gmem-7.4"):
    found = explored(system(name, policy), rules)
    return {edge.broke for edges in found.edges for edge in edges} - {0}
