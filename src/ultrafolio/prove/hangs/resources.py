"""What is held of a resource, and whether the threads at their nodes hold all of it."""

from __future__ import annotations

from ultrafolio.prove import terms
from ultrafolio.prove.before import PAGE
from ultrafolio.prove.facts import View
from ultrafolio.prove.terms import Value

from .nodes import Edge, Graph, Node


def awaited(graph: Graph, edge: Edge) -> str | None:
    """What a step waits for; None for nothing."""
    rule = graph.waits.rule(edge.node.place.pc)
    return graph.waits.awaited(rule.name, edge.path.outcome) if rule else None


def value(graph: Graph, name: str, view: View, page: Value) -> Value:
    """How many hold a resource of a page in a state."""
    count = graph.waits.counted.get(name)
    return graph.problem.subject.by_name[count].value(view, page) if count else graph.waits.value(name, view, page)


def share(graph: Graph, name: str, node: Node, page: Value, after: Edge | None = None) -> Value | None:
    """Whether a thread at a node holds a resource of a page; `mutex`: of a machine. None: not known.

    after: the step that brought it there; the formula is then of the state before that step.
    """
    view = graph.problem.stepping[node.place]
    if after is not None:
        view = View(after.path.after, after.path.after, graph.problem.cfg)
    count = graph.waits.shares.get(name)
    if count is None:
        return graph.waits.share(name, node, view, page)
    return graph.problem.subject.by_name[count].share(graph.problem.rules, view, node.place, page)


def unaccounted(graph: Graph, name: str) -> str:
    """Why it is not shown that threads hold all there is of a resource; "" where it is."""
    waits = graph.waits
    if name in waits.once and not graph.problem.has("page", waits.once[name]):
        return f"it is not kept that {waits.once[name]}"
    if waits.summed and name in waits.shared and not graph.problem.has("sum", waits.summed):
        return f"it is not kept that {waits.summed}"
    if name in waits.counted:
        kept = graph.problem.has("count", waits.counted[name])
        return "" if kept else f"a step changes {waits.counted[name]}, and not by what its thread holds"
    for edge in graph.every:
        if not edge.waits and not _kept(graph, name, edge):
            return f"{edge.node.place.name} changes what is held, and not by what its thread holds"
    return ""


def _kept(graph: Graph, name: str, edge: Edge) -> bool:
    """Whether a step changes a resource by as much as its own thread's share, where the resource counts that share
    before the step."""
    before, after = share(graph, name, edge.node, PAGE), share(graph, name, edge.to, PAGE, edge)
    if before is None or after is None:
        return False
    views = (graph.problem.stepping[edge.node.place], View(edge.path.after, edge.path.after, graph.problem.cfg))
    was, now = (value(graph, name, view, PAGE) for view in views)
    before, after = (graph.at(edge.node, x) for x in (before, after))
    kept = terms.equal(terms.minus(now, was), terms.minus(terms.ite(after, 1, 0), terms.ite(before, 1, 0)))
    kept = graph.at(edge.node, kept)
    if kept is True:
        return True
    has = terms.at_most(terms.ite(before, 1, 0), was)
    return graph.never(edge, terms.all_of([has, terms.negate(kept)]))
