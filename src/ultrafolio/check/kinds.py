"""The kinds of actors by what they hold between steps: a range of pages, one page, or none."""

from __future__ import annotations

from ultrafolio.engine import tables  # noqa: F401  (the model's own tables are checked first)
from ultrafolio.model.bounds import fits
from ultrafolio.model.layout import (
    ACCESS,
    ACTOR_KINDS,
    DISK,
    INTERRUPT,
    LRU,
    MAPPING,
    PIN,
    REBOOT,
    RECLAIM,
    RING,
    SPECULATIVE,
    TAMPER,
    VCPU,
    WRITEBACK,
)

DEVICES = (DISK, RING, PIN, INTERRUPT)
"""Kinds of actors that pin a range of pages."""
WORKERS = (WRITEBACK, RECLAIM, MAPPING, SPECULATIVE, ACCESS)
"""Kinds of host threads that hold the page of their task until they are idle."""
AT_ONCE = (LRU, REBOOT, TAMPER)
"""Kinds of actors that hold no page between steps."""
_APART = {kind for kind in range(len(ACTOR_KINDS)) if kind not in (VCPU, *DEVICES, *WORKERS, *AT_ONCE)}
fits(
    f"kinds of actors, of which folding does not know {', '.join(ACTOR_KINDS[kind] for kind in sorted(_APART))}",
    len(ACTOR_KINDS),
    len(ACTOR_KINDS) - len(_APART),
    "check/kinds.py: DEVICES, WORKERS or AT_ONCE",
)
