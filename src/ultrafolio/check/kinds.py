"""The kinds of actors as the checker divides them: those that hold a run of pages, one page, or none between steps."""

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
"""Kinds of actors that pin a run of pages."""
WORKERS = (WRITEBACK, RECLAIM, MAPPING, SPECULATIVE, ACCESS)
"""Kinds of the host's threads that are busy with the page of their task until they idle again."""
AT_ONCE = (LRU, REBOOT, TAMPER)
"""Kinds of actors that are busy with no page between their steps."""
_APART = {kind for kind in range(len(ACTOR_KINDS)) if kind not in (VCPU, *DEVICES, *WORKERS, *AT_ONCE)}
fits(
    f"kinds of actors, of which folding does not know {', '.join(ACTOR_KINDS[kind] for kind in sorted(_APART))}",
    len(ACTOR_KINDS),
    len(ACTOR_KINDS) - len(_APART),
    "check/kinds.py: DEVICES, WORKERS or AT_ONCE",
)
