"""The files and names of the kernel functions that the rules mirror, by kernel version.

Sources: the trees of these versions as docs/kernel/ reads them; those of 6.1 and 6.12 are looked at by a test.
"""

from __future__ import annotations

STANDS: tuple[tuple[str, str, str, str], ...] = (
    ("import of a page", "5.7-6.13", "arch/s390/kernel/uv.c", "gmap_make_secure, make_secure_pte or make_folio_secure"),
    ("import of a page", "6.14-6.19", "arch/s390/kernel/uv.c",
     "make_hva_secure, make_folio_secure, s390_wiggle_split_folio"),
    ("import of a page", "7.0-7.2", "arch/s390/kvm/pv.c", "kvm_s390_pv_make_secure; make_folio_secure stays in uv.c"),
    ("unshare of a pinned page", "5.7-7.2", "arch/s390/kvm/intercept.c", "handle_pv_uvc"),
    ("page made accessible", "5.7-6.9", "arch/s390/kernel/uv.c", "arch_make_page_accessible"),
    ("page made accessible", "6.10-7.2", "arch/s390/kernel/uv.c", "arch_make_folio_accessible"),
    ("pin with locks", "5.7-7.2", "mm/gup.c", "follow_page_pte"),
    ("pin without locks", "5.7-6.9", "mm/gup.c", "gup_pte_range"),
    ("pin without locks", "6.10-7.2", "mm/gup.c", "gup_fast_pte_range"),
    ("start of writeback", "5.7-5.15", "mm/page-writeback.c", "__test_set_page_writeback"),
    ("start of writeback", "5.16-7.2", "mm/page-writeback.c", "__folio_start_writeback"),
    ("export by an unmap", "5.7-7.2", "arch/s390/include/asm/pgtable.h",
     "ptep_get_and_clear, ptep_clear_flush, ptep_get_and_clear_full"),
    ("reclaim's tests for pins", "5.7-5.18", "mm/vmscan.c", "shrink_page_list"),
    ("reclaim's tests for pins", "5.19-7.2", "mm/vmscan.c", "shrink_folio_list"),
    ("split of a folio", "5.7-6.8", "mm/huge_memory.c", "split_huge_page_to_list"),
    ("split of a folio", "6.9-6.17", "mm/huge_memory.c", "split_huge_page_to_list_to_order"),
    ("split of a folio", "6.18-7.2", "mm/huge_memory.c", "__folio_split"),
)  # fmt: skip
