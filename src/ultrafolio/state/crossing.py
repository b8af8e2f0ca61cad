"""Crossings: what a step of one part asks another, and the rules with these questions in the place of functions.

A step is run as far as the first question without an answer, which ends it with Crossing; it is run again with the
answer at hand, and so on (see state/turn.py).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import msgspec

from ultrafolio.engine import load
from ultrafolio.model.design import Design
from ultrafolio.model.designs import DESIGNS, GUEST_MEMFD, S390
from ultrafolio.model.guest_memfd.layout import VMM_RETRY
from ultrafolio.model.layout import AGAIN, FAULT, OK, SWAPPED
from ultrafolio.state.view import Live, View

from .sections import sections
from .store import Offer, Turn

WALLS: dict[str, dict[str, tuple[str, ...]]] = {
    S390.name: {
        "host": ("uv_import", "uv_export", "uv_pin", "uv_unpin", "uv_reset", "hw_host"),
        "guest": (
            "hw_guest",
            "uv_share",
            "uv_unshare",
            "uv_shared",
            "take_exit",
            "take_pin",
            "take_reboot",
            "turn_come",
        ),
    },
    GUEST_MEMFD.name: {
        "host": (
            *("prepare", "assign", "host_access", "unmap", "make_shared", "reclaim", "join", "split"),
            # what the properties ask of the hardware
            *("converted_content", "drop_content", "new_frame"),
        ),
        "guest": ("is_reachable", "guest_access", "turn", "host_access", "close_pipe"),
    },
}
"""Per design: role -> functions of the model that another role executes for it."""
HANDS_OVER = ("take_exit", "take_pin", "take_reboot")
"""Those that pass the thread to the other role."""
OFFERED: dict[str, dict[str, tuple[str, ...]]] = {
    S390.name: {
        "host": ("uv_import", "uv_export", "uv_pin", "uv_unpin"),
        "guest": ("hw_guest", "uv_share", "uv_unshare"),
    },
    GUEST_MEMFD.name: {
        "host": WALLS[GUEST_MEMFD.name]["host"],
        "guest": ("is_reachable", "guest_access", "turn"),
    },
}
"""Functions whose part can take the turn for the beginner, where a step comes to them first."""
_ASKED = {"host": ("ultravisor",), "guest": ("ultravisor", "host")}
"""Which parts a role's steps ask."""
LOOKED_AT = {
    design.name: {
        role: {name for part in parts for name in sections(design).touched[part].reads}
        for role, parts in _ASKED.items()
    }
    for design in DESIGNS.values()
}
"""Sections that the parts read which a role's steps ask."""
SEEN: dict[str, dict[str, tuple[str, ...]]] = {
    S390.name: {"host": (), "guest": ("pc", "vm")},
    GUEST_MEMFD.name: {"host": (), "guest": ("thread",)},
}
"""Sections that a role's rules read and called roles may write: saved in the turn, so that a re-run sees the same."""
ROUNDS = {
    S390.name: ((AGAIN, FAULT),),
    GUEST_MEMFD.name: ((AGAIN, FAULT), (VMM_RETRY, OK)),
}
"""Steps (place, outcome) with which a thread that polls begins another round."""
SWAPS = ("swap_out", "swap_in")
"""Calls of the host to itself at swap-out and swap-in: they move contents, which are no part of the state."""


class Result(msgspec.Struct, frozen=True, array_like=True):
    """What a crossing returned, as the journal keeps it. fresh: the call wrote the page's content anew, an export."""

    code: int
    fresh: bool = False


class Ask(Protocol):
    """Calls another part, which commits its change at place `index` of the turn's journal, and returns its result.

    offer: the turn is not held, but offered with this; NotTaken: it was not taken, and nothing was done
    """

    def __call__(
        self, view: View, turn: Turn, index: int, function: str, arguments: tuple[int, ...], offer: Offer | None = None
    ) -> Result: ...


class NotTaken(Exception):
    """An offered turn was not taken: what its beginner saw does not stand, or another has the turn."""


class Begun(NamedTuple):
    """A step that has begun already: its turn, which was taken for it, and the result of its first crossing."""

    turn: Turn
    result: Result


class Crossing(Exception):
    """A question to another part, which has no answer yet."""

    def __init__(self, function: str, arguments: tuple[int, ...]) -> None:
        self.function, self.arguments = function, arguments


@dataclass
class Slot:
    """The calls of a turn: results so far, and how many of them the present step has used.

    moves  the pages that the present step has moved so far, as calls;  moved: those of them that were called
    """

    results: list[Result] = field(default_factory=list)
    used: int = 0
    names: list[tuple[str, int]] = field(default_factory=list)
    moves: Callable[[], list[tuple[str, int]]] = list
    moved: list[tuple[str, int]] = field(default_factory=list)

    def begin(self, moves: Callable[[], list[tuple[str, int]]]) -> None:
        """A step begins, or begins again."""
        self.names.clear()
        self.moved.clear()
        self.moves = moves

    def settle(self) -> None:
        """Move the contents of pages that the step has moved and this has not."""
        for function, page in self.moves():
            if (function, page) not in self.moved:
                self.moved.append((function, page))
                self._call(function, (page,))

    def call(self, function: str, arguments: tuple[int, ...]) -> Result:
        """Ask another part, which sees the pages where the step has moved them."""
        self.settle()
        return self._call(function, arguments)

    def _call(self, function: str, arguments: tuple[int, ...]) -> Result:
        """Returns the next answer at hand. Raises Crossing if there is none."""
        if self.used == len(self.results):
            raise Crossing(function, arguments)
        result = self.results[self.used]
        self.used += 1
        self.names.append((function, result.code))
        return result


def swaps(view: View, mark: int) -> list[tuple[str, int]]:
    """Returns the swaps of a step, whose writes are in the view's log after `mark`; only s390 swaps."""
    if view.meta.design is not S390:
        return []
    present = view.arrays.pt["present"]
    written = {at: before for name, at, _, before in view.log[mark:] if name == "pt"}
    return [
        (SWAPS[before == SWAPPED], at)
        for at, before in written.items()
        if (before == SWAPPED) != (present[at] == SWAPPED)
    ]


def _stub(function: str) -> Callable[..., int]:
    """Returns a function that asks another role in the place of `function`."""

    def crossing(s: Live, *arguments: int) -> int:
        result: Result = s.crossing.call(function, arguments)
        if result.fresh:  # what model.ultravisor.uv_export says of the frame, which is the host's record
            s.mm[arguments[0]].altered = 0
        return result.code

    return crossing


@functools.cache
def rules_of(role: str, design: Design = S390) -> Any:
    """The plain rules of a design with the role's walls in them."""
    space = load.functions(lambda function: function, design=design)
    space.update({name: _stub(name) for name in WALLS[design.name][role]})
    return load.rules(space)
