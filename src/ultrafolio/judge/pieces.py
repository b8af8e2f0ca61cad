"""The judged pieces: their functions and files by version, and the pieces that each operation needs.

A piece has alternatives, newest first; the first that the tree has is cut. A piece that is only part of a function is
a block: the statement that begins at the line that matches a pattern.
"""

from __future__ import annotations

from dataclasses import dataclass

UV, GUP, WRITEBACK, HUGE, VMSCAN = (
    "arch/s390/kernel/uv.c", "mm/gup.c", "mm/page-writeback.c", "mm/huge_memory.c", "mm/vmscan.c",
)  # fmt: skip
_SPLITS = ("split_huge_page_to_list_to_order", "split_huge_page_to_list")
PGTABLE, INTERCEPT = "arch/s390/include/asm/pgtable.h", "arch/s390/kvm/intercept.c"
FIRST, LAST = "5.7", "6.13"
"""The versions whose import stands in these pieces; a later one has it in other functions (stands.py)."""
MOVES_OWNERSHIP = "6.12"
"""The first version seen whose import asks whether the machine moves a shared page's ownership: 6.1 does not ask; the
versions between were not looked at, and are judged without such a machine."""


@dataclass(frozen=True, slots=True)
class Place:
    """A function in a file; for a block, the pattern of its first line and which of the lines that match."""

    path: str
    function: str
    block: str = ""
    occurrence: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """`places`: the alternatives of one piece, newest first. `optional`: an operation does without it."""

    name: str
    about: str
    places: tuple[Place, ...]
    optional: bool = False


def _uv(name: str, about: str, *functions: str, optional: bool = False) -> Piece:
    """Returns a piece of arch/s390/kernel/uv.c; `functions`: its alternatives, newest first."""
    return Piece(name, about, tuple(Place(UV, function) for function in functions), optional)


PIECES: tuple[Piece, ...] = (
    _uv("uv-pin", "the call that pins a page shared", "uv_pin_shared"),
    _uv("uv-export", "the call that exports a page", "uv_convert_from_secure"),
    _uv("uv-destroy", "the call that destroys a page", "uv_destroy", "uv_destroy_page"),
    _uv("destroy-page", "destroy, with a reference and the bit", "uv_destroy_folio", "uv_destroy_owned_page"),
    _uv("destroy-entry", "destroy what an entry maps", "uv_destroy_pte", optional=True),
    _uv("convert", "export, with a reference and the bit", "uv_convert_from_secure_folio",
        "uv_convert_owned_from_secure"),
    _uv("convert-entry", "export what an entry maps", "uv_convert_from_secure_pte", optional=True),
    _uv("expected", "the count that an import freezes", "expected_folio_refs"),
    _uv("make-secure", "writeback, freeze, bit, call, thaw", "make_folio_secure"),
    _uv("export-first", "whether an import exports first", "should_export_before_import"),
    _uv("drain", "which LRU batches are drained", "drain_lru", optional=True),
    Piece("split-able", "the split's test for references", (Place(HUGE, "can_split_folio"),), optional=True),
    Piece("split-writeback", "the split's test for writeback",
          tuple(Place(HUGE, name, r"^\tif \(folio_test_writeback\(folio\)\)") for name in _SPLITS)),
    Piece("split-release", "the split's test for dirty pages of an iomap file system",
          tuple(Place(HUGE, name, r"^\t\tif \(!filemap_release_folio\(") for name in _SPLITS), optional=True),
    Piece("split-count", "the split's use of the test for references",
          tuple(Place(HUGE, name, r"^\tif \(!can_split_folio\(") for name in _SPLITS)),
    _uv("import-loop", "locks, tests and answers of an import", "gmap_make_secure"),
    _uv("import", "a guest's access to a page that is not secure", "gmap_convert_to_secure"),
    Piece("unshare", "a guest's unshare of a pinned page", (Place(INTERCEPT, "handle_pv_uvc"),)),
    _uv("accessible", "making a page accessible", "arch_make_folio_accessible", "arch_make_page_accessible"),
    Piece("accessible-folio", "making all pages of a folio accessible",
          (Place("include/linux/mm.h", "arch_make_folio_accessible"),), optional=True),
    Piece("pin", "pin_user_pages() through the page table", (Place(GUP, "follow_page_pte"),)),
    Piece("pin-fast", "pin_user_pages() without locks",
          (Place(GUP, "gup_fast_pte_range"), Place(GUP, "gup_pte_range"))),
    Piece("start-writeback", "the start of writeback", (Place(WRITEBACK, "__folio_start_writeback"),)),
    Piece("unmap-lazy", "an entry is cleared, flushed later", (Place(PGTABLE, "ptep_get_and_clear"),)),
    Piece("unmap", "an entry is cleared and flushed", (Place(PGTABLE, "ptep_clear_flush"),)),
    Piece("unmap-full", "an entry is cleared as the mapping goes", (Place(PGTABLE, "ptep_get_and_clear_full"),)),
    Piece("reclaim-anon", "reclaim's first test for pins: of anon memory, before the unmap",
          (Place(VMSCAN, "shrink_folio_list", r"^\t\tif \(folio_test_anon\(folio\) && folio_test_swapbacked"),)),
    Piece("reclaim-pinned", "reclaim's second test for pins: of all memory, after the unmap",
          (Place(VMSCAN, "shrink_folio_list", r"^\t\tif \(!?folio_maybe_dma_pinned\(folio\)\)"),)),
)  # fmt: skip

NOT_CUT = {
    "try_to_unmap_one": "too large: a driver calls ptep_clear_flush and asks for pins of an anon page once more",
    "write_cache_pages": "file systems differ: a driver locks, waits, cleans, starts writeback, unlocks",
    "split_huge_page_to_list_to_order": "too large: its tests for writeback and references are cut as blocks",
    "shrink_folio_list": "too large: its two tests for pins are cut as blocks",
    "handle_mm_fault": "the shim maps the page for writing",
}


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation of a thread: in C, `op_<name>`; in the rules, the actor that starts at rule `start`."""

    name: str
    about: str
    needs: tuple[str, ...]


OPERATIONS: tuple[Operation, ...] = (
    Operation("import", "a guest's access is imported", ("import", "import-loop", "make-secure", "convert")),
    Operation("unshare", "a guest's unshare of a pinned page", ("import-loop", "make-secure", "unshare")),
    Operation("pin", "a device pins a page", ("pin", "accessible")),
    Operation("pin-fast", "a device pins a page without locks", ("pin", "pin-fast", "accessible")),
    Operation("writeback", "a folio is written back", ("start-writeback", "accessible")),
    Operation("reclaim", "a page is reclaimed, up to the write to swap", ("reclaim-anon", "reclaim-pinned", "unmap",
                                                                          "convert")),
    Operation("unmap-lazy", "an entry is cleared", ("unmap-lazy", "convert")),
    Operation("unmap-flush", "an entry is cleared and flushed", ("unmap", "convert")),
    Operation("unmap-full", "an entry is cleared as the mapping goes", ("unmap-full", "convert")),
)  # fmt: skip
