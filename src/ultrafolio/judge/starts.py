"""The starts: small states from which operations are judged, of one folio with one or two pages.

The main parts are combined: order, folio lock, writeback, other references, page state, arch bit. The other parts
vary one at a time: backing, mapping, dirty, a refused call, altered bytes, a second guest.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from ultrafolio.model.policy import Policy

from ..model.layout import (
    ANON,
    ENDLESS,
    EXPORTED,
    IOMAP,
    MAPPED,
    NO_WRITEBACK,
    NON_SECURE,
    PINNED_SHARED,
    SECURE,
    SHARED,
    SHMEM,
    UNMAPPED,
    WRITING,
    State,
    blank,
)
from .runs import WAYS, set_up
from .watch import Watched

REFERENCES = ("none", "plain", "pin", "long pin", "batch of this CPU", "batch of another CPU")


@dataclass(frozen=True, slots=True)
class Start:
    """A state before an operation on page `page` of one folio."""

    order: int = 0
    page: int = 0
    locked: int = 0
    writeback: int = NO_WRITEBACK
    references: str = "none"
    uv: int = NON_SECURE
    arch: int = 0
    backing: int = SHMEM
    present: int = MAPPED
    writable: int = 1
    dirty: int = 0
    refuses: int = 0
    altered: int = 0
    guests: int = 1
    owner: int = 0
    misc: int = 0
    busy: int = 0

    def __str__(self) -> str:
        plain = Start()
        said = [
            f"{name} {getattr(self, name)}" for name in self.__slots__ if getattr(self, name) != getattr(plain, name)
        ]
        return ", ".join(said) or "plain"


def starts(whole: bool = True) -> Iterator[Start]:
    """All starts; without `whole` those with one page, at most one other reference and no second guest."""
    references = REFERENCES if whole else ("none", "pin")
    for locked, writeback, refs, uv in itertools.product((0, 1), (NO_WRITEBACK, WRITING), references, range(5)):
        for arch in (1,) if uv == SECURE else (0, 1):
            yield Start(locked=locked, writeback=writeback, references=refs, uv=uv, arch=arch)
    for change in (
        dict(backing=ANON),
        dict(backing=IOMAP),
        dict(backing=IOMAP, dirty=1),
        dict(present=UNMAPPED),
        dict(writable=0),
        dict(refuses=1),
        dict(altered=1),
    ):
        for uv, refs in itertools.product(range(5), ("none", "pin")):
            yield Start(uv=uv, references=refs, arch=1 if uv == SECURE else 0, **change)  # type: ignore[arg-type]
            if uv != SECURE:
                yield Start(uv=uv, references=refs, arch=1, **change)  # type: ignore[arg-type]
    if not whole:
        return
    for page, locked, writeback, refs, uv in itertools.product(
        (0, 1), (0, 1), (NO_WRITEBACK, WRITING), REFERENCES, (NON_SECURE, EXPORTED)
    ):
        yield Start(order=1, page=page, locked=locked, writeback=writeback, references=refs, uv=uv)
    for page, backing, dirty in itertools.product((0, 1), (ANON, IOMAP), (0, 1)):
        yield Start(order=1, page=page, backing=backing, dirty=dirty)
    for uv, owner, misc in itertools.product((SECURE, SHARED, PINNED_SHARED, EXPORTED), (0, 1), (0, 1)):
        yield Start(uv=uv, arch=1, guests=2, owner=owner, misc=misc)


def busy_starts() -> Iterator[Start]:
    """Starts in which the ultravisor is busy with the page, so that the call must be repeated."""
    for uv, arch, refs in itertools.product(range(5), (0, 1), REFERENCES):
        if arch or uv != SECURE:
            yield Start(uv=uv, arch=arch, references=refs, busy=1)


@dataclass(frozen=True, slots=True)
class Doing:
    """An operation of a thread, and its page."""

    operation: str
    page: int


def build(start: Start, policy: Policy, doing: list[Doing]) -> Watched:
    """The state of a start with one thread an operation, each on a CPU of its own."""
    arrays = blank(1 << start.order, len(doing), start.guests)
    for name, code in policy.codes().items():
        arrays.cfg[name] = code
    arrays.cfg["misc"] = start.misc
    for at, one in enumerate(doing):
        arrays.who[at]["kind"], arrays.who[at]["cpu"] = WAYS[one.operation].kind, at
        arrays.actor[at]["budget"], arrays.actor[at]["n"] = ENDLESS, 1
    _folio(arrays, start)
    watched = Watched(arrays)
    for at, one in enumerate(doing):
        set_up(watched.state, at, one.operation, one.page)
    return watched


def _folio(arrays: State, start: Start) -> None:
    """Set the folio of a start; its other references and its page state are those of the start's page."""
    mm, head, page = arrays.mm, 0, start.page
    mm["order"] = start.order
    mm["backing"] = start.backing
    for name in ("locked", "writeback", "writable", "dirty"):
        mm[head][name] = getattr(start, name)
    arrays.pt[page]["present"] = start.present
    mm[page]["arch"], mm[page]["altered"] = start.arch, start.altered
    mm[head]["marked"] = start.arch
    if start.references != "none":
        mm[head]["refs"] = 1
        name, value = {
            "plain": ("spec", 1),
            "pin": ("pins", 1),
            "long pin": ("longs", 1),
            "batch of this CPU": ("batch", 1),
            "batch of another CPU": ("batch", 5),
        }[start.references]
        mm[page][name] = value
    arrays.uv[page]["state"], arrays.uv[page]["owner"] = start.uv, start.owner
    arrays.uv[page]["refuses"] = max(start.refuses, start.busy)
