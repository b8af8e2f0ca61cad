"""Complaints of kernel developers without a fix: the rows of docs/kernel-fixes.md that are no fixes.

A complaint with a fix is in fixes.py. A row either names the scenario that shows it, or says
why none can.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Complaint:
    """One complaint without a fix.

    what      the complaint, one sentence
    mail      the message identifier under lore.kernel.org/r/
    shown_by  the scenario that shows it, by the stem of its file
    shows     what that scenario shows, and under which policies
    why_not   why no scenario can show it
    """

    what: str
    who: str
    mail: str
    shown_by: str = ""
    shows: str = ""
    why_not: str = ""


COMPLAINTS: tuple[Complaint, ...] = (
    Complaint(
        "With one secure bit per folio, pages beside an I/O page hang until the I/O ends, and for ever beside a pin.",
        "Imbrenda, September 2023", "20230918130143.1c865f12@p-imbrenda",
        shown_by="03-virtio", shows="the touch of a neighbour never ends under whole-folio, and ends under per-page",
    ),
    Complaint(
        "A pin makes one page accessible; a later writeback must make the whole folio accessible, and fails too late.",
        "Wilcox, September 2023", "20230915172829.2632994-1-willy@infradead.org",
        shown_by="05-late-failure", shows="a refused call in the middle of a folio, after writeback has begun",
    ),
    Complaint(
        "A folio that is mapped a second time can be met frozen through that mapping, with or without 42546fc642e9.",
        "Hildenbrand, April 2024", "20240404163642.1125529-1-david@redhat.com",
        shown_by="13-mapped-twice", shows="the other mapping takes a frozen count under every policy (property 5)",
    ),
    Complaint(
        "References held by the batches of other CPUs look like users, and draining all CPUs is expensive.",
        "guest_memfd series, 2026", "20260522-gmem-inplace-conversion-v7-0-2f0fae496530@google.com",
        shown_by="29-lru-other-cpu", shows="which drain an import needs, for a batch of another CPU",
    ),
    Complaint(
        "A guest page without a page descriptor, such as device memory, is taken for a folio by an import.",
        "review of June 2026", "20260602142356.169458-8-imbrenda@linux.ibm.com",
        why_not="Every page of the model belongs to a folio.",
    ),
    Complaint(
        "A conversion that fails names the page, and user space has to try again; long pins can starve it.",
        "guest_memfd series, 2026", "20260522-gmem-inplace-conversion-v7-0-2f0fae496530@google.com",
        shown_by="36-patience", shows="the choices of on_busy: touch again for ever, sleep, or tell the VMM",
    ),
    Complaint(
        "A guest's pool of bounce buffers runs out although most of it is free.",
        "coreos-assembler, 2023", "",
        why_not="Pools have no size in the model; it shows what they do to their neighbours (32 and 33).",
    ),
    Complaint(
        "Secure pages in large folios are wanted for speed and not supported; whole-folio exports are prepared.",
        "Imbrenda, February 2026", "20260210153417.77403-5-imbrenda@linux.ibm.com",
        shown_by="12-bitmap-writeback", shows="folio-bitmap and folio-bitmap-pins: a bit per page in an unsplit folio",
    ),
)  # fmt: skip
