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
    _piece("attributes-get", "the attributes of a page", HOST, "kvm_get_memory_attributes"),
    _piece("is-private", "whether a page is private", HOST, "kvm_mem_is_private"),
    _piece("attributes-have", "whether all pages have some attributes", MAIN, "kvm_range_has_memory_attributes"),
    _piece("range", "what is done to each slot of a range", MAIN, "kvm_handle_gfn_range"),
    _piece("before-arch", "the pages of the old kind leave KVM's tables", MMU, "kvm_arch_pre_set_memory_attributes"),
    _piece("before-set", "an invalidation before attributes are set", MAIN, "kvm_pre_set_memory_attributes"),
    _piece("after-arch", "what attributes say of huge pages", MMU, "kvm_arch_post_set_memory_attributes"),
    _piece("set-attributes", "the attributes of a range are set", MAIN, "kvm_vm_set_mem_attributes"),
    _piece("retry", "whether a snapshot is old, under the MMU lock", HOST, "mmu_invalidate_retry_gfn"),
    _piece("retry-unsafe", "whether a snapshot is old, without it", HOST, "mmu_invalidate_retry_gfn_unsafe"),
    _piece("get-folio", "a folio of the file, locked", GMEM, "kvm_gmem_get_folio"),
    _piece("prepare-arch", "the machine prepares a folio", GMEM, "__kvm_gmem_prepare_folio"),
    _piece("mark-prepared", "a folio is up to date", GMEM, "kvm_gmem_mark_prepared"),
    _piece("prepare", "a folio is cleared and prepared", GMEM, "kvm_gmem_prepare_folio"),
    _piece("get-pfn-locked", "the frame at an offset, locked", GMEM, "__kvm_gmem_get_pfn"),
    _piece("get-pfn", "the frame at a guest's page", GMEM, "kvm_gmem_get_pfn"),
    _piece("fault-private", "the frame of a private fault", MMU, "kvm_faultin_pfn_private"),
    _piece("fault-kind", "the frame of a fault, by its kind", MMU, "__kvm_faultin_pfn"),
    _piece("fault-frame", "snapshot, attribute, early test, frame, test", MMU, "kvm_faultin_pfn"),
    _piece("stale", "the test under the MMU lock", MMU, "is_page_fault_stale"),
    _piece("fault", "a guest's fault", MMU, "kvm_tdp_mmu_page_fault"),
)  # fmt: skip

NOT_CUT = {
    "truncate_inode_pages_range": "the shim waits for the folio's lock, and takes the folio out of the file",
    "tdp_mmu_zap_leafs": "the shim unmaps each page, whatever its kind, and gives the MMU lock away between two",
    "filemap_grab_folio": "the shim waits for the folio's lock; where the file has no page it makes one",
    "kvm_tdp_mmu_map": "the shim maps the page as the kind of the fault; two faults do not map at the same time",
    "__gfn_to_pfn_memslot": "a shared fault: a frame of the process's own memory, which nobody takes away",
}

NO_RULE = {
    "kvm_gmem_allocate": "no actor of a scenario fills the file without a touch; a fault's look-up does it one by one",
    "kvm_gmem_populate": "a scenario begins with pages that have data; the first measurement is not in the model",
    "kvm_gmem_release": "the file stays as long as its virtual machine",
    "kvm_gmem_bind": "one binding, of the whole file, from the start on",
    "kvm_gmem_error_folio": "no memory fails in the model",
}

_SET = ("set-attributes", "before-set", "after-arch", "begin", "end")
OPERATIONS: tuple[Operation, ...] = (
    Operation("hole", "the VMM punches a hole", ("punch-hole", "gmem-begin", "gmem-end", "unmap", "begin", "range-add",
                                                 "end", "free-folio")),
    Operation("fault-private", "a vCPU touches a page as private", ("fault", "free-folio")),
    Operation("fault-shared", "a vCPU touches a page as shared", ("fault", "free-folio")),
    Operation("to-private", "the VMM makes pages private", _SET),
    Operation("to-shared", "the VMM makes pages shared", _SET),
)  # fmt: skip


class _OfMemfd(Parts):
    """The parts of the design guest_memfd."""

    def before(self, tree: Tree, cuts: Mapping[str, Cut], drivers: Mapping[str, str]) -> list[str]:
        if "unmap-arch" in cuts:
            return []
        return ["#define kvm_unmap_gfn_range(kvm, range) zap_range((range)->start, (range)->end, (range)->may_block)"]


MEMFD = _OfMemfd("memfd/", PIECES, OPERATIONS, ("unmap-arch",))
