"""The judged pieces of guest_memfd: their functions and files, and the pieces that each operation needs.

Every piece is a whole function. Where a tree has no arch/x86/kvm, the shim unmaps a range, and no fault and no change
of an attribute is judged.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..assemble import Parts
from ..cut import Cut, Tree
from ..pieces import Operation, Piece, Place

GMEM, MAIN, HOST = "virt/kvm/guest_memfd.c", "virt/kvm/kvm_main.c", "include/linux/kvm_host.h"
MMU, TDP = "arch/x86/kvm/mmu/mmu.c", "arch/x86/kvm/mmu/tdp_mmu.c"
FIRST, LAST = "6.8", "6.12"
"""The versions whose functions these are: guest_memfd came with 6.8, and 6.13 renamed the functions of the fault."""


def _piece(name: str, about: str, path: str, function: str, *, optional: bool = False) -> Piece:
    """Returns a piece that is a function of a file."""
    return Piece(name, about, (Place(path, function),), optional)


PIECES: tuple[Piece, ...] = (
    _piece("begin", "an invalidation begins", MAIN, "kvm_mmu_invalidate_begin"),
    _piece("range-add", "which pages it is of", MAIN, "kvm_mmu_invalidate_range_add"),
    _piece("end", "an invalidation ends", MAIN, "kvm_mmu_invalidate_end"),
    _piece("unmap-tdp", "a range leaves the two-dimensional page tables", TDP, "kvm_tdp_mmu_unmap_gfn_range",
           optional=True),
    _piece("unmap-arch", "a range leaves KVM's tables", MMU, "kvm_unmap_gfn_range", optional=True),
    _piece("unmap", "a range leaves KVM's tables, under an invalidation", MAIN, "kvm_mmu_unmap_gfn_range"),
    _piece("free-folio", "a folio of the file is freed", GMEM, "kvm_gmem_free_folio"),
    _piece("gmem-begin", "an invalidation of pages of the file begins", GMEM, "kvm_gmem_invalidate_begin"),
    _piece("gmem-end", "an invalidation of pages of the file ends", GMEM, "kvm_gmem_invalidate_end"),
    _piece("punch-hole", "a hole in the file", GMEM, "kvm_gmem_punch_hole"),
)  # fmt: skip

NOT_CUT = {
    "truncate_inode_pages_range": "the shim waits for the folio's lock, and takes the folio out of the file",
    "tdp_mmu_zap_leafs": "the shim unmaps each page, whatever kind it is mapped as; it never gives the MMU lock away",
}

OPERATIONS: tuple[Operation, ...] = (
    Operation("hole", "the VMM punches a hole", ("punch-hole", "gmem-begin", "gmem-end", "unmap", "begin", "range-add",
                                                 "end", "free-folio")),
)  # fmt: skip


class _OfMemfd(Parts):
    """The parts of the design guest_memfd."""

    def before(self, tree: Tree, cuts: Mapping[str, Cut], drivers: Mapping[str, str]) -> list[str]:
        if "unmap-arch" in cuts:
            return []
        return ["#define kvm_unmap_gfn_range(kvm, range) zap_range((range)->start, (range)->end)"]


MEMFD = _OfMemfd("memfd/", PIECES, OPERATIONS, ("unmap-arch",))
