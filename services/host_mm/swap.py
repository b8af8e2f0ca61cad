"""Swap: a file with the contents of reclaimed pages.

Swap-out and swap-in happen under the turn of the step that reclaims or faults the page, so that state, frame and file
agree: the file is written before the frame is freed, and the frame is filled with the step's own commit. GIVEN_AWAY
marks a freed frame. A frame written since (zeroed by a reset, filled with a guest's image) is not filled from the file:
its content is newer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from services.common.disk import SECTOR, Disk
from services.common.groups import Held
from services.common.moved import file_of
from ultrafolio.state.sections import Meta

T = TypeVar("T")
GIVEN_AWAY = (b"the frame of somebody else " * SECTOR)[:SECTOR]
"""Content of the frame of a swapped-out page, so that its old content cannot be read from memory."""


class Seen(NamedTuple):
    """exception: 0 or 0x3d;  data: the page's 4,096 bytes, none if the host may not read it."""

    exception: int
    data: bytes


See = Callable[[int, bytes, T | None], Seen]
"""(page, data, part) -> the host's access: reads the page, writes `data`, as part of a step or of none."""


class Swap:
    """The swap file `disk`."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def of(self, group: str, meta: Meta, held: Held) -> Swap:
        """Returns the swap of a group, which this process has from now on."""
        lone, size = self._disk.path, SECTOR * int(meta.cfg["pages"][0])
        path = file_of(lone.parent, lone, group, held, meta.origin, size)
        return self if path == lone else Swap(Disk(path))

    def out(self, see: See[T], origin: int, page: int, part: T) -> int:
        """Page `page` of the group at address `origin` leaves memory; 0, or the host's exception."""
        held = see(page, b"", None).data
        if held and held != GIVEN_AWAY:  # else it was asked before, or it is not to be seen
            self._disk.write(origin + page * SECTOR, held)
        return see(page, GIVEN_AWAY, part).exception

    def back(self, see: See[T], origin: int, page: int, part: T) -> int:
        """The page comes back into memory; 0, or the host's exception."""
        missing = see(page, b"", None).data == GIVEN_AWAY
        return see(page, self.read(origin, page) if missing else b"", part).exception

    def read(self, origin: int, page: int) -> bytes:
        """Returns the page's content in the file."""
        return self._disk.read(origin + page * SECTOR, SECTOR)

    def write(self, origin: int, first: int, data: bytes) -> None:
        """A writeback of whole pages from page `first` on."""
        self._disk.write(origin + first * SECTOR, data)
