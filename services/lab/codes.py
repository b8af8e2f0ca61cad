"""The codes of a group's pages for the page's map: 31 bits a page, which page/model.js unpacks, in lists of runs.

A list of runs is first page, number of pages, code, first page, number of pages, code, …: pages that follow each other
and have the same code. A folio of a GiB whose arch bit is set changes in few runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ultrafolio.engine.load import interpreted
from ultrafolio.model.layout import SECURE, State

Array = np.ndarray[Any, Any]
_STATE, _ARCH, _OVER = 7, 1 << 3, 1 << 4


class Codes:
    """The codes of all pages of a state in lists, `live`; `arrays`: the same state as arrays."""

    def __init__(self, live: Any, arrays: State) -> None:
        self._live = live
        self.codes: Array = _packed(
            State(*(array.view(np.recarray) for array in arrays)),
            np.arange(len(arrays.mm)),
            lambda value, most: np.clip(np.asarray(value, np.int64), 0, most),
        )

    def update(self, touched: Iterable[int]) -> list[int]:
        """Pack the pages whose records were written again, and what follows from them. Returns the runs that changed.

        A page's code is made of its own records and of the arch bit of its folio; that may be in the head's record.
        """
        spans: list[tuple[int, Array]] = []
        end = 0
        for page in sorted(touched):
            code = _packed(self._live, page, _clipped)
            rest = self._after(page) if (code ^ int(self.codes[page])) & _ARCH else page + 1
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


def _packed(s: Any, page: Any, clipped: Callable[[Any, int], Any]) -> Any:
    """Returns the code of a page, or those of an array of pages of a state of record arrays."""
    rules = interpreted()
    uv, mm = s.uv[page].state, s.mm[page]
    bit = s.mm[rules.bit_page(s, page)].arch > 0
    flags = (
        (uv, 3), (bit, 1), (bit & (uv != SECURE), 1), (mm.locked, 1), (mm.frozen, 1), (mm.writeback, 2), (mm.dirty, 1),
        (s.io[page].flying, 1), (rules.head(s, page) == page, 1), (mm.pins, 6), (mm.longs, 6), (mm.refs, 7),
    )  # fmt: skip
    code, at = 0, 0
    for value, width in flags:
        code |= clipped(value, (1 << width) - 1) << at
        at += width
    return code


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
