"""Whether a thread that holds a resource comes to where it does not, in finitely many steps of its own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from ultrafolio.prove import terms
from ultrafolio.prove.before import PAGE
from ultrafolio.prove.facts import View
from ultrafolio.prove.terms import Value

from .nodes import Edge, Graph, Node
from .resources import share


@dataclass(frozen=True)
class Holds:
    """The nodes at which a thread holds a resource; the steps after which it holds the same; and those of fair rules
    at which it waits."""

    nodes: frozenset[Node]
    keeping: tuple[Edge, ...]
    waiting: tuple[Edge, ...]


def holds(graph: Graph, name: str) -> Holds:
    """Returns where a resource of some page is held. The share of each node is known (resources.unaccounted)."""
    shares = {node: graph.at(node, _known(share(graph, name, node, PAGE))) for node in graph.edges}
    nodes = frozenset(node for node, mine in shares.items() if not graph.never(graph.still(node), mine))
    keeping, waiting = [], []
    for edge in (edge for node in graph.edges if node in nodes for edge in graph.edges[node]):
        before = shares[edge.node]
        if edge.waits:
            if graph.waits.rule(edge.node.place.pc).fair and not graph.never(edge, before):
                waiting.append(edge)
            continue
        after = graph.at(edge.node, _known(share(graph, name, edge.to, PAGE, edge)))
        if after is not False and (after is before or not graph.never(edge, terms.both(before, after))):
            keeping.append(edge)
    return Holds(nodes, tuple(keeping), tuple(waiting))


def _known(mine: Value | None) -> Value:
    assert mine is not None
    return mine


@dataclass(frozen=True)
class Rounds:
    """Whether steps may go on for ever. again: steps that a thread may take again and again by itself; disturbed: those
    at which it finds its entry missing, again and again where others take it away each time."""

    again: list[Edge]
    disturbed: list[Edge]


def endless(graph: Graph, edges: Iterable[Edge]) -> Rounds:
    """Steps among these that a thread may take again and again, as far as the measures tell; none where all ways
    end."""
    left, disturbed = list(edges), list[Edge]()
    while left:
        left = cyclic(left)
        for group in _groups(left):
            falling = _falling(graph, group)
            if not falling:
                meeting = _disturbed(graph, group)
                if not meeting:
                    return Rounds(group, disturbed)
                disturbed += meeting
                falling = set(group)
            left = [edge for edge in left if edge not in falling]
    return Rounds([], disturbed)


def _disturbed(graph: Graph, group: list[Edge]) -> list[Edge]:
    """The steps of a group at which the thread finds its entry missing, if each endless way has such a step after one
    that makes or finds the entry, and none of its own steps takes it away or goes on to another page; else none."""
    missing = graph.waits.missing
    if missing is None:
        return []
    meeting, there = [], set()
    for edge in group:
        before = missing(graph.problem.stepping[edge.node.place])
        after = missing(View(edge.path.after, edge.path.after, graph.problem.cfg))
        if not graph.never(edge, terms.both(terms.negate(before), after)):
            return []
        if graph.never(edge, terms.negate(before)):
            meeting.append(edge)
        if graph.never(edge, before) or graph.never(edge, after):
            there.add(edge)
    alone = cyclic([edge for edge in group if edge not in meeting]) or cyclic([e for e in group if e not in there])
    return [] if alone else meeting


def _falling(graph: Graph, group: list[Edge]) -> set[Edge]:
    """The steps that lower a number which no step of the group raises; none where no number is found."""
    for measure in graph.waits.measures.values():
        moves = [(edge, *_moved(graph, measure, edge)) for edge in group]
        if any(graph.at(edge.node, terms.at_most(after, before)) is False for edge, before, after in moves):
            continue
        if all(graph.never(edge, terms.below(before, after)) for edge, before, after in moves):
            found = {
                edge
                for edge, before, after in moves
                if graph.never(edge, terms.negate(terms.both(terms.below(after, before), terms.at_most(0, after))))
            }
            if found:
                return found
    return set()


def _moved(graph: Graph, measure: Callable[[View], Value], edge: Edge) -> tuple[Value, Value]:
    before = measure(graph.problem.stepping[edge.node.place])
    return before, measure(View(edge.path.after, edge.path.after, graph.problem.cfg))


# ----------------------------------------------------------------------------------------------------- cycles
def cyclic(edges: Collection[Edge]) -> list[Edge]:
    """The edges that are on a cycle of these edges."""
    group = _component(edges)
    return [edge for edge in edges if group[edge.node] == group[edge.to]]


def _groups(edges: Collection[Edge]) -> list[list[Edge]]:
    """The edges of each strongly connected component."""
    group = _component(edges)
    made: dict[int, list[Edge]] = {}
    for edge in edges:
        made.setdefault(group[edge.node], []).append(edge)
    return list(made.values())


def _component(edges: Collection[Edge]) -> dict[Node, int]:
    """A number for each node, the same where each reaches the other."""
    after: dict[Node, dict[Node, None]] = {}
    before: dict[Node, dict[Node, None]] = {}
    for edge in edges:
        for node in (edge.node, edge.to):
            after.setdefault(node, {})
            before.setdefault(node, {})
        after[edge.node][edge.to] = None
        before[edge.to][edge.node] = None
    order: list[Node] = []
    seen: set[Node] = set()
    for root in after:
        _walk(root, after, seen, order.append)
    found: dict[Node, int] = {}
    done: set[Node] = set()
    for number, root in enumerate(reversed(order)):
        mine: list[Node] = []
        _walk(root, before, done, mine.append)
        found.update(dict.fromkeys(mine, number))
    return found


def _walk(root: Node, to: dict[Node, dict[Node, None]], seen: set[Node], left: Callable[[Node], object]) -> None:
    """Visit what is reached from a node and not seen yet; `left` is told each node after all that follow it."""
    if root in seen:
        return
    seen.add(root)
    stack = [(root, iter(to[root]))]
    while stack:
        node, following = stack[-1]
        for one in following:
            if one not in seen:
                seen.add(one)
                stack.append((one, iter(to[one])))
                break
        else:
            stack.pop()
            left(node)
