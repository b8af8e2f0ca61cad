"""Answers to the questions of the judged code: the shim's primitives over the model's state.

The state is that of the checker; the ultravisor's calls, drains, splits and page states are the model's functions. This
module implements the kernel's primitives: locks, flags, references, page-table entries. It adds only state that the
rules lack: the holder of the page-table lock, and the folios that a split has unmapped.

An answer of None: the primitive waits, and nothing has changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from ultrafolio.uvcall.calls import BY_COMMAND, CC_BUSY, CC_ERROR, CC_OK

from ..model.layout import (
    ANON,
    DONE,
    FLAGGED,
    IOMAP,
    MAPPED,
    NO_WRITEBACK,
    UNMAPPED,
    UV_BUSY,
    UV_OK,
)
from .build import Ask

PRESENT, WRITE = 1, 2


@dataclass
class World:
    """A state that judged code runs on.

    Each method that takes (thread, page, more) is a primitive of the shim, which the code calls: `page` is the page or
    a page of the folio, `more` the other argument of the call. It returns the call's result; None: the thread waits.

    table      the thread that holds the page-table lock, or -1
    parted     folios that a split has unmapped
    was_late   threads whose operation found that an export came too late
    unpinned   threads whose unpin the ultravisor granted
    """

    state: Any
    rules: SimpleNamespace
    table: int = -1
    parted: set[int] = field(default_factory=set)
    was_late: set[int] = field(default_factory=set)
    unpinned: set[int] = field(default_factory=set)

    def answer(self, thread: int, asked: Ask) -> int | None:
        """Run the primitive for a thread. Returns its answer, or None if it waits."""
        primitive = getattr(self, asked.question)
        result: int | None = primitive(thread, asked.page, asked.more)
        return result

    # ---- what a page is
    def folio(self, page: int) -> Any:
        return self.state.mm[self.rules.head(self.state, page)]

    def _pages(self, page: int) -> range:
        head = self.rules.head(self.state, page)
        return range(head, head + (1 << self.state.mm[page].order))

    def _count(self, page: int) -> int:
        """The folio's reference count: one a mapped page, one a page in the page cache, and the others."""
        folio = self.folio(page)
        cache = 0 if folio.backing == ANON else len(self._pages(page))
        return self._mapped(page) + cache + int(folio.refs)

    def _mapped(self, page: int) -> int:
        if self._parted(page):
            return 0
        return sum(1 for p in self._pages(page) if self.state.pt[p].present == MAPPED)

    def head(self, thread: int, page: int, more: int) -> int:
        return int(self.rules.head(self.state, page))

    def large(self, thread: int, page: int, more: int) -> int:
        return int(self.state.mm[page].order > 0)

    def pages(self, thread: int, page: int, more: int) -> int:
        return len(self._pages(page))

    def anon(self, thread: int, page: int, more: int) -> int:
        return int(self.folio(page).backing == ANON)

    def in_file(self, thread: int, page: int, more: int) -> int:
        return int(self.folio(page).backing != ANON)

    def dirty_file(self, thread: int, page: int, more: int) -> int:
        return int(self.folio(page).backing == IOMAP)

    def swapcache(self, thread: int, page: int, more: int) -> int:
        return 0

    def mapcount(self, thread: int, page: int, more: int) -> int:
        return self._mapped(page)

    def mapped(self, thread: int, page: int, more: int) -> int:
        return int(self._mapped(page) > 0)

    # ---- folio lock
    def trylock(self, thread: int, page: int, more: int) -> int:
        folio = self.folio(page)
        if folio.locked:
            return 0
        folio.locked = 1
        return 1

    def lock(self, thread: int, page: int, more: int) -> int | None:
        return self.trylock(thread, page, more) or None

    def unlock(self, thread: int, page: int, more: int) -> int:
        self.rules.unlock(self.state, page)
        return 0

    # ---- writeback
    def writeback(self, thread: int, page: int, more: int) -> int:
        return int(self.folio(page).writeback != NO_WRITEBACK)

    def wait_writeback(self, thread: int, page: int, more: int) -> int | None:
        return None if self.folio(page).writeback != NO_WRITEBACK else 0

    def clean(self, thread: int, page: int, more: int) -> int | None:
        """folio_clear_dirty_for_io(): make the folio clean, and mapped read-only, under the page-table lock."""
        if self.table not in (-1, thread):
            return None
        folio = self.folio(page)
        folio.dirty = folio.writable = 0
        return 0

    def start_writeback(self, thread: int, page: int, more: int) -> int:
        self.folio(page).writeback = FLAGGED
        return 0

    def end_writeback(self, thread: int, page: int, more: int) -> int:
        self.folio(page).writeback = NO_WRITEBACK
        return 0

    def late(self, thread: int, page: int, more: int) -> int:
        self.was_late.add(thread)
        return 0

    # ---- references
    def get(self, thread: int, page: int, more: int) -> int:
        self.rules.get_ref(self.state, page, 2)
        return 0

    def put(self, thread: int, page: int, more: int) -> int:
        self.rules.put_ref(self.state, page, 2)
        return 0

    def pin(self, thread: int, page: int, more: int) -> int:
        """One more pin, unless the count is frozen."""
        if self.folio(page).frozen:
            return 0
        self.rules.get_ref(self.state, page, 0)
        return 1

    def unpin(self, thread: int, page: int, more: int) -> int:
        self.rules.put_ref(self.state, page, 0)
        return 0

    def pinned(self, thread: int, page: int, more: int) -> int:
        return int(self.rules.pinned(self.state, page))

    def refs(self, thread: int, page: int, more: int) -> int:
        return self._count(page)

    def freeze(self, thread: int, page: int, count: int) -> int:
        if self._count(page) != count:
            return 0
        self.folio(page).frozen = 1
        return 1

    def unfreeze(self, thread: int, page: int, count: int) -> int:
        self.folio(page).frozen = 0
        return 0

    def drain_own(self, thread: int, page: int, more: int) -> int:
        self.rules.drain(self.state, page, self.state.who[thread].cpu + 1)
        return 0

    def drain_all(self, thread: int, page: int, more: int) -> int:
        self.rules.drain(self.state, page, 0)
        return 0

    # ---- the arch bit
    def set_bit(self, thread: int, page: int, more: int) -> int:
        self.rules.set_arch(self.state, page)
        return 0

    def clear_bit(self, thread: int, page: int, more: int) -> int:
        self.rules.clear_arch(self.state, page)
        return 0

    def test_bit(self, thread: int, page: int, more: int) -> int:
        return int(self.state.mm[page].arch)

    # ---- the ultravisor
    def call(self, thread: int, page: int, command: int) -> int:
        """A call's condition code, as the model's ultravisor answers it."""
        s, vm = self.state, self.state.who[thread].vm
        call = BY_COMMAND[command].name
        if call == "import":
            rc = self.rules.uv_import(s, vm, page, s.cfg[0].misc)
        elif call == "unpin":
            rc = self.rules.uv_unpin(s, vm, page)
            if rc == UV_OK:
                self.unpinned.add(thread)
        elif call == "pin":
            rc = self.rules.uv_pin(s, page)
        elif call == "export":
            rc = self.rules.uv_export(s, page)
        else:
            rc = self.rules.uv_destroy(s, page)
        return CC_OK if rc == UV_OK else CC_BUSY if rc == UV_BUSY else CC_ERROR

    def owner_moves(self, thread: int, page: int, more: int) -> int:
        return int(self.state.cfg[0].misc)

    def guests(self, thread: int, page: int, more: int) -> int:
        return int(self.state.cfg[0].vms)

    # ---- the page table
    def table_lock(self, thread: int, page: int, more: int) -> int | None:
        if self.table != -1:
            return None
        self.table = thread
        return 0

    def table_unlock(self, thread: int, page: int, more: int) -> int:
        self.table = -1
        return 0

    def _parted(self, page: int) -> bool:
        return int(self.rules.head(self.state, page)) in self.parted

    def entry(self, thread: int, page: int, more: int) -> int:
        """The entry; while a split moves the folio it is a migration entry, which is not present."""
        present = self.state.pt[page].present == MAPPED and not self._parted(page)
        return (PRESENT | (WRITE if self.folio(page).writable else 0)) if present else 0

    def clear_entry(self, thread: int, page: int, more: int) -> int:
        before = self.entry(thread, page, more)
        self.state.pt[page].present = UNMAPPED
        return before

    def restore_entry(self, thread: int, page: int, more: int) -> int:
        self.state.pt[page].present = MAPPED
        return 0

    def fault(self, thread: int, page: int, more: int) -> int | None:
        """handle_mm_fault: maps the page; for write (`more`), writable, and an iomap file system marks the folio dirty.
        It waits at a migration entry."""
        if self.table not in (-1, thread) or self._parted(page):
            return None
        folio = self.folio(page)
        if not more:
            if self.state.pt[page].present != MAPPED:
                self.state.pt[page].present, folio.writable = MAPPED, 0
            return 0
        if self.state.pt[page].present == MAPPED and folio.writable:
            return 0  # another fault was first, or the migration entry is gone
        self.state.pt[page].present = MAPPED
        folio.writable = 1
        if folio.backing == IOMAP:
            folio.dirty = 1
        return 0

    # ---- split and swap
    def release(self, thread: int, page: int, more: int) -> int:
        """filemap_release_folio: an iomap file system keeps a dirty folio."""
        folio = self.folio(page)
        return int(not (folio.backing == IOMAP and folio.dirty))

    def unmap_split(self, thread: int, page: int, more: int) -> int | None:
        if self.table not in (-1, thread):
            return None
        self.parted.add(int(self.rules.head(self.state, page)))
        return 0

    def remap(self, thread: int, page: int, more: int) -> int:
        self.parted.discard(int(self.rules.head(self.state, page)))
        return 0

    def split(self, thread: int, page: int, more: int) -> int:
        """__split_huge_page: folios of order 0, mapped again; the caller's reference stays with its page."""
        head = int(self.rules.head(self.state, page))
        self.parted.discard(head)
        self.state.mm[head].frozen = 0
        self.rules.into_pages(self.state, head)
        return 0

    def swap_out(self, thread: int, page: int, more: int) -> int:
        """pageout: refused if there is another reference; else the write is in flight."""
        if self.rules.extra_refs(self.state, page) or self.state.pt[page].present != UNMAPPED:
            return 0
        self.state.io[page].flying += 1
        return DONE
