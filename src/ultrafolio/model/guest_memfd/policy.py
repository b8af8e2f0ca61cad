"""The policies of the design guest_memfd (docs/model.md, section 9.4), and its presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ultrafolio.errors import one_of
from ultrafolio.fields import Field, take
from ultrafolio.model.layout import REFS_FOLIO

from . import machines
from .layout import VARIANT_FIELDS

CHOICES: dict[str, tuple[str, ...]] = {
    "convert": ("in-place", "two-backings", "by-guest"),
    "drain": ("none", "once"),
    "hold": ("dropped", "mapped", "mapping"),
    "large": ("none", "split-after-store", "split-before-store"),
    "pieces": ("request", "folio"),
    "hw_split": ("never", "before-zap"),
    "merge": ("on-private", "on-free"),
    "iommu": ("never", "on-eagain", "first"),
    "stuck": ("ignored", "kept"),
    "on_exit": ("reenter", "convert"),
}
ONLY_WHERE = {"merge": ("large", ("split-after-store", "split-before-store"))}
"""As model.policy.ONLY_WHERE."""
MEANING = {
    "convert": "the VMM converts a page in place, or between two frames that one offset has; or the guest by itself",
    "drain": "LRU draining on a foreign reference: none (first RFC, 2025), or this CPU, then all, each once a request",
    "hold": "KVM's own reference: dropped before a fault returns, kept until it has mapped the page, or while mapped",
    "large": "huge pages: none, or split where a page is shared, after or before the store",
    "pieces": "what one request converts at once: all its pages, or those of one huge page",
    "hw_split": "the machine's entry of a huge page that is shared in part: unmapped whole, or split before",
    "merge": "the pages of a huge page that was split: merged where none is shared any more, or once all are freed",
    "retries": "refusals after which the VMM tells the guest no; 0: it asks again for ever",
    "iommu": "when the VMM ends its own DMA mappings of pages that it converts to private",
    "stuck": "a page that the machine does not give back: shared all the same, or kept private and the request refused",
    "on_exit": "an access of the other kind: the VMM lets the vCPU go on, or converts the page",
    "variants": "bugs of kernels and proposals, by name",
}
VARIANTS: dict[str, tuple[str, str]] = {
    "end-before-store": (
        "end_first",
        "the invalidation ends before the attribute is stored; branch wip-gmem-conversions-hugetlb-restructuring of "
        "December 2025",
    ),
    "no-kick": (
        "no_kick",
        "on TDX, a removal that finds the S-EPT busy makes no vCPU leave the guest: the VM is dead; before Linux 6.16, "
        "4b2abc49712b",
    ),
    "free-without-reclaim": (
        "no_reclaim",
        "a private page is freed, and its machine not told; what kvm_gmem_free_folio() does first (v6.11)",
    ),
    "one-hook": (
        "one_hook",
        "pKVM over guest_memfd, one hook for a free and a conversion to shared, which scrubs the page; review of v8, "
        "2026-06-19, apart since f3c073e25476 and 7b8529e70a11",
    ),
    "ignores-accept-level": (
        "no_level",
        "on TDX, a guest that accepts single pages of a huge mapping faults for ever; RFC v1 of April 2025",
    ),
    "merge-up-to-date": (
        "merge_whole",
        "a merged folio counts as up to date though a part of it was never written; review of v8, June and July 2026",
    ),
    "double-allocation": (
        "looks_first",
        "two threads allocate within one huge page, and no lock for it keeps them apart; mail of 2026-01-23 on the "
        "branch of December 2025",
    ),
    "pamt-race": (
        "pamt_race",
        "on TDX, Dynamic PAMT: whether the last page of a huge page goes, and the drop of its PAMT pages, are two "
        "steps; what v6, 2026-05-25, does under one lock",
    ),
    "refuses-a-split": (
        "split_refuses",
        "a split or merge that meets a foreign reference ends the request with -EAGAIN, and does not spin in the "
        "kernel; disputed in the review of RFC v2 of 1G pages, 2025-06-17",
    ),
    "no-reference-test": (
        "no_test",
        "a request to private asks for no pin, mapping or reference; none: what __folio_has_outstanding_references() "
        "is for (queued for 7.4, dcde2f853ff4)",
    ),
    "quiet-hole": (
        "quiet_hole",
        "a hole begins no invalidation, so a fault under way maps the page that it frees; none: what "
        "kvm_gmem_invalidate_begin() is for (v6.8)",
    ),
    "clear-without-wake-up": (
        "no_wake",
        "the lock bit of a fresh huge folio is cleared by __folio_clear_locked(), and who sleeps for the lock is not "
        "woken; RFC v2 of 1G pages, May 2025, and the branch of December 2025",
    ),
}
"""Bugs by name: the configuration field of the rules' variant, and what it is, with its source."""
assert tuple(name for name, _ in VARIANTS.values()) == VARIANT_FIELDS, "each variant has a field of layout.CFG"


@dataclass(frozen=True, slots=True)
class MemfdPolicy:
    """The choices; `retries` is 0 to 255; `variants` names of bugs."""

    convert: str = "in-place"
    drain: str = "once"
    hold: str = "dropped"
    large: str = "none"
    pieces: str = "request"
    hw_split: str = "before-zap"
    merge: str = "on-private"
    retries: int = 0
    iommu: str = "never"
    stuck: str = "ignored"
    on_exit: str = "reenter"
    variants: tuple[str, ...] = ()

    @property
    def design(self) -> str:
        return "guest_memfd"

    def fits(self, machine: str) -> bool:
        """Whether the machine of this name can enforce it."""
        return self.convert != "by-guest" or machines.facts()["GUEST_TURNS"][machines.NAMES.index(machine)]

    def codes(self) -> dict[str, int]:
        """The choices as the integers of layout.py, which number them in the same order; a field for each variant."""
        values = asdict(self)
        variants = values.pop("variants")
        made = {name: CHOICES[name].index(v) if name in CHOICES else v for name, v in values.items()}
        return made | {code: int(name in variants) for name, (code, _) in VARIANTS.items()} | {"refs": REFS_FOLIO}


PRESETS: dict[str, tuple[str, MemfdPolicy]] = {
    "gmem-7.4": ("in place, as queued for Linux 7.4 in September 2026", MemfdPolicy()),
    "gmem-no-drain": ("the first RFC, 2025: no drain, KVM's reference kept", MemfdPolicy(drain="none", hold="mapped")),
    "gmem-two-backings": (
        "Linux 6.8 to 7.3: private and shared are two frames",
        MemfdPolicy(convert="two-backings", drain="none", hold="mapped"),
    ),
    "gmem-hugetlb-2025-05": (
        "HugeTLB as posted in May 2025 (1G page support, RFC v2)",
        MemfdPolicy(
            drain="none",
            hold="mapped",
            large="split-after-store",
            hw_split="never",
            variants=("clear-without-wake-up",),
        ),
    ),
    "gmem-hugetlb-2025-12": (
        "HugeTLB as in the branch of December 2025",
        MemfdPolicy(
            drain="none",
            hold="mapped",
            large="split-before-store",
            pieces="folio",
            variants=("clear-without-wake-up", "end-before-store"),
        ),
    ),
    "pkvm": (
        "protected guests of pKVM, March 2026: the guest converts, and EL2 asks nobody",
        MemfdPolicy(convert="by-guest", drain="none"),
    ),
}
FIELDS = {
    "base": Field("text", "gmem-7.4"),
    **{name: Field("choice", None, choices=words) for name, words in CHOICES.items()},
    "retries": Field("int", None, 0, 255),
    "variants": Field("texts", None),
}


def from_table(table: Mapping[str, Any], where: str) -> MemfdPolicy:
    """The policy that a TOML table describes. InputError for any field or value that is not one of the choices."""
    values = take(table, where, FIELDS, then="docs/model.md, section 9.4")
    base = values.pop("base")
    if base not in PRESETS:
        raise one_of(f"{where}: base", base, PRESETS, then="docs/model.md, section 9.4")
    for name in values["variants"] or ():
        if name not in VARIANTS:
            raise one_of(f"{where}: variants", name, VARIANTS, then="docs/model.md, section 9.4")
    if values["variants"] is not None:
        values["variants"] = tuple(sorted(set(values["variants"])))
    return replace(PRESETS[base][1], **{name: value for name, value in values.items() if value is not None})
