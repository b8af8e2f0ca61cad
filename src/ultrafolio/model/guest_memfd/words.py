"""What the tables, fields and page states of a scenario of guest_memfd mean, for the reference and the schemas."""

from __future__ import annotations

from .scenario import ACTORS, MEMORY, STATES

TABLES = {
    "memory": "the pages of one file of guest_memfd, numbered through from 0",
    "vcpu": "a vCPU: it touches pages for ever; it asks for a conversion so often as `starts` says",
    "disk": "direct I/O of the VMM: it pins pages for one request, then drops the pins",
    "lru": "a page is put into a per-CPU batch of the LRU, which holds a reference",
    "speculative": "a PFN walker takes a short reference without a lock",
    "pin": "a long-term pin, such as VFIO's or a registered buffer of io_uring: the VMM may end it, and need not",
    "vmsplice": "a page is put into a pipe, which holds a plain reference until somebody reads it",
    "access": "the kernel itself touches a page, without a reference",
    "user": "a process touches pages through its mapping of the file",
    "vmm": "the VMM asks for a conversion, with no request of its guest",
    "hole": "the VMM punches a hole into the file",
}
"""Every table of a scenario."""
FIELDS = {
    "folios": "the order of each folio in turn; 1: a huge page of two pages, which only some policies have",
    "state": "the attribute of each page at the start, or one for all",
    "allocated": "whether the file has the pages at the start",
    "mapped": "whether KVM maps all pages at the start, as what their attribute says",
    "refuses": "pages that the machine never gives back",
    "never": "pages that the machine never takes",
    "no_table": "how often there is no memory to split an entry of the machine; 255: never any",
    "no_folio": "how often there is no memory to split a folio; 255: never any",
    "cpu": "the CPU that its thread runs on, and whose LRU batch it uses",
    "touch": "the pages it may touch; a vCPU that lists none of touch, share and unshare touches all",
    "share": "the pages it may ask for as shared",
    "unshare": "the pages it may ask for as private",
    "small": "true: the guest accepts single pages, and a huge page that KVM maps is split for it",
    "page": "its first page; of a list: the pages it may choose from, all where the list is empty",
    "pages": "how many pages in a row",
    "process": "the process whose page table maps the page",
    "locked": "true: the process's mapping is VM_LOCKED",
    "copies": "true: a copy, which expects that the access may fail",
    "to": "what the VMM asks for",
    "starts": "how often it starts; 255: without end",
    "after": "the actor that must have finished once before: its kind (`pin`), or kind and number (`pin 1`)",
    "completes": "false: its I/O never ends",
}  # fmt: skip
"""Every field of these tables."""
STATE_WORDS = {
    "private": "the attribute is private: no process may use the page",
    "shared": "the attribute is shared: processes may map and pin the page",
}
"""Every state of a page."""

assert set(TABLES) == {"memory", *ACTORS}, "every table has its meaning"
assert set(FIELDS) == {*MEMORY} | {name for table in ACTORS.values() for name in table}
assert set(STATE_WORDS) == set(STATES), "every state has its meaning"
