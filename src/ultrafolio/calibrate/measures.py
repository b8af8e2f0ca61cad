"""The measures: each runs for a given time and returns samples, or raises NotPossible with the reason."""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ultrafolio.errors import install
from ultrafolio.model.layout import PAGE_SIZE

from . import system
from .sample import LEAST, Missing, NotPossible, Sample, each, sample, summary, timed

BATCH = 256
TRIES = 5
"""Attempts to get a folio of a size before memory counts as too fragmented."""
IO_KB = (4, 16, 64, 256, 1024)
FILE_BYTES = 16 << 20
WRITEBACK_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Settings:
    """folder: a folder on the disk to measure. folio_sizes: enable refused folio sizes during the measure."""

    folder: Path
    folio_sizes: bool = False


Measure = Callable[[Settings, float], Iterator[Sample]]


def crypto(settings: Settings, seconds: float) -> Iterator[Sample]:
    """AES-256-GCM encryption and decryption of 4 KiB, as in an export and an import, called from Python."""
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise NotPossible(f"the package cryptography is missing: {install('cluster')}") from None
    cipher, nonce, page = AESGCM(bytes(range(32))), bytes(12), os.urandom(PAGE_SIZE)
    sealed = cipher.encrypt(nonce, page, None)
    for name, what, call in (
        ("seal", "AES-256-GCM seals 4 KiB, in software", lambda: cipher.encrypt(nonce, page, None)),
        ("open", "AES-256-GCM opens and verifies 4 KiB, in software", lambda: cipher.decrypt(nonce, sealed, None)),
    ):
        yield sample(name, f"{what}; batches of 16", partial(each, call), seconds / 2)


def hashing(settings: Settings, seconds: float) -> Iterator[Sample]:
    """SHA-256 and SHA-512 over 4 KiB."""
    page = os.urandom(PAGE_SIZE)
    for name in ("sha256", "sha512"):
        yield sample(
            name,
            f"{name.upper()[:3]}-{name[3:]} over 4 KiB; batches of 16",
            partial(each, partial(getattr(hashlib, name), page)),
            seconds / 2,
        )


def fault(settings: Settings, seconds: float) -> Iterator[Sample]:
    """The first touch of a page of 4 KiB: fault, zeroing, mapping."""
    with system.Region(BATCH * PAGE_SIZE) as region:

        def once() -> float:
            region.advise(system.MADV_DONTNEED)
            return timed(lambda: region.bytes.__setitem__(slice(None, None, PAGE_SIZE), 1), BATCH)

        yield sample("fault_4kB", f"first touch of 4 KiB; batches of {BATCH}", once, seconds)


def _folio(region: system.Region, size_kb: int) -> float:
    """Make the region one new folio. Returns the ns of its first touch. Raises NotPossible if memory is fragmented."""
    for _ in range(TRIES):
        region.advise(system.MADV_DONTNEED)
        before = system.counter(size_kb, "anon_fault_alloc")
        took = timed(lambda: region.bytes.__setitem__(0, 1))
        if system.counter(size_kb, "anon_fault_alloc") > before:
            return took
    raise NotPossible(f"no folio of {size_kb} KiB was to be had: memory is fragmented")


def folio(size_kb: int) -> Measure:
    """The measure of large folios of one size: first touch, and split mapped by PTEs."""

    def measure(settings: Settings, seconds: float) -> Iterator[Sample]:
        with system.offered(size_kb, change=settings.folio_sizes), system.Region(size_kb << 10, huge=True) as region:
            yield sample(
                f"fault_{size_kb}kB",
                f"first touch of a folio of {size_kb} KiB",
                lambda: _folio(region, size_kb),
                seconds / 2,
            )
            empty = summary("", "", [_split(region, size_kb, split=False) for _ in range(LEAST * 4)])
            yield sample(
                f"split_{size_kb}kB",
                f"split of a folio of {size_kb} KiB mapped by PTEs (MADV_COLD on a page of it), less the call",
                lambda: _split(region, size_kb) - empty.median,
                seconds / 2,
            )

    return measure


def _split(region: system.Region, size_kb: int, *, split: bool = True) -> float:
    """The ns of MADV_COLD on one page of a new folio, which splits it; without `split`, on a page that was split."""
    page = region.size // PAGE_SIZE // 2
    for _ in range(TRIES):
        _folio(region, size_kb)
        region.protect_again(page)
        if not split:
            region.advise(system.MADV_COLD, page * PAGE_SIZE, PAGE_SIZE)
        before = system.counter(size_kb, "split")
        took = timed(lambda: region.advise(system.MADV_COLD, page * PAGE_SIZE, PAGE_SIZE))
        if not split or system.counter(size_kb, "split") > before:
            return took
    raise NotPossible("MADV_COLD on a page of a folio does not split it here (it needs Linux 6.10 or newer)")


def drain(settings: Settings, seconds: float) -> Iterator[Sample]:
    """LRU drains by sealing a memfd: of this CPU always, of all CPUs if a page has an extra reference."""
    with system.on_cpu() as cpus:
        if len(cpus) < 2:
            raise NotPossible("needs two CPUs: the page must lie in another CPU's batch")
        here, other = cpus[0], cpus[1]
        end = time.monotonic() + seconds
        empty: list[float] = []
        own: list[float] = []
        every: list[float] = []
        while time.monotonic() < end or len(every) < LEAST:
            empty.append(sealing(here, here, drained=True))
            own.append(sealing(here, here))
            every.append(sealing(here, other))
    floor = float(np.median(empty))
    yield summary(
        "drain_own",
        "drain of this CPU's LRU batch: sealing a memfd whose page is in it, less the call",
        [took - floor for took in own],
    )
    yield summary(
        "drain_all",
        "drain of all CPUs' LRU batches: the same with the page in another CPU's batch",
        [took - floor for took in every],
    )


def sealing(here: int, writer: int, *, drained: bool = False) -> float:
    """The ns of F_SEAL_WRITE by CPU `here` on a memfd whose one page CPU `writer` has just added to its LRU batch.
    `drained`: `here` has drained its own batch before."""
    fd, idle = (os.memfd_create("ultrafolio", os.MFD_ALLOW_SEALING) for _ in range(2))
    try:
        os.sched_setaffinity(0, {writer})
        os.pwrite(fd, bytes(PAGE_SIZE), 0)
        os.sched_setaffinity(0, {here})
        if drained:
            fcntl.fcntl(idle, fcntl.F_ADD_SEALS, system.F_SEAL_WRITE)
        return timed(lambda: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, system.F_SEAL_WRITE))
    finally:
        os.close(fd)
        os.close(idle)


def direct_io(settings: Settings, seconds: float) -> Iterator[Sample]:
    """O_DIRECT reads and writes of a file in the folder, one in flight, at random places, by size."""
    with system.scratch(settings.folder, FILE_BYTES) as plain:
        try:
            fd = os.open(f"/proc/self/fd/{plain}", os.O_RDWR | os.O_DIRECT)
        except OSError as error:
            raise NotPossible(f"O_DIRECT in {settings.folder}: {error.strerror}") from None
        try:
            with mmap.mmap(-1, IO_KB[-1] << 10) as buffer:
                for size_kb in IO_KB:
                    yield from _direct(fd, buffer, size_kb, seconds / len(IO_KB))
        finally:
            os.close(fd)


def _direct(fd: int, buffer: mmap.mmap, size_kb: int, seconds: float) -> Iterator[Sample]:
    """Yields samples of O_DIRECT reads and writes of one size at random places of a file, each for half the time."""
    size, place = size_kb << 10, random.Random(size_kb)
    with memoryview(buffer)[:size] as part:
        for name, call in (("read", os.preadv), ("write", os.pwritev)):

            def once(call: Callable[..., int] = call) -> float:
                start = place.randrange(FILE_BYTES // size) * size
                return timed(lambda: call(fd, [part], start))

            yield sample(f"{name}_{size_kb}kB", f"O_DIRECT {name} of {size_kb} KiB", once, seconds / 2)


def writeback(settings: Settings, seconds: float) -> Iterator[Sample]:
    """Writeback of 64 KiB of dirty page cache, from its start to its end, without the journal."""
    page = os.urandom(WRITEBACK_BYTES)
    with system.scratch(settings.folder, WRITEBACK_BYTES) as fd:

        def once() -> float:
            os.pwrite(fd, page, 0)
            return timed(lambda: system.sync_range(fd, WRITEBACK_BYTES, system.SYNC_WHOLE))

        yield sample("writeback_64kB", "writeback of 64 KiB of dirty page cache", once, seconds)


def measures() -> dict[str, Measure]:
    """Every measure by name, in the order in which they run."""
    sizes = {f"folio_{size_kb}kB": folio(size_kb) for size_kb in system.folio_sizes()}
    large: dict[str, Measure] = sizes or {"folio": _no_folios}
    return {
        "crypto": crypto,
        "hashing": hashing,
        "fault": fault,
        **large,
        "drain": drain,
        "direct_io": direct_io,
        "writeback": writeback,
    }


def _no_folios(settings: Settings, seconds: float) -> Iterator[Sample]:
    raise NotPossible("this kernel counts no large anonymous folios (it needs Linux 6.10 or newer)")


def take(name: str, measure: Measure, settings: Settings, seconds: float) -> tuple[list[Sample], list[Missing]]:
    """Run one measure for `seconds`. Returns its samples, and the measures that were not possible; samples from before
    a NotPossible are kept."""
    done: list[Sample] = []
    try:
        for made in measure(settings, seconds):
            done.append(made)
    except NotPossible as error:
        return done, [Missing(name, str(error))]
    return done, []
