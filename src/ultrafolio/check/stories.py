"""The story of a component: a way to it, a fair way around in it, and its wait in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ultrafolio.model.layout import MAPPED, MM, OWNERS, PT, UNSHARE
from ultrafolio.waits import words
from ultrafolio.waits.load import interpreted
from ultrafolio.waits.tables import OB_DIRTY, OB_MAPPED
from ultrafolio.waits.words import Holder, Wait, joined

from .components import Judged, Lookup
from .explore import Graph
from .liveness import cycle_through
from .replay import Step

MANY = 64
"""States of a component that are asked who holds the obstacle of a livelock."""


def closed_way(graph: Graph, judged: Judged) -> list[int]:
    """A fair way around: in a livelock it takes a step that removes the obstacle and one that takes it again, or one
    that imports the page and one that takes it away."""
    if judged.kind != "livelock":
        return cycle_through(graph, judged.component)
    return cycle_through(graph, judged.component, [judged.releasing, judged.taking])


def wait_of(lookup: Lookup, judged: Judged, path: Sequence[Step], cycle: Sequence[Step]) -> Wait:
    """The wait of a component in words. path, cycle: its story, in which somebody made a folio dirty or read-only."""
    entry = lookup.state(judged.component.entry)
    t, page = judged.component.waiter, judged.page
    if judged.kind == "fatal":
        return words.dead(entry, t, page)
    waiter = words.waiter_words(entry, t, page)
    if judged.kind == "permanent":
        return _permanent(entry, judged, waiter, path)
    what = (f"page {page} to stay accessible" if judged.taken else
            words.what_for(entry, judged.named, page, judged.whole) if judged.named else f"a turn on page {page}")
    takers = joined(f"{rule} of {_who(entry, a)}" for a, rule in judged.takers)
    if judged.taken:
        held = joined(f"{_who(entry, a)}, which takes it away by {rule}" for a, rule in judged.takers)
    else:
        held = joined(h.held for h in _in_turn(lookup, judged)) or joined(_who(entry, a) for a, _ in judged.takers)
        if judged.named in (OB_DIRTY, OB_MAPPED):
            held = joined(f"{_who(entry, a)}, by {rule}" for a, rule in judged.takers) or held
    released = joined(f"{rule} of {words.name(entry, a)}" for a, rule in judged.releases) or "the waiter's next try"
    return Wait(waiter, what, held or "nobody for good", released, judged.expected, takers)


def _who(entry: Any, a: int) -> str:
    """An actor by name; of one whose own wait is the purpose of pin shared it says so."""
    run = interpreted()
    excused = entry.actor[a].op == UNSHARE and run.is_expected(entry, a)
    return words.name(entry, a) + (", whose own wait for the pin is expected," if excused else "")


def _permanent(entry: Any, judged: Judged, waiter: str, path: Sequence[Step]) -> Wait:
    t, page, whole = judged.component.waiter, judged.page, judged.whole
    found: list[Holder] = []
    for obstacle in words.bits(judged.named):
        some = words.holders(entry, t, obstacle, page, whole)
        lasting = [h for h in some if h.stays or (h.actor is not None and h.actor in judged.holding)]
        if obstacle in (OB_DIRTY, OB_MAPPED):
            some = [Holder(None, _made_so(path, page, obstacle), h.released) for h in some]
        found += lasting or some
    what = " and ".join(words.what_for(entry, o, page, whole) for o in words.bits(judged.named))
    return Wait(waiter, what, joined(h.held for h in found), joined(h.released for h in found), judged.expected)


def _made_so(path: Sequence[Step], page: int, obstacle: int) -> str:
    """Who made the folio dirty, or its page not mapped writable, in the story."""
    for step in reversed(path):
        before, after = (_is_so(packed, page, obstacle) for packed in (step.before, step.after))
        if after and not before:
            return f"{step.kind} {step.actor}'s {step.rule}"
    return "nobody in this story: it is so from the start"


def _is_so(packed: Any, page: int, obstacle: int) -> bool:
    """Whether the packed state has the obstacle at this page."""
    sections = list(OWNERS)
    mm, pt = (dict(zip(kind.names or (), packed[sections.index(name)][page], strict=True))
              for name, kind in (("mm", MM), ("pt", PT)))  # fmt: skip
    head = page >> mm["order"] << mm["order"]
    of_head = dict(zip(MM.names or (), packed[sections.index("mm")][head], strict=True))
    if obstacle == OB_DIRTY:
        return bool(of_head["dirty"])
    return pt["present"] != MAPPED or not of_head["writable"]


def _in_turn(lookup: Lookup, judged: Judged) -> list[Holder]:
    """Everybody who holds the obstacle in some state of the component."""
    if not judged.named or judged.named in (OB_DIRTY, OB_MAPPED):
        return []
    members, run = judged.component.members, interpreted()
    t, page, whole = judged.component.waiter, judged.page, judged.whole
    step = max(1, len(members) // MANY)
    found: dict[str, Holder] = {}
    for number in members[::step].tolist():
        state = lookup.state(number)
        if run.stands(state, t, page, whole) & judged.named:
            found |= {h.held: h for h in words.holders(state, t, judged.named, page, whole)}
    return list(found.values())
