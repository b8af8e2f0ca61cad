"""Where threads of guest_memfd are, in groups: at which rules a fact may be true, or something be held."""

from __future__ import annotations

from ultrafolio.model.guest_memfd.layout import *
from ultrafolio.model.guest_memfd.table import STEPS
from ultrafolio.prove.paths import Place
from ultrafolio.waits.memfd import is_fresh

FRESH = tuple(pc for pc in sorted(STEPS) if is_fresh(pc))
"""Rules at which a thread has allocated a huge page that it is to split."""
SHARING = (FAULT_LOOKUP, FAULT_UNLOCK, USER_LOOKUP, *FRESH)
"""Rules at which a fault shares the lock."""
ALONE = tuple(pc for pc in sorted(STEPS) if "lock" in STEPS[pc].holds and pc not in SHARING)
"""Rules at which the lock is held alone. From Rule.holds."""
TESTS = (CONVERT_PINNED, CONVERT_COUNT, CONVERT_DRAIN_OWN, CONVERT_DRAIN_ALL)
"""Rules at which a conversion goes through its pages."""
TESTING = (CONVERT_UNMAP, *TESTS, CONVERT_ZAP)
"""Rules at which a request has changed no attribute of its piece yet."""
FAULTS = (FAULT_ATTRIBUTE, FAULT_LOCK, FAULT_LOOKUP, FAULT_UNLOCK, FAULT_MAP, *FRESH)
DEVICES = (DISK, PIN, SPLICE)
USING = (DMA_END, DMA_STANDS, DMA_ASKED)
"""Rules at which a device uses the pages that it has pinned."""


def of_device(place: Place) -> bool:
    """The thread is one that asks for pins."""
    return place.kind in DEVICES


def is_pinning(place: Place) -> bool:
    """The thread takes one reference after the other."""
    return place.kind in DEVICES and place.pc in (GUP_GET, GUP_RECHECK, USER_LOCK, USER_LOOKUP, USER_MAP, *FRESH)


def of_request(place: Place) -> bool:
    """The thread runs a request to convert, or to punch a hole."""
    return place.pc in (VMM_UNMAP, VMM_UNMAPPED, VMM_RETRY) or CONVERT_LOCK <= place.pc <= HOLE_END
