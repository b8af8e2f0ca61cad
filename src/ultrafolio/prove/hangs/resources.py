"""What is waited for, as resources: whether it is held, what a thread holds of it, and that threads hold all of it.

lock, writeback, frozen, pins   counts of prove/counts.py, proved with the facts
plain references                exact where no step leaks one; shown here
table, mutex                    taken and dropped by steps; shown here
mapped, dirty, batches          held by no thread: what waits must remove them itself
"""

from __future__ import annotations

from ultrafolio.model.layout import (
    IOMAP,
    MAPPED,
    REFS_FOLIO,
    SPLIT,
    W_DEVICE,
    W_TABLE,
)
from ultrafolio.prove import terms
from ultrafolio.prove.before import PAGE
from ultrafolio.prove.counts import BY_NAME, SUMS
from ultrafolio.prove.facts import View
from ultrafolio.prove.terms import Value
from ultrafolio.waits.tables import (
    OB_FROZEN,
    OB_LOCK,
    OB_MUTEX,
    OB_REFS,
    OB_WRITEBACK,
    OBSTACLE_OF,
    OBSTACLES,
)

from .nodes import OWN_PAGE, Edge, Graph, Node

TABLE, QUIET = "page table", "quiet machine"
BATCHES, MAPPING, DIRTY = "LRU batches", "mapped", "dirty"
SHORT, LONG, PLAIN = "short pins", "long pins", "plain references"
_NAMES = {bit: name for bit, name in zip((1 << n for n in range(len(OBSTACLES))), OBSTACLES, strict=True)}
PARTS: dict[str, tuple[str, ...]] = {_NAMES[OB_REFS]: (SHORT, LONG, PLAIN, BATCHES)}
"""Waits for several resources at once."""
COUNTED = {
    _NAMES[OB_LOCK]: "the folio lock", _NAMES[OB_WRITEBACK]: "writeback", _NAMES[OB_FROZEN]: "frozen counts",
    SHORT: "short pins", LONG: "long pins",
}  # fmt: skip
"""Resources that are counts, by the count's name."""
ONCE = {
    _NAMES[OB_LOCK]: "the folio lock is taken or free", _NAMES[OB_FROZEN]: "a count is frozen or not",
    TABLE: "a page walked is walked once",
}  # fmt: skip
"""The facts that say that at most one thread holds a resource; the values of writeback and the mutex are 0 or 1."""
REMOVED = (BATCHES, MAPPING, DIRTY)
"""What no thread holds."""
SHARED = (SHORT, LONG, PLAIN)
"""What several threads may hold at once."""
MUTEX = _NAMES[OB_MUTEX]


def awaited(outcome: int) -> str | None:
    """What a step of this outcome waits for: a name of tables.OBSTACLES, TABLE or QUIET; None for nothing."""
    if outcome in OBSTACLE_OF:
        return _NAMES[OBSTACLE_OF[outcome]]
    return {W_TABLE: TABLE, W_DEVICE: QUIET}.get(outcome)


def parts(name: str) -> tuple[str, ...]:
    """The resources that a wait of this name is for."""
    return PARTS.get(name, (name,))


# ------------------------------------------------------------------------------------------------- what is held
def value(name: str, view: View, page: Value) -> Value:
    """How many hold a resource of a page in a state; `mutex`: of a machine."""
    if name in COUNTED:
        return BY_NAME[COUNTED[name]].value(view, page)
    if name == PLAIN:
        return view.read("mm.spec", page)
    if name == TABLE:
        return view.read("mm.walked", page)
    return terms.ite(terms.equal(view.read("vm.mutex", page), 0), 0, 1)


def share(graph: Graph, name: str, node: Node, page: Value, after: Edge | None = None) -> Value | None:
    """Whether a thread at a node holds a resource of a page; `mutex`: of a machine. None: not known.

    after: the step that brought it there; the formula is then of the state before that step.
    """
    view = graph.problem.stepping[node.place]
    if after is not None:
        view = View(after.path.after, after.path.after, graph.problem.cfg)
    if name == TABLE:
        return None if node.walks is None else terms.both(node.walks == 1, terms.equal(view.page, page))
    if name == MUTEX:
        return terms.both(terms.equal(view.task("mutex"), 1), terms.equal(view.mine("who.vm"), page))
    return BY_NAME[COUNTED.get(name, PLAIN)].share(graph.problem.rules, view, node.place, page)


def unaccounted(graph: Graph, name: str) -> str:
    """Why it is not shown that threads hold all there is of a resource; "" where it is."""
    if name in ONCE and not graph.problem.has("page", ONCE[name]):
        return f"it is not kept that {ONCE[name]}"
    if name in SHARED and not graph.problem.has("sum", SUMS[0].name):
        return f"it is not kept that {SUMS[0].name}"
    if name in COUNTED:
        kept = graph.problem.has("count", COUNTED[name])
        return "" if kept else f"a step changes {COUNTED[name]}, and not by what its thread holds"
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
    was, now = (value(name, view, PAGE) for view in views)
    before, after = (graph.at(edge.node, x) for x in (before, after))
    kept = terms.equal(terms.minus(now, was), terms.minus(terms.ite(after, 1, 0), terms.ite(before, 1, 0)))
    kept = graph.at(edge.node, kept)
    if kept is True:
        return True
    has = terms.at_most(terms.ite(before, 1, 0), was)
    return graph.never(edge, terms.all_of([has, terms.negate(kept)]))


# ------------------------------------------------------------------------------------------- what a wait is for
def wrongly_named(graph: Graph, edge: Edge, name: str) -> bool:
    """Whether a step may wait for what it names where nobody has that."""
    view = graph.problem.stepping[edge.node.place]
    pages = (view.page, terms.plus(view.page, view.task("at")))
    whole = counts_whole(graph, edge)
    return not graph.never(edge, terms.negate(terms.any_of(_present(graph, name, view, p, whole) for p in pages)))


def absent(graph: Graph, edge: Edge, name: str, whole: bool) -> bool:
    """Whether a step is only taken where nobody has what another step of the thread waits for on its page."""
    view = graph.problem.stepping[edge.node.place]
    formula = _present(graph, name, view, view.page, whole)
    asked = {leaf.args[0] for leaf in terms.leaves(formula, _READ)}
    looks = {leaf.args[0] for each in edge.path.conditions for leaf in terms.leaves(each, _READ)}
    return bool(asked & looks) and graph.never(edge, formula)


_READ = frozenset(("read",))


def counts_whole(graph: Graph, edge: Edge) -> bool:
    """Whether a step that waits for references waits for those of all pages of the folio."""
    return edge.node.place.pc == SPLIT or graph.problem.cfg["refs"] == REFS_FOLIO


def _present(graph: Graph, name: str, view: View, page: Value, whole: bool) -> Value:
    first = view.world.head(page)
    if name == MAPPING:
        return terms.negate(writable(view, page))
    if name == DIRTY:
        return terms.both(terms.truth(view.read("mm.dirty", first)), terms.equal(view.read("mm.backing", first), IOMAP))
    if name == MUTEX:
        return terms.truth(view.read("vm.mutex", view.mine("who.vm")))
    if name in PARTS:
        total = view.read(SUMS[0].total, first) if whole else SUMS[0].of_page(view, page)
        return terms.below(view.task("ref"), total)
    if name == TABLE:
        return terms.truth(view.read("mm.walked", page))
    where = view.counted(page) if name == _NAMES[OB_FROZEN] else first
    return terms.at_most(1, value(name, view, where))


def writable(view: View, page: Value) -> Value:
    """Whether the guest's table maps a page for writing."""
    return terms.both(
        terms.equal(view.read("pt.present", page), MAPPED),
        terms.at_most(1, view.read("mm.writable", view.world.head(page))),
    )


# ------------------------------------------------------------------------------------- what no thread holds
def removes(graph: Graph, name: str, edge: Edge) -> bool:
    """Whether a step leaves nothing of what no thread holds, of the folio of the thread's page."""
    after = View(edge.path.after, edge.path.after, graph.problem.cfg)
    first = edge.path.after.head(OWN_PAGE)
    if name == MAPPING:
        return graph.never(edge, terms.negate(writable(after, OWN_PAGE)))
    if name == DIRTY:
        return _writes(edge, "mm.dirty") and graph.never(edge, terms.truth(after.read("mm.dirty", first)))
    if not _writes(edge, "mm.batch"):
        return False
    here = terms.equal(terms.head(PAGE), terms.head(OWN_PAGE))
    return graph.never(edge, terms.both(here, terms.truth(after.read("mm.batch", PAGE))))


def _writes(edge: Edge, name: str) -> bool:
    return name in edge.path.after.written()
