"""Workloads: a vCPU touches a sequence of pages, listed or from a recording."""

from __future__ import annotations

import gzip
import tempfile
import time
import zlib
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from services.common import scheduler
from services.common.scheduler import Suspending, Wait
from services.guest.orders import Deadline, OrderResult, pc_of
from services.guest.peers import Seen
from services.guest.vcpu import Machine
from ultrafolio.errors import InputError
from ultrafolio.model.bounds import fits
from ultrafolio.model.layout import RUN, TOUCH
from ultrafolio.rpc.v1 import common_pb2
from ultrafolio.rpc.v1.common_pb2 import OUTCOME_DONE, OUTCOME_UNSPECIFIED, OUTCOME_WAITS
from ultrafolio.state.sections import LARGEST_GROUP
from ultrafolio.state.turn import Group
from ultrafolio.trace.load import load_touches

LARGEST = 64 << 20
"""Bytes of a recording, unpacked."""
UNPACKING = "unpacking"
"""The key that a call holds while it unpacks a recording: one at a time, which bounds memory."""
NEWS_S = 0.1
"""Seconds, at most, between two progress messages of a running workload."""
fits("pages that two bytes can number", LARGEST_GROUP, 1 << 16, 'services/guest/workload.py: array("H")')


class Progress(NamedTuple):
    """done, exceptions: numbers so far;  outcome: OUTCOME_UNSPECIFIED while it runs;  wait: what it waited for at its
    end."""

    done: int
    exceptions: int
    outcome: common_pb2.Outcome.ValueType = OUTCOME_UNSPECIFIED
    wait: common_pb2.Wait | None = None


def unpacked_alone(recording: bytes, pages: int, touches: int) -> Suspending[array[int]]:
    """As pages_of, one call of this process at a time."""
    while not scheduler.DEFAULT.hold(UNPACKING):
        yield Wait(600.0, behind=UNPACKING)
    try:
        return pages_of(recording, pages, touches)
    finally:
        scheduler.DEFAULT.release(UNPACKING, wake_all=False)


def pages_of(recording: bytes, pages: int, touches: int) -> array[int]:
    """Returns the touches of a lackey recording, plain or gzip, as pages of a group with `pages` pages, two bytes each;
    the first `touches`, all for 0. Raises InputError for a bad recording, or one larger than LARGEST."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recording"
        file.write_bytes(_unpacked(recording))
        try:
            rows = load_touches(file)
        except InputError as error:
            what = error.what.replace(str(file), "recording")
            raise InputError(what, value=error.value, allowed=error.allowed, cause=error.cause) from None
    return array("H", (rows["page"][: touches or None] % pages).astype("u2").tobytes())


def _unpacked(recording: bytes) -> bytes:
    """Returns the text of a recording, plain or gzip. Raises InputError for damaged data, or over LARGEST bytes."""
    packed = recording[:2] == b"\x1f\x8b"
    try:
        unpacker = zlib.decompressobj(31)
        text = unpacker.decompress(recording, LARGEST + 1) if packed else recording
    except (zlib.error, gzip.BadGzipFile) as error:
        raise InputError("recording: cannot be unpacked", value=str(error), allowed="whole gzip data") from None
    if len(text) > LARGEST:
        raise InputError("recording: too large", value=f"over {LARGEST >> 20} MiB unpacked", allowed="a shorter one")
    return text


def run(
    machine: Machine, group: Group, actor: int, pages: Sequence[int], batch: int, deadline: Deadline, longest_s: float
) -> Iterator[Progress | Wait]:
    """Touch `pages` in order, `batch` of them in one message. Yields progress, also at the end, and waits.

    longest_s: seconds that one access may wait, 0: until the deadline
    """
    vm, done, exceptions, told = int(group.view.meta.who["vm"][actor]), 0, 0, time.monotonic()
    while done < len(pages):
        some = pages[done : done + batch]
        machine.enter(group, actor, TOUCH, some[0])
        machine.take_turn(group, actor, some[0])
        seen = machine.parts.access(group.name, vm, [(page, 0, 0, b"") for page in some]) if _in(group, actor) else []
        done += (through := _through(seen))
        if through < len(some):
            group.refresh()
            limited = _limited(deadline, longest_s)
            work = yield from machine.instruct(group, actor, TOUCH, some[through], "", limited, OrderResult())
            exceptions += work.exceptions
            if work.outcome != OUTCOME_DONE:
                yield Progress(done, exceptions, work.outcome, work.wait)
                return
        if deadline.over:
            yield Progress(done, exceptions, OUTCOME_WAITS)
            return
        if time.monotonic() > told + NEWS_S:
            yield Progress(done, exceptions)
            told = time.monotonic()
    yield Progress(done, exceptions, OUTCOME_DONE)


def _in(group: Group, actor: int) -> bool:
    """Whether the vCPU is in the guest, and not in the middle of an instruction that exited."""
    return pc_of(group, actor) == RUN


def _through(seen: Sequence[Seen]) -> int:
    """Returns the number of accesses before the first that raised an exception."""
    return next((i for i, one in enumerate(seen) if one.exception), len(seen))


def _limited(deadline: Deadline, longest_s: float) -> Deadline:
    """Returns a deadline that is also over after `longest_s` seconds; 0: no further bound."""
    end = time.monotonic() + (longest_s or float("inf"))
    return Deadline(lambda: min(deadline.remaining(), end - time.monotonic()), deadline.alive)
