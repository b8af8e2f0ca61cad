"""What the rules of s390 wait for, and who holds it.

lock, writeback, frozen, pins   counts of prove/counts.py, proved with the facts
plain references                exact where no step leaks one; shown by resources.py
table, mutex                    taken and dropped by steps; shown there, too
mapped, dirty, batches          held by no thread: what waits must remove them itself
"""

from __future__ import annotations

from ultrafolio.model.designs import S390
from ultrafolio.model.layout import IOMAP, MAPPED, PIN, REFS_FOLIO, RING, SPLIT, VCPU, W_DEVICE, W_TABLE
from ultrafolio.prove import terms
from ultrafolio.prove.before import PAGE
from ultrafolio.prove.counts import BY_NAME, SUMS
from ultrafolio.prove.facts import PAGES, THREAD, View
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
from .waits import WHOLE, Waits

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
LONG_TERM = "long-term pins"
FIELDS = ("task.call", "task.drained", "task.splits", "task.exporting", "task.mutex", "task.ref")


def awaited(rule: str, outcome: int) -> str | None:
    """What a step of this outcome waits for: a name of tables.OBSTACLES, TABLE or QUIET; None for nothing."""
    if outcome in OBSTACLE_OF:
        return _NAMES[OBSTACLE_OF[outcome]]
    return {W_TABLE: TABLE, W_DEVICE: QUIET}.get(outcome)


def parts(graph: Graph, edge: Edge, name: str) -> tuple[str, ...]:
    """The resources that a wait of this name is for."""
    return PARTS.get(name, (name,))


THREADS = (
    "its device has at least one page", "it uses at least one page", "it uses as many pages as its device has",
    "it holds at most one reference of its own", "it holds no reference of its own", "it has pinned no page",
    "it has pinned a page", "its number of pinned pages is not negative", "it has pinned at most all pages",
    "its range is the folio of its page", "it is in its range", "it is in its range or at the end",
    "its folio is in no writeback", "no I/O of writeback is in flight on its folio", "nobody pins its page",
    "it is not in the second of the posted loops",
)  # fmt: skip
OF_PAGES = (
    "the folio lock is taken or free", "a count is frozen or not", "a page walked is walked once",
    "no lock is taken on another page of a folio than the first",
    "no other page of a folio than the first is in writeback",
    "no other page of a folio than the first has a count of the folio",
    "no other page of a folio than the first is frozen", "the ultravisor refuses no call",
)  # fmt: skip
"""The templates that these proofs need; with all of them a proof takes twice as long."""
assert not {*THREADS} - {*THREAD} and not {*OF_PAGES} - {*PAGES}


# ------------------------------------------------------------------------------------------------- what is held
def value(name: str, view: View, page: Value) -> Value:
    """How many hold a resource of a page in a state that is not counted; `mutex`: of a machine."""
    if name == PLAIN:
        return view.read("mm.spec", page)
    if name == TABLE:
        return view.read("mm.walked", page)
    return terms.ite(terms.equal(view.read("vm.mutex", page), 0), 0, 1)


def share(name: str, node: Node, view: View, page: Value) -> Value | None:
    """Whether a thread at a node holds a resource of a page that no count is of; `mutex`: of a machine."""
    if name == TABLE:
        return None if node.walks is None else terms.both(node.walks == 1, terms.equal(view.page, page))
    return terms.both(terms.equal(view.task("mutex"), 1), terms.equal(view.mine("who.vm"), page))


# ------------------------------------------------------------------------------------------- what a wait is for
def named(graph: Graph, edge: Edge, name: str) -> bool:
    """Whether a step waits only where somebody has what it names."""
    view = graph.problem.stepping[edge.node.place]
    pages = (view.page, terms.plus(view.page, view.task("at")))
    whole = counts_whole(graph, edge)
    return graph.never(edge, terms.negate(terms.any_of(_present(graph, name, view, p, whole) for p in pages)))


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
    return terms.at_most(1, BY_NAME[COUNTED[name]].value(view, where))


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


WAITS = Waits(
    design=S390,
    fields=FIELDS,
    in_facts=(*FIELDS, "who.stuck"),
    templates=frozenset((*THREADS, *OF_PAGES)),
    retrying=(VCPU,),
    apart=(WHOLE,),
    counted=COUNTED,
    shares={**COUNTED, PLAIN: "plain references"},
    once=ONCE,
    summed=SUMS[0].name,
    shared=SHARED,
    removed=REMOVED,
    brought={},
    lasting={LONG: LONG_TERM},
    pinning={LONG_TERM: (RING, PIN)},
    uncounted={QUIET: "it is for other threads to be idle, which no count says"},
    awaited=awaited,
    parts=parts,
    value=value,
    share=share,
    named=named,
    absent=absent,
    removes=removes,
    whole=counts_whole,
)
