"""Workloads: the pages that a vCPU touches one after the other, listed or recorded."""

from __future__ import annotations

import gzip
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from services.common import parking
from services.common.parking import Pausing, Wait
from services.guest.orders import Patience, Work, pc_of
from services.guest.peers import Seen
from services.guest.vcpu import Machine
from ultrafolio.errors import InputError
from ultrafolio.model.layout import RUN, TOUCH
from ultrafolio.rpc.v1 import common_pb2
from ultrafolio.rpc.v1.common_pb2 import OUTCOME_DONE, OUTCOME_UNSPECIFIED, OUTCOME_WAITS
from ultrafolio.state.turn import Group
from ultrafolio.trace.load import load_touches

LARGEST = 64 << 20
"""Bytes of a recording, unpacked."""
UNPACKING = "unpacking"
"""The key that a call has while it unpacks a recording: one at a time, so that memory is bounded."""
NEWS_S = 0.1
"""How long no news of a workload under way is held back at most."""


class Progress(NamedTuple):
    """done, exceptions: so far;  outcome: OUTCOME_UNSPECIFIED while it goes on;  wait: what ended it early."""

    done: int
    exceptions: int
    outcome: common_pb2.Outcome.ValueType = OUTCOME_UNSPECIFIED
    wait: common_pb2.Wait | None = None


def unpacked_alone(recording: bytes, pages: int, touches: int) -> Pausing[list[int]]:
    """As pages_of, while no other call of this process does so."""
    while not parking.HERE.take(UNPACKING):
        yield Wait(600.0, behind=UNPACKING)
    try:
        return pages_of(recording, pages, touches)
    finally:
        parking.HERE.give(UNPACKING, everybody=False)


def pages_of(recording: bytes, pages: int, touches: int) -> list[int]:
    """The touches of a lackey recording, plain or gzip, as pages of a group that has `pages`; at most `touches`, all
    for 0. InputError for a recording that is none, or larger than LARGEST."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recording"
        file.write_bytes(_unpacked(recording))
        try:
            rows = load_touches(file)
        except InputError as error:
            what = error.what.replace(str(file), "recording")
            raise InputError(what, value=error.value, allowed=error.allowed, cause=error.cause) from None
    chosen: list[int] = (rows["page"][: touches or None] % pages).tolist()
    return chosen


def _unpacked(recording: bytes) -> bytes:
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
    machine: Machine, group: Group, actor: int, pages: Sequence[int], batch: int, patience: Patience, longest_s: float
) -> Iterator[Progress | Wait]:
    """Touch `pages` in order, `batch` of them in one message; news now and then, and at the end, and waits between.

    longest_s: seconds that one access may wait, 0 for as long as patience lasts
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
            limited = _limited(patience, longest_s)
            work = yield from machine.instruct(group, actor, TOUCH, some[through], "", limited, Work())
            exceptions += work.exceptions
            if work.outcome != OUTCOME_DONE:
                yield Progress(done, exceptions, work.outcome, work.wait)
                return
        if patience.over:
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
    """How many accesses came through before the first that did not."""
    return next((i for i, one in enumerate(seen) if one.exception), len(seen))


def _limited(patience: Patience, longest_s: float) -> Patience:
    end = time.monotonic() + (longest_s or float("inf"))
    return Patience(lambda: min(patience.remaining(), end - time.monotonic()), patience.alive)
