"""A policy: one point in the product of the choices (docs/model.md, section 4), with named bugs of kernels."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from .layout import VARIANT_FIELDS

CHOICES: dict[str, tuple[str, ...]] = {
    "track": ("page", "folio", "folio+bitmap"),
    "accessible": ("page", "folio", "folio-literal"),
    "refs": ("page", "folio"),
    "large": ("direct", "refuse", "split", "never"),
    "after_split": ("again", "retry", "false-success"),
    "drain": ("none", "own-then-all", "all"),
    "import_lock": ("none", "vm"),
    "on_busy": ("refault", "sleep", "give-up"),
    "large_at": ("before-lock", "after-export", "after-writeback"),
    "import_ref": ("none", "waiting", "held"),
    "unmap": ("page", "folio"),
    "interrupt": ("get", "pin"),
}
MEANING = {
    "track": "unit of the arch bit",
    "accessible": "what a pin or a host access makes accessible",
    "refs": "whose references block an import",
    "large": "what an import does with a large folio; never: it waits for a count that cannot match (5.7 to 6.9)",
    "after_split": "after a split: go on at once, touch again, or report success without importing (6.14)",
    "split_writeback": "write-backs tried on a dirty iomap folio",
    "drain": "LRU draining on extra references",
    "import_lock": "one import at a time per VM",
    "on_busy": "touch again for ever, sleep until the reference is dropped, or tell the VMM after give_up tries",
    "give_up": "tries before the VMM is told; used where on_busy is give-up",
    "large_at": "where an import tests for a large folio: before the trylock, after the export, or after writeback",
    "import_ref": "an import's own reference: none, while it waits or splits (6.10), or all along (6.14)",
    "unmap": "what clearing one page-table entry exports (the whole folio since 7.0)",
    "variants": "bugs of kernels, by name",
    "interrupt": "how an adapter interrupt takes its page: a plain reference, or a short pin (7.2)",
}
ONLY_WHERE = {
    "after_split": ("large", ("split",)),
    "split_writeback": ("large", ("split",)),
    "give_up": ("on_busy", ("give-up",)),
}
"""Choices that the rules read only where another choice has one of these values: elsewhere all their values are one
policy."""
VARIANTS: dict[str, tuple[str, str]] = {
    "freeze-without-pte-lock": (
        "freeze_unlocked",
        "imports hold no page-table lock: a pin meets a frozen count and fails with a warning; Linux 7.0 to 7.1-rc6, "
        "e38c884df921 until 42546fc642e9",
    ),
    "faultin-false-success": (
        "faultin_success",
        "an import whose page is unmapped under it reports success; kvm_s390_faultin_gfn(), Linux 7.0 to 7.1-rc6, "
        "e907ae530133 until 9a1dfbbd3506",
    ),
    "faultin-leaks-reference": (
        "faultin_leak",
        "an import whose page is unmapped under it leaves a reference that nobody drops; the kernel does so where it "
        "finds no memory for its cache; kvm_s390_faultin_gfn(), Linux 7.0, e907ae530133 until 6ae67dcac742",
    ),
    "gup-skips-failed-page": (
        "gup_skips",
        "a pin goes on past a page that could not be made accessible, and reports all pages pinned; the kernel does so "
        "where a page table ends behind it; gup_fast_pte_range(), Linux 5.7 to 6.17, f28d43636d6f until d16a74f0f266",
    ),
    "import-without-export": (
        "no_export",
        "an import of another guest's shared page makes no export first; Linux 5.7 to 5.19, until 72b1daff2671",
    ),
    "import-ignores-unmap": (
        "ignores_unmap",
        "an import makes its call without a look at the mapping; Linux 6.14-rc, 5cbe24350b7d until d8dfda5af0be",
    ),
    "unused-page-dropped": (
        "drops_unused",
        "reclaim frees a page without writing it; a stale _PAGE_UNUSED bit, Linux 7.0 to 7.1.4, until d4bb00704a66",
    ),
}
"""Bugs of kernels by name: the configuration field of the rules' variant, and what it is, with its commits."""
assert tuple(name for name, _ in VARIANTS.values()) == VARIANT_FIELDS, "each variant has a field of layout.CFG"


@dataclass(frozen=True, slots=True)
class Policy:
    """The choices; `split_writeback` is 0, 1 or 2, `give_up` a number of tries (1 to 255); `variants` names of bugs."""

    track: str = "page"
    accessible: str = "page"
    refs: str = "folio"
    large: str = "direct"
    after_split: str = "again"
    split_writeback: int = 0
    drain: str = "own-then-all"
    import_lock: str = "none"
    on_busy: str = "refault"
    give_up: int = 8
    large_at: str = "before-lock"
    import_ref: str = "none"
    unmap: str = "page"
    interrupt: str = "get"
    variants: tuple[str, ...] = ()

    def codes(self) -> dict[str, int]:
        """The choices as the integers of layout.py, which number them in the same order; a field for each variant."""
        values = asdict(self)
        variants = values.pop("variants")
        made = {name: CHOICES[name].index(v) if name in CHOICES else v for name, v in values.items()}
        return made | {code: int(name in variants) for name, (code, _) in VARIANTS.items()}
