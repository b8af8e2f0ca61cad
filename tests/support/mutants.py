"""Deliberately broken rules, and the conformance cases that each of them turns red."""

MUTANTS: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "import without the writeback check": (
        {"    if s.mm[head(s, k.page)].writeback != NO_WRITEBACK:\n        unlock": "    if 0:\n        unlock"},
        ("import-under-writeback", "walks-keep-the-invariant"),
    ),
    "bit cleared before the export": (
        {"    if uv_pin(s, k.i) == UV_OK:\n        return page_done(s, t)\n":
         "    if uv_pin(s, k.i) == UV_OK:\n        return page_done(s, t)\n    clear_arch(s, k.i)\n"},
        ("walks-keep-the-invariant", "trace-of-point-3", "unshare-beats-the-pin", "two-pins-at-once",
         "writeback-too-late",
         "the-intended-result", "steps-of-direct-io-on-secure-pages", "the-posted-loops"),
    ),
    "an export that launders a changed page": (
        {"        uv.state = EXPORTED\n        s.mm[p].altered = 0\n":
         "        uv.state = EXPORTED\n    s.mm[p].altered = 0\n"},
        ("export-does-not-launder-a-changed-page",),
    ),
    "no freeze": (
        {"    s.mm[counted(s, k.page)].frozen = 1\n": ""},
        ("import-order", "mapped-twice"),
    ),
    "no count of references": (
        {"    if extra_refs(s, k.page) > k.ref or never_matches(s, k.page):": "    if 0:"},
        ("import-of-a-pinned-page", "import-of-a-page-in-an-lru-batch", "unshare-under-a-pin", "trace-of-point-12",
         "neighbour-of-direct-io", "neighbour-of-a-virtio-ring", "two-ways-to-be-busy",
         "steps-of-an-unshare-under-a-pin", "hang-of-the-ring-page-itself", "import-of-a-large-folio-up-to-6-9"),
    ),
    "bit not set by an import": (
        {"    set_arch(s, s.task[t].page)\n": ""},
        ("import-plain", "unshare-of-a-pinned-page", "walks-keep-the-invariant", "steps-of-an-import",
         "import-of-any-backing", "steps-of-a-split", "steps-of-a-split-with-writeback"),
    ),
    "a call without looking at the bit": (
        {"            if s.mm[p].arch:\n                break": "            break",
         "    if is_clear(s, t):\n        accessible_done": "    if False:\n        accessible_done"},
        ("a-clear-bit-saves-the-call",),
    ),
    "pin shared takes any page": (
        {"(uv.state != SHARED and uv.state != PINNED_SHARED)": "uv.state == NON_SECURE"},
        ("calls-pin", "pin-of-a-secure-page"),
    ),
    "export forgets what was shared": (
        {"uv.shared = 1 if uv.state != SECURE else 0": "uv.shared = 0"},
        ("calls-export", "steps-of-a-reclaim"),
    ),
    "unshare of a pinned page does not exit": (
        {"    if uv.state == PINNED_SHARED:\n        return UV_EXIT\n    if uv.state == SHARED and":
         "    if (uv.state == SHARED or uv.state == PINNED_SHARED) and"},
        ("calls-share-and-unshare", "unshare-under-a-pin"),
    ),
    "an exported page is imported unchecked": (
        {"            return UV_INTEGRITY\n        uv.state = SHARED": "            pass\n        uv.state = SHARED"},
        ("calls-integrity", "import-of-a-changed-page"),
    ),
    "a refused import forgets the lock": (
        {"    thaw(s, t)\n    if rc == UV_BUSY": "    if rc == UV_BUSY"},
        ("import-refused-by-the-ultravisor",),
    ),
    "writeback makes one page accessible": (
        {"make_accessible(s, t, s.task[t].page, True, WB_IO)": "make_accessible(s, t, s.task[t].page, False, WB_IO)"},
        ("writeback-makes-all-accessible", "steps-of-a-writeback"),
    ),
    "export also before an unpin": (
        {" and k.call != UNSHARE": ""},
        ("export-before-import",),
    ),
    "own drain drains all": (
        {"drain(s, k.page, s.who[t].cpu + 1)": "drain(s, k.page, 0)"},
        ("steps-of-draining", "import-of-a-page-in-an-lru-batch"),
    ),
    "a reference that the folio does not count": (
        {"        m.spec += 1\n    s.mm[head(s, p)].refs += 1": "        m.spec += 1"},
        ("walks-keep-the-invariant", "import-of-a-large-folio-with-a-pin", "plain-references-make-nothing-accessible"),
    ),
    "the mutex is dropped over a wait": (
        {"        k.pc = WAIT_WRITEBACK\n        return E_WRITEBACK\n    k.pc = IMPORT_LARGE":
         "        leave(s, t)\n        k.pc = WAIT_WRITEBACK\n        return E_WRITEBACK\n    k.pc = IMPORT_LARGE"},
        ("steps-under-the-import-mutex",),
    ),
    "a reboot does not wait for devices": (
        {"if mine and pc not in (RUN, DEVICE_IDLE, DEAD):": "if 0:"},
        ("steps-of-virtio-and-reboot",),
    ),
    "split without looking at references": (
        {"    if m.refs > k.ref:": "    if 0:"},
        ("import-of-a-large-folio-with-a-pin", "steps-of-a-refused-split"),
    ),
    "split of a dirty iomap folio": (
        {"if m.dirty and m.backing == IOMAP:": "if 0:"},
        ("import-of-a-dirty-iomap-folio", "background-writeback-does-not-cure"),
    ),
    "reset of every machine": (
        {"if s.uv[p].state != NON_SECURE and s.uv[p].owner == vm:": "if s.uv[p].state != NON_SECURE:"},
        ("calls-destroy", "reset-takes-all-pages"),
    ),
    "a failed pin keeps its reference": (
        {"        put_ref(s, k.page + k.at, is_long(s, t))\n        accessible_over": "        accessible_over"},
        ("pin-fails", "whole-folio-fails-at-a-page"),
    ),
    "every unshare of a shared page exits": (
        {"    if uv.state == PINNED_SHARED:\n        return UV_EXIT":
         "    if uv.state == SHARED or uv.state == PINNED_SHARED:\n        return UV_EXIT"},
        ("unshare-of-an-unpinned-page", "calls-share-and-unshare"),
    ),
    "pin shared always fails": (
        {"    uv.state = PINNED_SHARED\n    return UV_OK": "    return UV_ERROR"},
        ("pin-of-a-shared-page", "steps-of-direct-io-on-a-shared-page", "steps-of-virtio-and-reboot"),
    ),
    "import ignores the owner": (
        {"    if uv.owner != vm:\n        if not misc": "    if 0:\n        if not misc"},
        ("calls-import", "calls-import-ownership"),
    ),
    "unpin ignores the owner": (
        {" or uv.state == NON_SECURE or uv.owner != vm": ""},
        ("calls-unpin",),
    ),
    "a refused pin succeeds": (
        {"    if uv.refuses or (uv.state != SHARED": "    if (uv.state != SHARED"},
        ("calls-refused",),
    ),
    "the host may access secure pages": (
        {"return PGM_3D if s.uv[p].state == SECURE else ALLOWED": "return ALLOWED"},
        ("access-by-the-host", "host-access", "host-access-to-a-large-folio", "host-access-that-fails"),
    ),
    "a guest may access another's pages": (
        {"    return PGM_3F if uv.state == SECURE else PGM_3E": "    return ALLOWED"},
        ("access-by-the-guest", "calls-share-and-unshare"),
    ),
    "a pin makes the folio accessible": (
        {"make_accessible(s, t, p, unit != ACC_UNIT_PAGE, PIN_GET)": "make_accessible(s, t, p, 1, PIN_GET)"},
        ("neighbour-page-by-page", "pin-of-a-secure-page"),
    ),
    "import through a read-only mapping": (
        {"MAPPED and s.mm[head(s, p)].writable > 0": "MAPPED"},
        ("import-of-a-page-not-mapped-writable", "wait-after-a-failed-trylock"),
    ),
    "import of a page that is not mapped any more": (
        {"    if s.pt[k.page].present != MAPPED and not s.cfg[0].ignores_unmap:": "    if 0:"},
        ("calls-import-unmapped", "page-unmapped-under-an-import"),
    ),
    "import takes a locked folio": (
        {"    if h.locked:\n        off_table": "    if 0:\n        off_table"},
        ("import-meets-the-folio-lock",),
    ),
    "large folios are imported": (
        {"s.mm[k.page].order == 0 or large == LARGE_DIRECT": "1"},
        ("no-bit-on-a-large-folio", "import-of-a-large-folio"),
    ),
    "split leaves the folio large": (
        {"q.order, q.dirty, q.writable = 0, ": "q.order, q.dirty, q.writable = order, "},
        ("pin-after-the-split", "import-of-a-large-folio"),
    ),
    "share and unshare without end": (
        {"op != TOUCH and not spend(s, t)": "0"},
        ("steps-of-a-share",),
    ),
    "no export before an import": (
        {"    if foreign:\n        k.pc = IMPORT_EXPORT": "    if False:\n        k.pc = IMPORT_EXPORT"},
        ("order-of-an-import", "export-before-import", "import-without-export-up-to-5-19"),
    ),
    "a large folio is met before the lock by all kernels": (
        {"k.pc = IMPORT_LARGE if s.cfg[0].large_at == LARGE_BEFORE_LOCK else IMPORT_TRYLOCK": "k.pc = IMPORT_LARGE"},
        ("lock-and-large-folio", "order-of-an-import"),
    ),
    "a guest's own fault takes the mutex": (
        {" and (call == UNSHARE or writable(s, page)):": ":"},
        ("fault-of-an-import-itself", "import-of-any-backing", "import-of-a-page-not-mapped-writable"),
    ),
    "an import has no reference": (
        {"        k.ref = 1\n        get_ref(s, k.page, 2)\n": "        pass\n"},
        ("own-reference-of-an-import", "wait-after-a-failed-trylock"),
    ),
    "an import keeps its reference": (
        {"        k.ref = 0\n        put_ref(s, k.page, 2)\n": "        k.ref = 0\n"},
        ("own-reference-of-an-import", "wait-after-a-failed-trylock", "import-plain"),
    ),
    "the page-table lock excludes nobody": (
        {"    if s.mm[k.page].walked:\n        return W_TABLE\n": ""},
        ("page-table-lock-of-an-import",),
    ),
    "a pin takes a frozen count": (
        {"    if s.mm[counted(s, p)].frozen:\n        return frozen_met(s, t)\n": ""},
        ("pin-meets-a-frozen-count",),
    ),
    "every pin goes on past a failed page": (
        {"    if k.then == PIN_GET and s.cfg[0].gup_skips:": "    if k.then == PIN_GET:"},
        ("pin-goes-on-past-a-failed-page", "pin-fails"),
    ),
    "an unmap exports one page": (
        {"    if s.cfg[0].unmap == UNMAP_FOLIO:": "    if False:"},
        ("export-by-an-unmap",),
    ),
    "a write of the host changes nothing": (
        {"    if k.call == WRITE:\n        s.mm[k.page].altered = 1\n": ""},
        ("host-writes-an-exported-page",),
    ),
    "no interrupt pins its page": (
        {" and s.cfg[0].interrupt == INTERRUPT_GET:": ":"},
        ("adapter-interrupt",),
    ),
    "a ring on any page": (
        {" or ((kind == RING or kind == INTERRUPT) and not all_shared(s, t, page)):": ":"},
        ("ring-needs-a-shared-page", "adapter-interrupt"),
    ),
    "reclaim never asks for pins before its unmap": (
        {"    if h.backing == ANON and pinned(s, k.page):\n": "    if False:\n"},
        ("reclaim-asks-for-pins",),
    ),
    "reclaim always asks for pins before its unmap": (
        {"    if h.backing == ANON and pinned(s, k.page):\n": "    if pinned(s, k.page):\n"},
        ("reclaim-of-a-ring-on-shmem", "reclaim-asks-for-pins"),
    ),
    "reclaim does not ask again": (
        {"    if s.mm[head(s, k.page)].backing == ANON and pinned(s, k.page):\n": "    if False:\n"},
        ("pin-between-test-and-unmap",),
    ),
    "any page's bit is the pinned page's": (
        {"    return s.mm[asked_page(s, t)].arch == 0\n": "    return False\n"},
        ("own-bit-of-the-page-asked-for",),
    ),
    "all I/O completes": (
        {"    if s.who[t].stuck:\n        return W_IO\n    for p in": "    for p in"},
        ("io-that-never-completes",),
    ),
    "nobody waits for anybody": (
        {"    return after == 0 or s.task[after - 1].done > 0": "    return True"},
        ("actors-in-an-order",),
    ),
}  # fmt: skip
