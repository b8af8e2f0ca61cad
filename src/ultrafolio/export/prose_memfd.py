"""What an actor does in a step of the design guest_memfd, as a verb with its object, for prose.py."""

from __future__ import annotations

from ultrafolio.model.guest_memfd.layout import MM

PHRASES: dict[str, str] = {
    "vcpu-run": "{op} page {page}", "vcpu-again": "goes on with page {page}",
    "pin-start": "asks for page {page}", "gup-walk": "reads the entry of page {page}",
    "gup-get": "takes a reference on page {page}", "gup-recheck": "reads the entry of page {page} once more",
    "dma-ready": "begins to use its pages", "io-end": "completes its I/O", "unpin": "drops its pin of page {page}",
    "dma-unmap": "ends its mapping for DMA", "dma-unmap-asked": "ends its mapping for DMA, as asked",
    "pipe-read": "has its pipe read, which drops the reference on page {page}",
    "lru-add": "puts page {page} into the LRU batch of its CPU",
    "speculative-get": "takes a short reference on page {page}", "plain-put": "drops that reference",
    "fault-snapshot": "takes a snapshot of the invalidation sequence",
    "fault-attribute": "reads the attribute of page {page}, without the lock",
    "fault-lock": "takes the invalidate lock shared", "fault-lookup": "looks page {page} up, which takes a reference",
    "fault-unlock": "gives the lock back", "fault-map": "has KVM map page {page}",
    "vmm-reenter": "is let go on by the VMM", "user-touch": "touches page {page}",
    "user-lock": "takes the invalidate lock shared", "user-lookup": "looks page {page} up, and gives the lock back",
    "fresh-unlock": "clears the lock bit of the fresh folio of page {page}", "fresh-split": "splits the fresh folio",
    "user-map": "has the entry of page {page} set", "kernel-touch": "touches page {page} in the kernel",
    "vmm-start": "asks for a conversion from page {page} on",
    "vmm-unmap": "asks to end its DMA mappings", "vmm-unmapped": "finds its DMA mappings ended",
    "vmm-retry": "asks again", "convert-lock": "takes the invalidate lock alone",
    "convert-test": "tests whether the pages have the attribute already",
    "convert-unmap": "unmaps the pages from all user page tables",
    "convert-pinned": "finds page {page} neither pinned nor mapped",
    "convert-count": "counts the references of page {page}",
    "convert-drain-own": "drains the LRU batches of its own CPU",
    "convert-drain-all": "drains the LRU batches of every CPU",
    "convert-zap": "begins the invalidation and unmaps the pages from KVM's table",
    "convert-store": "stores the attribute", "convert-restructure": "splits or merges the folios",
    "convert-rollback": "sets the attributes back", "convert-end": "ends the invalidation",
    "hole-start": "asks for a hole from page {page} on", "hole-lock": "takes the invalidate lock alone",
    "hole-punch": "unmaps and frees the pages", "hole-end": "ends the invalidation",
}  # fmt: skip
"""Rule -> what is done. Every rule of the design is here."""
OTHERWISE: dict[tuple[str, str], str] = {
    ("gup-walk", "DONE"): "has all its pages",
    ("gup-recheck", "retry: invalidated"): "finds the entry of page {page} gone, and backs off",
    ("convert-pinned", "-EAGAIN"): "finds page {page} pinned or mapped, and answers -EAGAIN",
    ("convert-count", "-EAGAIN"): "finds a foreign reference on page {page}, and answers -EAGAIN",
    ("convert-test", "0"): "finds that the pages have the attribute already, and answers 0",
    ("user-lookup", "SIGBUS"): "finds page {page} private: SIGBUS",
    **dict.fromkeys((("fault-lookup", "DONE"), ("user-lookup", "DONE")),
                    "looks page {page} up, and cannot use it yet"),
    ("vmm-retry", "told no"): "tells the guest no",
}  # fmt: skip
"""What it does where a step of this outcome is not the usual one."""
ADDED: dict[str, str] = {
    "": "", "OK": "", "DONE": "", "exit": ", which exits", "0": " and answers 0", "-EAGAIN": ", and answers -EAGAIN",
    "retry: invalidated": ", but finds it invalidated, and starts again",
    "memory-fault exit": ", which is of the other kind: it exits to the VMM", "SIGBUS": ": SIGBUS",
    "told no": ", and tells the guest no", "-EBUSY: retry": ", but the machine is busy, and it starts again",
    "VM dead": ", which kills the virtual machine", "leaked": ", and a page is leaked", "-EFAULT": ": -EFAULT",
    "fault without end": ", which faults without end", "oops": ": an oops", "machine check": ": a machine check",
    "taken from the guest": ", which takes it from its guest by force",
    "KVM_RUN: -EFAULT": ": KVM_RUN ends with -EFAULT",
    "SIGSEGV": ": SIGSEGV", "-ENOMEM": ", but finds no memory: -ENOMEM",
    "a second folio": ", though there is one by now",
}  # fmt: skip
"""What is added for an outcome that OTHERWISE does not name."""
PRIVATE = (MM.names or ()).index("private")
"""The place of a page's attribute in its record."""
