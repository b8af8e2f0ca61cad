"""What the tables, fields and page states of a scenario mean, for the reference, the schemas and the errors."""

from __future__ import annotations

from .scenario import ACTORS, FEATURES, MEMORY, STATES

TABLES = {
    "memory": "the folios of the host and their pages, numbered through from 0",
    "features": "what the ultravisor and the host can do",
    "vcpu": "a vCPU: it touches pages for ever; it shares and unshares so often as `starts` says",
    "disk": "direct I/O: it pins pages for one request, then drops the pins",
    "virtio": "a virtio ring: a long-term pin of pages that the guest shares, until its reboot or shutdown",
    "writeback": "the host writes a dirty folio back",
    "reclaim": "the host takes a page away: unmap, export, swap",
    "lru": "a folio is put into a per-CPU batch of the LRU, which holds a reference",
    "mapping": "the page-table entry of a page is taken away",
    "speculative": "somebody takes a short reference without the folio lock, as the page cache does",
    "reboot": "the guest reboots or shuts down: its devices stop, its pages are reset",
    "tamper": "the host changes the bytes of an exported page",
    "pin": "a long-term pin that is no ring, such as a registered buffer",
    "interrupt": "an adapter interrupt: the host sets bits in a page that the guest shares",
    "access": "the host itself reads or writes a page",
}
"""Every table of a scenario."""
FIELDS = {
    "folios": "the order of each folio in turn: 2^order pages; larger ones first",
    "backing": "anonymous memory, shmem, or a file system that uses iomap",
    "state": "the state of each page at the start, or one for all",
    "owner": "the guest of each page, or one for all",
    "dirty": "whether the folios are dirty at the start; left out: as the backing has it",
    "writable": "whether the pages are mapped writable at the start",
    "refuses": "pages on which calls of the ultravisor fail",
    "one_address_space": "the guests share one address space of the host",
    "ownership_transfer": "an import takes another guest's page without an export first",
    "guest": "whose vCPU or device it is",
    "cpu": "the CPU that its thread runs on, and whose LRU batch it uses",
    "touch": "the pages it may touch; a vCPU that lists none of touch, share and unshare touches all",
    "share": "the pages it may share",
    "unshare": "the pages it may unshare",
    "read": "the pages it may read; an access that lists no page reads all",
    "write": "the pages it may write",
    "page": "its first page; of a step of the host: the pages it may choose from, all where the list is empty",
    "pages": "how many pages in a row",
    "starts": "how often it starts; 255: without end",
    "after": "the actor that must have finished once before: its kind (`disk`), or kind and number (`disk 1`)",
    "completes": "false: its I/O never ends",
    "shutdown": "true: a shutdown, after which the guest does not run again",
}
"""Every field of these tables."""
STATE_WORDS = {
    "non_secure": "the host may use it; no guest has it",
    "secure": "the guest alone may use it; nothing of it is shared",
    "shared": "the guest shares it with the host; the host may still take it away",
    "pinned_shared": "shared, and pinned by a call of the host: an unshare waits for the unpin",
    "exported": "encrypted for the host: swapped, written or read; the guest must import it first",
    "exported_shared": "exported while its guest shared it",
}
"""Every state of a page."""
EXPECT = {
    "verdict": "holds, violated or unknown", "kind": "of the worst finding; \"null\": none",
    "depth": "steps of the story, or depth of the graph", "states": "states of the graph", "edges": "its edges",
}  # fmt: skip
"""The fields of an entry [expect] POLICY."""

assert set(TABLES) == {"memory", "features", *ACTORS}, "every table has its meaning"
assert set(FIELDS) == {*MEMORY, *FEATURES} | {name for table in ACTORS.values() for name in table}
assert set(STATE_WORDS) == set(STATES), "every state has its meaning"
