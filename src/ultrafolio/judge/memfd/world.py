"""Answers to the questions of the judged code of guest_memfd: the shim's primitives over the model's state.

What the model has, the primitives change there; a machine answers with the model's own functions. Kept here is what the
rules lack: the numbers of an invalidation, of which the model keeps the results, the MMU lock, and folios that live on
outside the file. An answer of None: the primitive waits, and nothing has changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from ultrafolio.model.guest_memfd.layout import MAPPED, MAPPED_PRIVATE, OK, UNMAPPED

from ..build import Ask

PAGES = 8
"""PAGES of shim.h: the folio of page P after N holes at it has the number P + PAGES * N."""
NONE = 255
"""The byte of a page that is none."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """kvm->mmu_invalidate_…: how many invalidations are going on, their range, and the sequence."""

    progress: int = 0
    start: int = NONE
    end: int = NONE
    sequence: int = 0

    def packed(self) -> int:
        return self.progress | self.start << 8 | self.end << 16 | self.sequence << 24


def numbers(packed: int) -> Numbers:
    """Returns the numbers as shim.h packs them."""
    return Numbers(packed & 255, packed >> 8 & 255, packed >> 16 & 255, packed >> 24)


@dataclass
class World:
    """A state that judged code runs on. Each method that takes (thread, page, more) is a primitive of the shim.

    now      the numbers of an invalidation
    mmu      the thread that holds the MMU lock, or -1;  slots: the lock of the memory slots
    locked   the numbers of locked folios;  cleared: of folios that are up to date
    looked   threads that have read the sequence: their first look is the snapshot
    orphans  folios outside the file by number, with their references
    holes    page -> how many holes were punched at it while somebody had a reference
    said     what happened that no state of the rules has, in words
    """

    state: Any
    rules: SimpleNamespace
    now: Numbers = Numbers()
    mmu: int = -1
    slots: int = -1
    locked: set[int] = field(default_factory=set)
    cleared: set[int] = field(default_factory=set)
    looked: set[int] = field(default_factory=set)
    orphans: dict[int, int] = field(default_factory=dict)
    holes: dict[int, int] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def answer(self, thread: int, asked: Ask) -> int | None:
        """Run the primitive for a thread. Returns its answer, or None if it waits."""
        result: int | None = getattr(self, asked.question)(thread, asked.page, asked.more)
        return result

    # ---- the invalidate lock of the inode
    def invalidate_lock(self, thread: int, page: int, shared: int) -> int | None:
        vm = self.state.vm[0]
        if vm.mutex > 0 or (vm.mutex and not shared):
            return None
        vm.mutex = vm.mutex - 1 if shared else thread + 1
        return 0

    def invalidate_unlock(self, thread: int, page: int, shared: int) -> int:
        vm = self.state.vm[0]
        vm.mutex = vm.mutex + 1 if shared else 0
        return 0

    # ---- the MMU lock, and the numbers beneath it
    def mmu_lock(self, thread: int, page: int, more: int) -> int | None:
        if self.mmu != -1:
            return None
        self.mmu = thread
        return self.now.packed()

    def mmu_unlock(self, thread: int, packed: int, more: int) -> int:
        """The lock goes back with the numbers; the model keeps which pages are under invalidation, and whether a
        snapshot is old."""
        before, self.now, self.mmu = self.now, numbers(packed), -1
        for page in range(self.state.cfg[0].pages):
            within = int(self.now.progress > 0 and self.now.start <= page < self.now.end)
            if self.state.mm[page].zapped != within:
                self.state.mm[page].zapped = within
        if self.now.sequence != before.sequence:
            self.state.vm[0].fresh = 0
        return 0

    def mmu_read(self, thread: int, page: int, more: int) -> int:
        """A look at the numbers without the lock."""
        if thread not in self.looked:
            self.looked.add(thread)
            self.state.vm[0].fresh |= 1 << thread
        return self.now.packed()

    # ---- the attributes
    def slots_lock(self, thread: int, page: int, more: int) -> int | None:
        if self.slots != -1:
            return None
        self.slots = thread
        self.said.append("the lock of the memory slots is taken")
        return 0

    def slots_unlock(self, thread: int, page: int, more: int) -> int:
        self.slots = -1
        self.said.append("the lock of the memory slots is given back")
        return 0

    def attribute(self, thread: int, page: int, more: int) -> int:
        return int(self.state.mm[page].private)

    def store(self, thread: int, page: int, private: int) -> int:
        self.state.mm[page].private = private
        return 0

    # ---- KVM's tables
    def zap(self, thread: int, page: int, more: int) -> int:
        """Unmap a page, whatever it is mapped as. Returns whether it was mapped."""
        if page >= self.state.cfg[0].pages or self.state.pt[page].present == UNMAPPED:
            return 0
        self.state.pt[page].present = UNMAPPED
        return 1

    # ---- folios
    def number(self, page: int) -> int:
        """The number of the folio that is, or will be, in the file at a page."""
        return page + PAGES * self.holes.get(page, 0)

    def grab(self, thread: int, page: int, more: int) -> int | None:
        """The folio at a page, with a reference of KVM's own and its lock; a new one where the file has none."""
        m, folio = self.state.mm[page], self.number(page)
        if folio in self.locked:
            return None
        if m.allocated == 0:
            self.cleared.discard(folio)
        self.locked.add(folio)
        m.allocated = 1
        self.rules.get_ref(self.state, page, 2)
        m.kvm += 1
        return folio

    def up_to_date(self, thread: int, folio: int, more: int) -> int:
        return int(folio in self.cleared)

    def mark(self, thread: int, folio: int, more: int) -> int:
        self.cleared.add(folio)
        return 0

    def unlock(self, thread: int, folio: int, more: int) -> int:
        self.locked.discard(folio)
        return 0

    def put(self, thread: int, folio: int, more: int) -> int:
        """Drop a reference of KVM's own. Returns whether it was the last one of a folio outside the file."""
        page = folio % PAGES
        if folio == self.number(page):
            self.rules.put_ref(self.state, page, 2)
            self.state.mm[page].kvm -= 1
            return 0
        self.orphans[folio] -= 1
        if not self.orphans[folio]:
            del self.orphans[folio]
            return 1
        return 0

    def prepare(self, thread: int, page: int, more: int) -> int:
        """The machine prepares the folio, as it answers in the model; it never fails here."""
        self.rules.prepare(self.state, page)
        return 0

    def map(self, thread: int, page: int, private: int) -> int:
        """KVM maps the page, and the machine is asked, as it answers in the model; one that is mapped already stays."""
        if self.state.pt[page].present == UNMAPPED and (not private or self.rules.assign(self.state, page) == OK):
            self.state.pt[page].present = MAPPED_PRIVATE if private else MAPPED
        return 0

    def truncate(self, thread: int, page: int, more: int) -> int | None:
        """The folio at a page leaves the file. Returns its number and 1 if it is freed; one with references is not."""
        m, folio = self.state.mm[page], self.number(page)
        if folio in self.locked:
            return None
        if not m.allocated:
            return 0
        m.allocated = 0
        self.cleared.discard(folio)
        if not m.spec:
            return folio + 1
        self.orphans[folio], self.holes[page] = m.spec, self.holes.get(page, 0) + 1
        m.refs -= m.spec
        m.spec = m.kvm = 0
        return 0

    def reclaim(self, thread: int, page: int, pages: int) -> int:
        """The machine takes a freed page back."""
        self.rules.reclaim(self.state, page)
        return 0
