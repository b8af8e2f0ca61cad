"""The codes of a group's pages for the page's map, 31 bits a page (looks.py), in lists of runs.

A list of runs is first page, number of pages, code, first page, number of pages, code, …: pages that follow each other
and have the same code. A folio of a GiB whose arch bit is set changes in few runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from services.lab.looks import LOOKS, VALUES
from ultrafolio.engine.load import interpreted
from ultrafolio.model.designs import S390, of
from ultrafolio.model.layout import SECURE, State

Array = np.ndarray[Any, Any]
_STATE, _ARCH, _OVER = 7, 1 << 3, 1 << 4
"""Of s390: the state, and the bits of `arch`."""


class Codes:
    """The codes of all pages of a state in lists, `live`; `arrays`: the same state as arrays."""

    def __init__(self, live: Any, arrays: State) -> None:
        self._live = live
        self._look, self._values = LOOKS[of(live).name], VALUES[of(live).name]
        self._covers = of(live) is S390
        """Whether a page's record may say something of the pages after it."""
        seen = self._values(type(arrays)(*(array.view(np.recarray) for array in arrays)), np.arange(len(arrays.mm)))
        self.codes: Array = self._look.packed(seen, lambda value, most: np.clip(np.asarray(value, np.int64), 0, most))

    def update(self, touched: Iterable[int]) -> list[int]:
        """Pack the pages whose records were written again, and what follows from them. Returns the runs that changed.

        A page's code is made of its own records; of s390 also of the arch bit of its folio, which may be in the head's
        record.
        """
        spans: list[tuple[int, Array]] = []
        end = 0
        for page in sorted(touched):
            code = self._look.packed(self._values(self._live, page), _clipped)
            covers = self._covers and (code ^ int(self.codes[page])) & _ARCH
            rest = self._after(page) if covers else page + 1
            if page >= end:
                end = rest
                spans.append((page, self.codes[page:end].copy()))
            if rest > page + 1:
                self._cover(page + 1, rest, bool(code & _ARCH))
            self.codes[page] = code
        parts = [page + np.flatnonzero(self.codes[page : page + len(old)] != old) for page, old in spans]
        return runs(np.concatenate(parts), self.codes) if parts else []

    def _after(self, page: int) -> int:
        """Returns the page after those whose arch bit is in the record of `page`."""
        rules, s = interpreted(), self._live
        last = page + 1
        if last < len(self.codes) and rules.bit_page(s, last) == page:
            last = page + (1 << s.mm[page].order)
        return min(last, len(self.codes))

    def _cover(self, first: int, end: int, bit: bool) -> None:
        """Enter the arch bit of a folio in the codes of these pages of it."""
        part = self.codes[first:end]
        part &= ~(_ARCH | _OVER)
        if bit:
            part |= np.where(part & _STATE != SECURE, _ARCH | _OVER, _ARCH)


def _clipped(value: Any, most: int) -> int:
    return max(0, min(int(value), most))


def runs(pages: Array, codes: Array) -> list[int]:
    """The codes of these pages, ascending, as a list of runs."""
    if not len(pages):
        return []
    mine = codes[pages]
    starts = np.flatnonzero(np.concatenate(([True], (np.diff(pages) != 1) | (np.diff(mine) != 0))))
    counts = np.diff(np.append(starts, len(pages)))
    made: list[int] = np.stack([pages[starts], counts, mine[starts]], axis=1).ravel().tolist()
    return made


def enter(codes: Array, changed: list[int]) -> None:
    """Enter a list of runs in the codes of all pages."""
    for first, count, code in zip(changed[::3], changed[1::3], changed[2::3], strict=True):
        codes[first : first + count] = code
