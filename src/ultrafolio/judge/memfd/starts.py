"""The starts of guest_memfd: small states of a file of one virtual machine, each page in one of six situations."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ultrafolio.model.guest_memfd import machines
from ultrafolio.model.guest_memfd.layout import (
    ENDLESS,
    HW_ASSIGNED,
    HW_HOST,
    HW_PRIVATE,
    MAPPED,
    MAPPED_PRIVATE,
    MemfdState,
    new_state,
)
from ultrafolio.model.guest_memfd.policy import MemfdPolicy

from .watch import MemfdWatched
from .ways import WAYS, set_up

PAGES = ("private", "private mapped", "private absent", "shared", "shared mapped", "shared absent")
"""The situations of a page: its attribute; mapped: KVM maps it so; absent: the file has no page there."""
ANOTHER = 7
"""The thread that holds the invalidate lock at a start and never gives it back."""


@dataclass(frozen=True, slots=True)
class Start:
    """A state before an operation. users: a process maps page 0. reference: somebody has a reference of page 0.
    invalidated: an invalidation of every page is going on. lock: the invalidate lock, free, shared or alone. machine: a
    private page is assigned there, and accepted where KVM maps it."""

    pages: tuple[str, ...] = ("private",)
    users: int = 0
    reference: int = 0
    invalidated: int = 0
    lock: str = "free"
    machine: str = "software"

    def __str__(self) -> str:
        said = [f"page {at} {word}" for at, word in enumerate(self.pages)]
        said += [name for name in ("users", "reference", "invalidated") if getattr(self, name)]
        said += [f"lock {self.lock}"] if self.lock != "free" else []
        return ", ".join(said) + (f" on {self.machine}" if self.machine != "software" else "")


def plain(two: bool) -> Iterator[Start]:
    """The starts in which only the pages vary: of one page, and of two as well if `two`."""
    for pages in (1, 2)[: 1 + two]:
        for words in itertools.product(PAGES, repeat=pages):
            yield Start(words)


def starts() -> Iterator[Start]:
    """All starts: one or two pages in every situation, on each machine; the other parts vary one at a time, with one
    page."""
    yield from plain(True)
    yield from (replace(start, machine="snp") for start in plain(True))
    for word in PAGES:
        yield Start((word,), users=1)
        if "absent" not in word:
            yield Start((word,), reference=1)
        yield Start((word,), invalidated=1)
        for lock in ("shared", "alone"):
            yield Start((word,), lock=lock)


@dataclass(frozen=True, slots=True)
class Doing:
    """An operation of a thread, its first page, and how many."""

    operation: str
    page: int = 0
    pages: int = 1

    @property
    def subject(self) -> int:
        """Returns what the C is told of it."""
        return self.page | self.pages << 4

    def __str__(self) -> str:
        last = self.page + self.pages - 1
        return f"{self.operation} of {f'page {self.page}' if self.pages == 1 else f'pages {self.page} to {last}'}"


def pairs(start: Start) -> Iterator[tuple[Doing, Doing]]:
    """The pairs of operations that run at once from a start: of one page, all of it; of two pages, of the first, of the
    second and of both, so that ranges meet and do not meet."""
    ways = [Doing(operation) for operation in WAYS]
    if len(start.pages) == 2:
        ways += [Doing(operation, 1) for operation in WAYS]
        ways += [Doing(operation, 0, 2) for operation in WAYS if not operation.startswith("fault")]
    ways.sort(key=lambda one: list(WAYS).index(one.operation))
    return itertools.combinations_with_replacement(ways, 2)


def threes() -> Iterator[tuple[Start, tuple[Doing, ...]]]:
    """Three operations at once, each another one, from one page in every situation."""
    for word in PAGES:
        for three in itertools.combinations(WAYS, 3):
            yield Start((word,)), tuple(Doing(operation) for operation in three)


def build(start: Start, policy: MemfdPolicy, doing: list[Doing]) -> MemfdWatched:
    """The state of a start with one thread an operation."""
    arrays: MemfdState = new_state(len(start.pages), len(doing), 1)
    for name, code in policy.codes().items():
        arrays.cfg[name] = code
    arrays.cfg["machine"] = machines.NAMES.index(start.machine)
    for at, word in enumerate(start.pages):
        private = word.startswith("private")
        arrays.mm[at]["private"], arrays.mm[at]["allocated"] = private, "absent" not in word
        arrays.pt[at]["present"] = (MAPPED_PRIVATE if private else MAPPED) if "mapped" in word else 0
        arrays.mm[at]["zapped"] = start.invalidated
        if private and start.machine == "snp":
            arrays.uv[at]["state"] = (
                (HW_PRIVATE if "mapped" in word else HW_ASSIGNED) if "absent" not in word else HW_HOST
            )
    arrays.mm[0]["users"] = start.users
    arrays.mm[0]["spec"] = arrays.mm[0]["refs"] = start.reference
    arrays.vm[0]["mutex"] = {"free": 0, "shared": -1, "alone": ANOTHER + 1}[start.lock]
    for at, one in enumerate(doing):
        arrays.who[at]["kind"], arrays.who[at]["cpu"] = WAYS[one.operation].kind, at
        arrays.actor[at]["budget"], arrays.actor[at]["n"] = ENDLESS, one.pages
    watched = MemfdWatched(arrays)
    for at, one in enumerate(doing):
        set_up(watched.state, at, one.operation, one.page, one.pages)
    return watched
