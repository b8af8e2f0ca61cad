"""Whole recordings at once: what the rest of the lab imports.

Every function here is all-or-nothing: it returns the complete recording or raises InputError.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ultrafolio.errors import InputError
from ultrafolio.trace import fio, lackey, listing, pageflags, thp
from ultrafolio.trace.reader import MAX_LINE, Path, open_stream

DENSE_TOUCH = np.dtype([("page", "<u4"), ("write", "u1")])
HEAD_BYTES = 16 * MAX_LINE

FORMATS = {
    "lackey": "valgrind --tool=lackey --trace-mem=yes",
    "fio": "fio write_iolog, version 2 or 3",
    "page-types": "page-types --raw --list or --list-each",
    "kpageflags": "raw words of /proc/kpageflags",
    "thpmaps": "tools/mm/thpmaps",
    "mthp": "grep -r . /sys/kernel/mm/transparent_hugepage",
}


def sniff(path: Path) -> str:
    """The format of the recording at ``path``: a key of ``FORMATS``, told by its first lines.

    It reads no further, so the rest may still be malformed. Raises InputError, naming the formats known,
    if it is none of them, and as ``reader.open_stream`` if it cannot be read.
    """
    with open_stream(path) as stream:
        head = stream.read(HEAD_BYTES)
    if b"\0" in head[:MAX_LINE]:
        return "kpageflags"
    found = head.split(b"\n")
    own = [line for line in found if line.startswith((b"==", b"--"))]
    line = next((line for line in found if not line.startswith((b"==", b"--"))), b"")
    if line in fio.HEADERS or line.startswith(b"fio version "):
        return "fio"
    if line[:3] in (b"I  ", b" L ", b" S ", b" M ") or (own and not line):
        return "lackey"
    if listing.is_listing(line):
        return "page-types"
    if thp.is_thpmaps(line):
        return "thpmaps"
    if thp.is_mthp(line):
        return "mthp"
    known = "; ".join(f"{name} ({made_by})" for name, made_by in FORMATS.items())
    shown = line[:80].decode("ascii", "backslashreplace")
    raise InputError(f"{path}: the format of this recording is not known", value=shown, allowed=known)


def load_touches(path: Path) -> npt.NDArray[np.void]:
    """The touches of a lackey recording, rows of ``DENSE_TOUCH``, collapsed as ``lackey.touches`` does.

    page   0..n-1 in order of first touch, n being the number of distinct pages
    write  1 for a write, 0 for a read
    """
    rows = np.concatenate(list(lackey.touches(path)))
    pages, first, inverse = np.unique(rows["page"], return_index=True, return_inverse=True)
    rank = np.empty(len(pages), np.uint32)
    rank[np.argsort(first)] = np.arange(len(pages), dtype=np.uint32)
    dense = np.empty(len(rows), DENSE_TOUCH)
    dense["page"], dense["write"] = rank[inverse], rows["write"]
    return dense


def load_requests(path: Path) -> npt.NDArray[np.void]:
    """The reads and writes of a fio iolog, rows of ``fio.REQUEST``: see ``fio.requests``."""
    return np.concatenate(list(fio.requests(path)))


def load_orders(path: Path) -> dict[int, int]:
    """Order → number of folios, from any recording of a folio layout, told apart by ``sniff``.

    From page flags (``pageflags.order_distribution``) order 0 is included; from thpmaps and the mTHP
    counters (``thp.order_distribution``) only large folios are known. Raises InputError also for a
    recording that holds no layout (lackey, fio).
    """
    kind = sniff(path)
    if kind in ("page-types", "kpageflags"):
        return pageflags.order_distribution(path)
    if kind in ("thpmaps", "mthp"):
        return thp.order_distribution(path)
    raise InputError(
        f"{path}: a {kind} recording holds no folio layout",
        value=FORMATS[kind],
        allowed="; ".join(FORMATS[name] for name in ("page-types", "kpageflags", "thpmaps", "mthp")),
    )
