"""Load whole recordings.

Every function returns the complete recording or raises InputError. The format is detected from the file's content
(``registry.importer_of``).
"""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from ultrafolio.errors import InputError
from ultrafolio.trace.importer import EVERYTHING, Kind, Only, Recording
from ultrafolio.trace.reader import Path
from ultrafolio.trace.registry import importer_of

DENSE_TOUCH = np.dtype([("page", "<u4"), ("write", "u1")])


def sniff(path: Path) -> str:
    """The name of the format of the recording at ``path``. InputError as ``registry.importer_of``."""
    return importer_of(path).name


def read(path: Path, kind: Kind, only: Only = EVERYTHING) -> Recording:
    """The recording at ``path`` as ``kind``; ``only`` names the process or device to read of several."""
    return importer_of(path).read(path, kind, only)


def load_touches(path: Path, only: Only = EVERYTHING) -> npt.NDArray[np.void]:
    """The touches of a recording, rows of ``DENSE_TOUCH``, neighbours that are equal collapsed into one.

    page   0..n-1 in order of first touch, n being the number of distinct pages
    write  1 for a write, 0 for a read
    """
    rows = read(path, "touches", only).rows
    pages, first, inverse = np.unique(rows["page"], return_index=True, return_inverse=True)
    rank = np.empty(len(pages), np.uint32)
    rank[np.argsort(first)] = np.arange(len(pages), dtype=np.uint32)
    dense = np.empty(len(rows), DENSE_TOUCH)
    dense["page"], dense["write"] = rank[inverse], rows["write"]
    return dense


def load_requests(path: Path, only: Only = EVERYTHING) -> npt.NDArray[np.void]:
    """The reads and writes of a recording, rows of ``importer.REQUEST``."""
    return read(path, "requests", only).rows


def load_orders(path: Path, only: Only = EVERYTHING) -> dict[int, int]:
    """Order → number of folios, from a recording of a folio layout.

    From page flags order 0 is included; thpmaps, the mTHP counters and smaps know large folios only. InputError also
    for a layout without any folio of user memory.
    """
    recording = read(path, "orders", only)
    if not recording.orders:
        raise InputError(
            f"{os.fspath(path)}: no folio of user memory",
            cause="; ".join(recording.notes),
            allowed="folios with LRU, UNEVICTABLE or ANON set",
            then="record a larger window",
        )
    return dict(recording.orders)
