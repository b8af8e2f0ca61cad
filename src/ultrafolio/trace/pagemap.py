"""The pages that a process has, from /proc/PID/pagemap: one 64-bit word a page of its address space.

A pagemap has no times and no order. It says which pages are there, and since ``echo 4 > /proc/PID/clear_refs`` which
of them were written. Source: Documentation/admin-guide/mm/pagemap.rst.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from ultrafolio.errors import InputError
from ultrafolio.nouns import plural
from ultrafolio.trace import words
from ultrafolio.trace.importer import MAX_ROWS, TOUCH, Format, Head, Kind, Only, Rows, gathered
from ultrafolio.trace.reader import Path


def touches(path: Path, notes: list[str]) -> Iterator[Rows]:
    """One touch a page that is present or swapped out, by ascending address.

    page   the word's place in the file: the page number, less that of the first word
    write  1 if the page is soft-dirty, else 0

    Any byte order. InputError as ``words.batches``, and for a pagemap without any page.
    """
    number = held = swapped = 0
    for batch in words.batches(path, words.PAGEMAP, notes):
        there = np.flatnonzero(batch & (words.PRESENT | words.SWAPPED))
        if len(there):
            rows = np.empty(len(there), TOUCH)
            rows["page"] = there.astype(np.uint64) + np.uint64(number)
            rows["write"] = (batch[there] & words.SOFT_DIRTY) != words.ZERO
            yield rows
        held += len(there)
        swapped += int(np.count_nonzero(batch & words.SWAPPED))
        number += len(batch)
    if not held:
        raise InputError(
            f"{os.fspath(path)}: the pagemap holds no page",
            allowed="a page present or swapped out",
            cause="the window lies in a hole of the address space",
            then="cat /proc/PID/maps",
        )
    notes.append("a pagemap has no times: its pages are read in the order of their addresses")
    if swapped:
        notes.append(f"swapped out: {plural(swapped, 'page')}")


def _sniff(head: Head) -> bool:
    return head.binary and words.survey(head.path).source is words.PAGEMAP


def _read(path: Path, kind: Kind, only: Only, notes: list[str]) -> Rows:
    return gathered(path, touches(path, notes))


IMPORTER = Format(
    "pagemap", words.PAGEMAP.again, ("touches",), _sniff, _read, bounds={"rows": MAX_ROWS, "words": words.MAX_WORDS}
)
