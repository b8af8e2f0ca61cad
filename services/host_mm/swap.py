"""Swap: what a page held that reclaim took from memory lies in a file, and its frame is somebody else's.

Both ways happen under the turn of the step that takes the page away or brings it back, so that state, frame and file
agree at every moment: the file is written before the frame is given away, and the frame is filled with the step's
own commit. That a frame was given away is seen in the frame. One that was written since (zeroed by a reset, filled
with a guest's image) is not read back into, since what it holds is newer than what the file has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from services.common.disk import SECTOR, Disk

T = TypeVar("T")
GIVEN_AWAY = (b"the frame of somebody else " * SECTOR)[:SECTOR]
"""What the frame of a page holds that is swapped out: nobody may read its old content out of memory any more."""


class Seen(NamedTuple):
    """exception: 0 or 0x3d;  data: the page's 4,096 bytes, none where the host may not look."""

    exception: int
    data: bytes


See = Callable[[int, bytes, T | None], Seen]
"""(page, data, part) -> what the host sees in a page as it writes `data` into it, as part of a step or of none."""


class Swap:
    """The swap file `disk`."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

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
        """What the file has of a page."""
        return self._disk.read(origin + page * SECTOR, SECTOR)

    def write(self, origin: int, first: int, data: bytes) -> None:
        """A writeback of whole pages from page `first` on."""
        self._disk.write(origin + first * SECTOR, data)
