"""The rules, a file for each subject. Importing this package puts every rule into RULES."""

from __future__ import annotations

from . import (
    access,
    accessible,
    folio,
    guest,
    imports,
    pins,
    reboot,
    reclaim,
    references,
    split,
    tamper,
    thread,
    ultravisor,
    unpin,
    writeback,
)

MODULES = (
    ultravisor, folio, thread, imports, split, guest, unpin, accessible, references, pins, access, writeback, reclaim,
    reboot, tamper,
)  # fmt: skip
"""In the order in which they are read: the ultravisor, what all host rules share, then by subject."""
