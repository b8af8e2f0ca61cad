"""What the rules of guest_memfd wait for, and who holds it, where pages are single ones.

lock, references, DMA mappings  counts of prove/memfd/counts.py, proved with the facts
batches, process mappings       held by no thread: a request removes them itself
invalidation, entry, hardware   what a fault or a pin meets, and tries again
"""

from __future__ import annotations

from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.model.guest_memfd.layout import (
    DISK,
    E_AGAIN,
    E_BUSY,
    E_REFAULT,
    E_RETRY,
    HOLD_MAPPING,
    HOLE,
    KINDS,
    PIN,
    SPLICE,
    USER,
    VCPU,
    VMM,
    W_DEVICE,
    W_LOCK,
    W_REFS,
)
from ultrafolio.model.guest_memfd.scenario import BESIDE_A_HOLE
from ultrafolio.prove import terms
from ultrafolio.prove.before import PAGE
from ultrafolio.prove.facts import View
from ultrafolio.prove.memfd.counts import COUNTS, KVMS
from ultrafolio.prove.memfd.facts import mapped, new, pinning
from ultrafolio.prove.terms import Value
from ultrafolio.prove.window import pages_of

from .nodes import Edge, Graph, Node
from .waits import MEASURES, Part, Waits

LOCK, REFERENCES, MAPPINGS = "lock", "references", "DMA mappings"
INVALIDATION, ENTRY, HARDWARE = "invalidation", "entry", "hardware"
LOCK_SHARED, LOCK_ALONE = "the lock, shared", "the lock, alone"
SHORT, LONG, PLAIN, OF_KVM = "short pins", "long pins", "plain references", "references of KVM"
BATCHES, PROCESSES, OF_MAPPINGS = "LRU batches", "mappings of processes", "KVM's mapping"
SNAPSHOT = "an old snapshot"
COUNTED = {
    LOCK_SHARED: "faults that share the lock", LOCK_ALONE: "the lock, held alone", SHORT: "short pins",
    LONG: "long pins", PLAIN: "plain references of others than KVM", OF_KVM: KVMS, MAPPINGS: "DMA mappings",
}  # fmt: skip
"""Resources that are counts, by the count's name."""
_COUNT = {count.name: count for count in COUNTS}
REMOVED = (BATCHES, PROCESSES, OF_MAPPINGS, SNAPSHOT, ENTRY, HARDWARE)
"""What no thread holds."""
PARTS = {
    LOCK: (LOCK_SHARED, LOCK_ALONE),
    REFERENCES: (SHORT, LONG, PLAIN, OF_KVM, BATCHES, PROCESSES, OF_MAPPINGS),
    INVALIDATION: (LOCK_ALONE, SNAPSHOT),
}
"""Waits for several resources at once."""
PINS, PIPES = "pins that the VMM need not end", "pages in a pipe that nobody need read"
_AWAITED = {
    W_LOCK: LOCK, W_REFS: REFERENCES, W_DEVICE: MAPPINGS, E_AGAIN: REFERENCES, E_BUSY: HARDWARE, E_REFAULT: HARDWARE,
}  # fmt: skip
_RETRIES = {"fault-map": INVALIDATION, "gup-recheck": ENTRY}
_FIELD = {
    BATCHES: "mm.batch", PROCESSES: "mm.users", OF_MAPPINGS: "pt.present", ENTRY: "mm.users", SNAPSHOT: "vm.fresh",
}  # fmt: skip
"""The field that says whether it is there."""


def awaited(rule: str, outcome: int) -> str | None:
    """What a step of this rule with this outcome waits for."""
    return _RETRIES[rule] if outcome == E_RETRY else _AWAITED.get(outcome)


def missing(view: View) -> Value:
    """Whether the table of the thread's process has no entry for the page that it is at."""
    return terms.equal(terms.bit(view.read("mm.users", pinning(view)), view.mine("who.process")), 0)


def _present(view: View, part: str, page: Value) -> Value:
    """Whether a resource is there, of a page or of the machine."""
    if part in COUNTED:
        return terms.at_most(1, _COUNT[COUNTED[part]].value(view, page))
    if part == OF_MAPPINGS:
        return terms.both(view.cfg["hold"] == HOLD_MAPPING, mapped(view, page))
    if part == SNAPSHOT:
        return terms.negate(new(view))
    if part == ENTRY:
        return missing(view)
    return terms.truth(view.read(_FIELD[part], page)) if part in _FIELD else True


def parts(graph: Graph, edge: Edge, name: str) -> tuple[str, ...]:
    """Those resources of a wait that alone can make a step wait; none where the facts exclude the step."""
    view, among = graph.problem.stepping[edge.node.place], PARTS.get(name, (name,))
    if graph.never(edge, True):
        return ()
    if len(among) == 1:
        return among
    pages, found = _named_pages(edge), []
    for part in among:
        others = [_present(view, other, page) for other in among if other != part for page in pages]
        here = terms.any_of(_present(view, part, page) for page in pages)
        if not graph.never(edge, terms.all_of([here, *map(terms.negate, others)])):
            found.append(part)
    return tuple(found)


def named(graph: Graph, edge: Edge, name: str) -> bool:
    """Whether a step waits only where one of the resources of parts() is there."""
    view = graph.problem.stepping[edge.node.place]
    there = (_present(view, part, page) for part in parts(graph, edge, name) for page in _named_pages(edge))
    return graph.never(edge, terms.negate(terms.any_of(there)))


def _named_pages(edge: Edge) -> list[Value]:
    """The pages that a step looks at."""
    return pages_of(edge.path.conditions)[0] or [PAGE]


def absent(graph: Graph, edge: Edge, part: str, whole: bool) -> bool:
    """Whether a step is only taken where a thread's own entry, or a new snapshot, is there."""
    view = graph.problem.stepping[edge.node.place]
    return part in (ENTRY, SNAPSHOT) and graph.never(edge, _present(view, part, view.page))


def removes(graph: Graph, part: str, edge: Edge) -> bool:
    """Whether a step leaves nothing of a part, on any page of the thread's piece; of an entry, on its page."""
    after = View(edge.path.after, edge.path.after, graph.problem.cfg)
    if part not in _FIELD or _FIELD[part] not in edge.path.after.written():
        return False
    if part in (ENTRY, SNAPSHOT):
        return graph.never(edge, _present(after, part, after.page))
    piece = terms.within(after.task("start"), PAGE, after.task("end"))
    return graph.never(edge, terms.both(piece, _present(after, part, PAGE)))


def _value(name: str, view: View, page: Value) -> Value:
    raise KeyError(name)


def _share(name: str, node: Node, view: View, page: Value) -> Value | None:
    return None


WAITS = Waits(
    design=GUEST_MEMFD,
    fields=("task.drained", "task.back", "task.tries"),
    in_facts=(),
    templates=None,
    retrying=(VCPU, VMM, USER, DISK, PIN, SPLICE),
    apart=(
        Part(frozenset((HOLE,))),
        Part(frozenset(range(len(KINDS))) - {*BESIDE_A_HOLE}, frozenset((HOLE,)), {"who.locks": 0}),
    ),
    counted=COUNTED,
    shares=COUNTED,
    once={},
    summed="",
    shared=(LOCK_SHARED, SHORT, LONG, PLAIN, OF_KVM, MAPPINGS),
    removed=REMOVED,
    brought={BATCHES: ("mm.batch", "mm.locking")},
    lasting={LONG: PINS, PLAIN: PIPES, MAPPINGS: PINS},
    pinning={PINS: (PIN,), PIPES: (SPLICE,)},
    uncounted={},
    awaited=awaited,
    parts=parts,
    value=_value,
    share=_share,
    named=named,
    absent=absent,
    removes=removes,
    of_machine=(COUNTED[LOCK_ALONE],),
    missing=missing,
    measures={
        "pages left in its request": lambda v: terms.minus(terms.plus(v.page, v.task("n")), v.task("start")),
        **MEASURES,
    },
)
