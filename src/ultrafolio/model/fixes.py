"""The fixes that the kernel's secure-guest memory code had since 2020: what each mended, and how the model shows it.

The contract: a fix is in FIXES once, under the commit of the mainline kernel. `fix()` finds it by seven or more hex
digits, also by the other commits that belong to it. A row either names the scenario that shows its bug, or says why
none can. Complaints that no commit answered stand in complaints.py. docs/kernel-fixes.md is made from both.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from ..errors import InputError, one_of

Choice = tuple[str, str | int]
"""A policy's choice and its value; `variants` and the name of a kernel's bug."""


@dataclass(frozen=True, slots=True)
class Fix:
    """One fix of the kernel.

    commit      12 hex digits, of the mainline commit
    bug         what a kernel without it does, one sentence
    first_bad   the first mainline version that has the bug; "" if every version of this code has
    first_good  the first mainline version that has the fix
    stable      the stable and distribution kernels that were seen to carry it: a release from which on, or a series
    also        other commits of the same fix
    without     the choices of a kernel without it
    having      the choices of a kernel with it, where they are not those of the kernel before the bug
    shown_by    the scenario that shows the bug, by the stem of its file
    shows       what that scenario shows under the choices of `without`
    why_not     why no scenario can show it
    """

    commit: str
    subject: str
    bug: str
    first_bad: str
    first_good: str
    stable: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    without: tuple[Choice, ...] = ()
    having: tuple[Choice, ...] = ()
    shown_by: str = ""
    shows: str = ""
    why_not: str = ""


FIXES: tuple[Fix, ...] = (
    Fix(
        "46c22ffd2772", "s390/uv: fully validate the VMA before calling follow_page()",
        "An import walked page tables outside every mapping of the process.",
        "", "5.16", stable=("5.14.y",), why_not="The model has no address spaces.",
    ),
    Fix(
        "1e2aa46de526", "KVM: s390: pv: avoid stalls for kvm_s390_pv_init_vm",
        "Creating a guest repeated a busy call without a pause and stalled its CPU.",
        "", "5.16", stable=("5.14.y",), why_not="No guest is created in the model; its ultravisor is never busy.",
    ),
    Fix(
        "f0a1a0615a6f", "KVM: s390: pv: avoid stalls when making pages secure",
        "An import repeated a busy call under the page-table lock and stalled everybody who wanted that lock.",
        "", "5.16", why_not="The model's ultravisor is never busy, and it has no page-table lock to hold meanwhile.",
    ),
    Fix(
        "380d97bd02fc", "KVM: s390: pv: properly handle page flags for protected guests",
        "Exports and destroys outside accessible() left the arch bit set on pages that were no longer secure.",
        "", "5.16", why_not="The bit may be set on any page; only the cost of needless calls changes, no property.",
    ),
    Fix(
        "a52c25848e31", "KVM: s390: pv: handle secure storage violations for protected guests",
        "A guest that met a page left secure by another guest of its process was killed at once.",
        "", "6.0", also=("b108f7f0a29b",), why_not="An access to another guest's page is fatal in the model.",
    ),
    Fix(
        "72b1daff2671", "KVM: s390: pv: add export before import",
        "A page that an earlier guest of the process had shared could not be imported for the next guest.",
        "", "6.0", without=(("variants", "import-without-export"),), shown_by="45-foreign-shared-page",
        shows="the ultravisor refuses the import, and the guest dies",
    ),
    Fix(
        "fb491d5500a7", "KVM: s390: pv: asynchronous destroy for reboot",
        "A reboot waited until every page of the old guest was destroyed, longer the more memory it had.",
        "", "6.2", why_not="A reset is one step in the model, and takes no time that grows with memory.",
    ),
    Fix(
        "c148dc8e2fa4", "KVM: s390: fix race in gmap_make_secure()",
        "An import locked a page of which it held no reference, so the page could be freed and used again meanwhile.",
        "", "6.4", stable=("6.1.103", "6.2.y", "6.3.y"), why_not="No page of the model is freed and used again.",
    ),
    Fix(
        "292a7d6fca33", "KVM: s390: pv: fix asynchronous teardown for small VMs",
        "Tearing down a guest of at most 2 GiB left pointers into a page table that had been replaced.",
        "6.2", "6.4", stable=("6.3.y",), why_not="The model has no page tables, and a reset is one step.",
    ),
    Fix(
        "5ff92181577a", "KVM: s390: pv: simplify shutdown and fix race",
        "A shutdown counted a protected guest where there was none, and pages unmapped meanwhile made calls that older "
        "machines do not have.",
        "6.2", "6.5", stable=("6.4.y",), why_not="The model counts no guests, and a reset is one step.",
    ),
    Fix(
        "c2fceb59bbda", "KVM: s390: pv: fix index value of replaced ASCE",
        "A replaced page table had a wrong index, and notices about unmapped pages named wrong addresses.",
        "6.0", "6.5", stable=("5.10.190", "5.15.124", "6.1.43", "6.4.8"), why_not="The model has no page tables.",
    ),
    Fix(
        "90a7592da149", "mm/userfaultfd: Do not place zeropages when zeropages are disallowed",
        "The shared zero page could be placed into a protected guest's memory, where no import can succeed.",
        "", "6.10", also=("06201e00ee3e",), why_not="No frame of the model is shared between processes by content.",
    ),
    Fix(
        "259e660d91d0", "s390/mm: Convert make_page_secure to use a folio",
        "An import of a page of a large folio compared the count of that one page, which never matches, and never "
        "ended; now it refuses large folios.",
        "", "6.10", stable=("6.1.103", "6.6.44"), without=(("large", "never"),), having=(("large", "refuse"),),
        shown_by="43-first-import-large",
        shows="the first touch of a large folio never ends (what follows from the code; nobody ran it)",
    ),
    Fix(
        "3f29f6537f54", "s390/uv: Don't call folio_wait_writeback() without a folio reference",
        "An import waited for the writeback of a folio of which it held no reference, so the folio could be freed.",
        "", "6.11", stable=("6.1.103", "6.6.44", "6.10.3"),
        without=(("import_ref", "none"),), having=(("import_ref", "waiting"),),
        why_not="No page of the model is freed and used again.",
    ),
    Fix(
        "eef88fe45ac9", "s390/uv: Split large folios in gmap_make_secure()",
        "An import split no large folio: it refused it, which killed the VMM; before 6.10 it was tried for ever.",
        "", "6.11", without=(("large", "refuse"),), having=(("large", "split"),), shown_by="43-first-import-large",
        shows="the first touch of a large folio is fatal",
    ),
    Fix(
        "d8dfda5af0be", "KVM: s390: pv: fix race when making a page secure",
        "An import converted a page without the page-table lock, so it could be unmapped meanwhile; after a split it "
        "dropped the reference of the wrong folio.",
        "6.14-rc1", "6.14", without=(("variants", "import-ignores-unmap"), ("import_ref", "none")),
        having=(("import_ref", "held"),), shown_by="44-page-unmapped-under-import",
        shows="a page is imported that reclaim has just freed, and the guest dies; the model leaves out the reference "
        "that the kernel dropped too early",
    ),
    Fix(
        "3ec8a8330a1a", "s390/uv: Don't return 0 from make_hva_secure() if the operation was not successful",
        "An import reported success after it had only split the folio; unpack left the page out, and the guest did not "
        "boot.",
        "6.14", "6.16", stable=("6.15.y",), without=(("after_split", "false-success"),),
        having=(("after_split", "retry"),), shown_by="14-first-import",
        shows="success is reported and the page is not secure (property 9)",
    ),
    Fix(
        "ab73b29efd36", "s390/uv: Improve splitting of large folios that cannot be split while dirty",
        "An import into a file system that splits no dirty folios, such as XFS, was tried for ever.",
        "6.11", "6.16", stable=("6.15.y",), also=("bd428b8c79ed",), without=(("split_writeback", 0),),
        having=(("split_writeback", 1),), shown_by="10-iomap-no-writeback", shows="the first touch never ends",
    ),
    Fix(
        "98c6d259319e", "mm/gup: check ref_count instead of lru before migration",
        "A long-term pin moved a folio without draining the batch that held it, so it failed, and the VM ended.",
        "5.18", "6.17", stable=("6.1.y", "6.6.y", "6.12.y", "6.16.y"),
        shown_by="47-mlock-batch", shows="the one who may not fail gives up, and the VM dies",
    ),
    Fix(
        "185d903064f8", "KVM: s390: Fix incorrect usage of mmu_notifier_register()",
        "A signal while a guest became protected led to the process's memory descriptor being freed too early.",
        "6.0", "6.17", why_not="No guest is created in the model, and nothing is freed.",
    ),
    Fix(
        "d16a74f0f266", "mm/gup: fix handling of errors from arch_make_folio_accessible() in follow_page_pte()",
        "A fast pin that met a page which could not be made accessible went on with the next page table, and reported "
        "all pages pinned.",
        "", "6.18", without=(("variants", "gup-skips-failed-page"),), shown_by="40-gup-skips-a-page",
        shows="I/O runs on a page that is still secure (property 1); the kernel leaves out the rest of a page table, "
        "the model one page",
    ),
    Fix(
        "cff47b9e39a6", "mm/huge_memory: fix NULL pointer deference when splitting folio",
        "A split of a folio that had just been truncated read through a null pointer; a proposed answer would have "
        "made the harmless race fatal for an import.",
        "6.9", "6.18", stable=("6.12.y",), why_not="No file of the model is truncated.",
    ),
    Fix(
        "f303406efd0b", "KVM: s390: Fix a deadlock",
        "Two CPUs that shadowed the tables of a nested guest could wait for each other's table-entry locks.",
        "7.0-rc1", "7.0", why_not="The model has no nested guests and no table-entry locks.",
    ),
    Fix(
        "3ffe5eb4a5f2", "KVM: s390: vsie: Fix races with partial gmap invalidations",
        "Shadow tables of a nested guest were filled although part of them had been invalidated meanwhile.",
        "7.0-rc6", "7.0", why_not="The model has no nested guests.",
    ),
    Fix(
        "42546fc642e9", "KVM: s390: Lock pte when making page secure",
        "An import froze a folio's count without the page-table lock; a pin through the same mapping met the frozen "
        "count, warned and failed.",
        "7.0", "7.1", without=(("variants", "freeze-without-pte-lock"),), shown_by="42-pin-meets-freeze",
        shows="a pin through the only mapping meets a frozen count",
    ),
    Fix(
        "9a1dfbbd3506", "KVM: s390: Fix fault-in code",
        "An import whose page was unmapped while it was being faulted in reported success and had imported nothing.",
        "7.0", "7.1", without=(("variants", "faultin-false-success"),), shown_by="41-fault-in-race",
        shows="success is reported and the page is not secure (property 9)",
    ),
    Fix(
        "6ae67dcac742", "KVM: s390: Fix possible reference leak in fault-in code",
        "A fault-in for the whole guest that found no memory for its cache kept its page's reference for ever.",
        "7.0", "7.1", without=(("variants", "faultin-leaks-reference"),), shown_by="41-fault-in-race",
        shows="a reference that nobody holds blocks every later import of the page: permanent",
    ),
    Fix(
        "5670b7f927f8", "KVM: s390: Fix unlikely race in try_get_locked_pte()",
        "A walk without locks followed an upper page table that was unmapped under it.",
        "7.1", "7.2", stable=("7.1.5",), why_not="The model has no page tables.",
    ),
    Fix(
        "d4bb00704a66", "s390/mm: Fix handling of _PAGE_UNUSED pte bit",
        "A mark for unused pages stayed on a page that was used again, and reclaim threw the page away unwritten.",
        "7.0", "7.2", stable=("7.1.5",), without=(("variants", "unused-page-dropped"),), shown_by="46-unused-page",
        shows="the page comes back without what the guest had written",
    ),
    Fix(
        "866d03de6def", "KVM: s390: vsie: Avoid potential deadlock with real spaces",
        "Shadowing a real address space took two locks in the order opposite to everybody else's.",
        "7.0", "7.2", why_not="The model has no nested guests, and none of those two locks.",
    ),
    Fix(
        "c9a568838086", "KVM: s390: Add map/unmap ioctl and clean mappings post-guest",
        "Each adapter interrupt looked its page up anew; now the page may be pinned for long, as the mail feared, but "
        "a secure guest's only for a moment by each interrupt.",
        "", "7.2", also=("1e95e3bc6b05", "a868b30492c5"), without=(("interrupt", "get"),),
        having=(("interrupt", "pin"),), why_not="Nothing was wrong; 03-virtio shows what the long pin would do.",
    ),
)  # fmt: skip


def fix(prefix: str) -> Fix:
    """The fix that a commit belongs to. InputError for fewer than seven hex digits, and for a commit in no row."""
    if not re.fullmatch("[0-9a-f]{7,40}", prefix):
        raise InputError(
            "no commit",
            value=prefix,
            allowed="7 to 40 lower-case hex digits, such as 42546fc642e9",
            then="ultrafolio policies",
        )
    for row in FIXES:
        if any(commit.startswith(prefix[:12]) for commit in (row.commit, *row.also)):
            return row
    known = [commit for row in FIXES for commit in (row.commit, *row.also)]
    raise one_of("a commit that is no fix of the lab's", prefix, known, then="ultrafolio policies")


@functools.lru_cache(maxsize=1024)
def order(version: str) -> tuple[int, ...]:
    """A kernel version as numbers to compare: 6.14-rc1 comes before 6.14, 6.14 before 6.14.2. InputError for others."""
    found = re.fullmatch(r"(\d+)\.(\d+)(?:-rc(\d+)|\.(\d+))?", version)
    if not found:
        raise InputError("no kernel version", value=version, allowed="6.14, 6.14.2 or 6.14-rc1")
    major, minor, rc, point = found.groups()
    return (int(major), int(minor), 0, int(rc)) if rc else (int(major), int(minor), 1, int(point or 0))


def standing(row: Fix, version: str) -> str:
    """Returns the relation of a mainline version to a fix: "has the fix", "has the bug", or "is older than the bug"."""
    if order(version) >= order(row.first_good):
        return "has the fix"
    return "is older than the bug" if row.first_bad and order(version) < order(row.first_bad) else "has the bug"
