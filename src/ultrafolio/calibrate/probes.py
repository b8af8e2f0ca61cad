"""Compare the model with the running kernel: an experiment for each rule whose effect user space can observe.

A probe sets up memory of this process, makes one system call or access, and reads the kernel's page flags and counters.
Counters are those of the whole machine, so other processes change them, too: a probe needs a change, and then decides
by the flags.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ultrafolio.model import designs
from ultrafolio.model.layout import PAGE_SIZE

from . import system
from .sample import NotPossible
from .system import PageFlags, Region

TRIES = 8
"""Attempts of a probe when another process drained, wrote or held the page meanwhile."""
AGREES: Final = "agrees"
DIFFERS: Final = "differs"
IMPOSSIBLE: Final = "not possible here"
MISSING: Final = "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """The comparison of the kernel with some rules.

    rules    the names of the rules (`ultrafolio rules`)
    says     the behaviour in the model
    saw      the behaviour of the kernel; if the probe is not possible, the reason; else the capability that is missing
    verdict  AGREES, DIFFERS, IMPOSSIBLE or MISSING
    case     the case of docs/conformance.md, or ""
    design   the design of the rules
    """

    rules: tuple[str, ...]
    says: str
    saw: str
    verdict: Literal["agrees", "differs", "not possible here", "missing"]
    case: str = ""
    design: str = designs.S390.name


Observation = tuple[bool, str]
Probe = Callable[[PageFlags, Path], Observation]


def page_types(flags: PageFlags, folder: Path) -> Observation:
    """A large folio is a head and tails, all anonymous; a small folio is neither head nor tail."""
    with _large() as (region, size_kb), Region(PAGE_SIZE) as single:
        single.bytes[0] = 1
        pages = region.size // PAGE_SIZE
        seen = [flags.at(region.address + page * PAGE_SIZE) for page in range(pages)]
        alone = flags.at(single.address)
    heads, tails = sum("HEAD" in page for page in seen), sum("TAIL" in page for page in seen)
    anonymous = all("ANON" in page for page in [*seen, alone])
    right = (heads, tails) == (1, pages - 1) and anonymous and not {"HEAD", "TAIL"} & alone
    return right, (
        f"{size_kb} KiB folio: {heads} head, {tails} tails, {'' if anonymous else 'not '}all anonymous, "
        f"{_on('LRU' in seen[0])}; 4 KiB page: {_words(alone)}"
    )


def split_under_pin(flags: PageFlags, folder: Path) -> Observation:
    """A long-term pin on one page; another page asks for the split."""
    return _split_while(flags, system.pinned, "pinned")


def split_under_reference(flags: PageFlags, folder: Path) -> Observation:
    """A plain reference on one page; another page asks for the split."""
    return _split_while(flags, system.referenced, "referenced")


def _split_while(
    flags: PageFlags, hold: Callable[[int], contextlib.AbstractContextManager[None]], word: str
) -> Observation:
    """Try to split a folio while `hold` holds one of its pages, and again after: right if only the second try splits
    it."""
    with _large() as (region, size_kb):
        page = region.size // PAGE_SIZE // 2
        with hold(region.address + PAGE_SIZE):
            held = _try_split(region, size_kb, page, flags)
        freed = _try_split(region, size_kb, page, flags)
    right = held[1] >= 1 and held[2] and freed[0] >= 1 and not freed[2]
    return right, f"{word}: {_split_text(held)}; released: {_split_text(freed)}"


def _try_split(region: Region, size_kb: int, page: int, flags: PageFlags) -> tuple[int, int, bool]:
    """Request a split by MADV_COLD on one page. Returns (splits, failed splits, whether the folio is still large)."""
    names = ("split", "split_failed")
    before = [system.counter(size_kb, name) for name in names]
    region.advise(system.MADV_COLD, page * PAGE_SIZE, PAGE_SIZE)
    done, refused = (system.counter(size_kb, name) - was for name, was in zip(names, before, strict=True))
    return done, refused, "HEAD" in flags.at(region.address)


def _split_text(tried: tuple[int, int, bool]) -> str:
    """Returns the words for (splits, failed splits, whether the folio is whole)."""
    done, refused, whole = tried
    return f"split counted {done}, split_failed {refused}, the folio is {'whole' if whole else 'single pages'}"


def split_dirty_file(flags: PageFlags, folder: Path) -> Observation:
    """Always NotPossible."""
    raise NotPossible("needs a file system through iomap that refuses it (XFS); there was none to try a probe on")


def freeze_in_reclaim(flags: PageFlags, folder: Path) -> Observation:
    """A page of the page cache with an extra reference is not freed: the freeze of its count fails."""
    with system.scratch(folder, PAGE_SIZE) as fd, Region(PAGE_SIZE, fd=fd) as region:
        _drop_batch(region)
        with system.referenced(region.address):
            held = _evicted(region)
        freed = any(_evicted(region) for _ in range(TRIES))
    return (held, freed) == (False, True), f"referenced: {_kept(held)}; released: {_kept(freed)}"


def _evicted(region: Region) -> bool:
    """Whether MADV_PAGEOUT takes the page out of the page cache."""
    region.bytes[0].item()
    region.advise(system.MADV_PAGEOUT)
    return not system.is_cached(region)


def _kept(evicted: bool) -> str:
    return "reclaim freed the page" if evicted else "reclaim gave up, the page stayed"


def freeze_in_seal(flags: PageFlags, folder: Path) -> Observation:
    """Sealing counts references as an import does: it drains, waits for extra references, and then returns EBUSY."""
    fd = os.memfd_create("ultrafolio", os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, PAGE_SIZE)
        region = Region(PAGE_SIZE, fd=fd)
        try:
            region.bytes[0] = 1
            with system.pinned(region.address):
                region.close()
                held = _sealed(fd)
        finally:
            with contextlib.suppress(AttributeError):
                region.close()
        freed = _sealed(fd)
    finally:
        os.close(fd)
    return (held, freed) == ("EBUSY", "sealed"), f"pinned: {held}; released: {freed}"


def _sealed(fd: int) -> str:
    """Try to seal a memfd against writing. Returns "sealed", or the name of the error."""
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, system.F_SEAL_WRITE)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "sealed"


def drain_own(flags: PageFlags, folder: Path) -> Observation:
    """A new page is in this CPU's batch, and not on the LRU, until a call drains this CPU."""
    with system.on_cpu() as cpus:
        before, _, after = _batched(flags, cpus[0], cpus[0])
    return (before, after) == (False, True), f"in this CPU's batch: {_on(before)}; drained by the call: {_on(after)}"


def drain_all(flags: PageFlags, folder: Path) -> Observation:
    """A page in another CPU's batch has an extra reference; only such a reference makes the kernel drain all CPUs."""
    with system.on_cpu() as cpus:
        if len(cpus) < 2:
            raise NotPossible("needs two CPUs")
        before, between, after = _batched(flags, cpus[1], cpus[0])
    return (before, between, after) == (False, False, True), (
        f"in another CPU's batch: {_on(before)}; after this CPU's own drain: {_on(between)}; after a call that met "
        f"the extra reference: {_on(after)}"
    )


def _batched(flags: PageFlags, writer: int, here: int) -> tuple[bool, bool, bool]:
    """Whether a new page of a memfd is on the LRU: at first, after another memfd is sealed, after its own is sealed.

    If the batch is full or drained too early, tries again with a new page.
    """
    seen = (True, True, True)
    for _ in range(TRIES):
        fd, idle = (os.memfd_create("ultrafolio", os.MFD_ALLOW_SEALING) for _ in range(2))
        try:
            os.sched_setaffinity(0, {writer})
            os.pwrite(fd, bytes(PAGE_SIZE), 0)
            with Region(PAGE_SIZE, fd=fd) as region:
                region.bytes[0].item()
                frame = flags.frame(region.address)
            os.sched_setaffinity(0, {here})
            before = "LRU" in flags.of(frame)
            if writer != here:
                _sealed(idle)
            between = "LRU" in flags.of(frame)
            _sealed(fd)
            seen = before, between, "LRU" in flags.of(frame)
        finally:
            os.close(fd)
            os.close(idle)
        if not before and not (between and writer != here):
            break
    return seen


def _drop_batch(region: Region) -> None:
    """Move the page of a file's region from its batch to the LRU, by sealing a memfd with an extra reference."""
    with system.on_cpu() as cpus:
        region.bytes[0].item()
        fd = os.memfd_create("ultrafolio", os.MFD_ALLOW_SEALING)
        try:
            os.sched_setaffinity(0, {cpus[-1]})
            os.pwrite(fd, bytes(PAGE_SIZE), 0)
            os.sched_setaffinity(0, {cpus[0]})
            _sealed(fd)
        finally:
            os.close(fd)


def write_fault(flags: PageFlags, folder: Path) -> Observation:
    """A page of a file, mapped read-only: the first write faults and makes it dirty, the second does not fault."""
    with system.scratch(folder, PAGE_SIZE) as fd, Region(PAGE_SIZE, fd=fd) as region, Region(PAGE_SIZE) as other:
        _faults(other)  # so that no page of this process itself faults below, as after a fork
        region.bytes[0].item()
        clean = "DIRTY" not in flags.at(region.address)
        first, second = _faults(region), _faults(region)
        dirty = "DIRTY" in flags.at(region.address)
    right = clean and dirty and (first, second) == (1, 0)
    return right, f"{'clean' if clean else 'dirty'}; first write: {first} fault; second: {second}; then {_dirty(dirty)}"


def writeback(flags: PageFlags, folder: Path) -> Observation:
    """Writeback sets its flag, clears dirty and mapped-writable, and clears the flag at its end."""
    with system.scratch(folder, PAGE_SIZE) as fd, Region(PAGE_SIZE, fd=fd) as region:
        for _ in range(TRIES):
            _faults(region)
            frame = flags.frame(region.address)
            system.sync_range(fd, PAGE_SIZE, system.SYNC_START)
            started = flags.of(frame)
            system.sync_range(fd, PAGE_SIZE, system.SYNC_WHOLE)
            ended = flags.of(frame)
            if "WRITEBACK" in started:
                break
        again = _faults(region)
    right = "WRITEBACK" in started and not {"DIRTY", "WRITEBACK"} & ended and "DIRTY" not in started and again == 1
    return right, f"started: {_words(started)}; ended: {_words(ended)}; the next write: {again} fault"


def _faults(region: Region) -> int:
    """The number of minor faults of one write to the region's first page."""
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    region.bytes[0] = 1
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before


@contextlib.contextmanager
def _large() -> Iterator[tuple[Region, int]]:
    """A context manager: a new large folio of the greatest offered size, and that size in KiB."""
    for size_kb in reversed(system.folio_sizes()):
        if not system.is_offered(size_kb):
            continue
        with Region(size_kb << 10, huge=True) as region:
            region.bytes[:] = 1
            yield region, size_kb
        return
    raise NotPossible("this kernel offers no large folios: see /sys/kernel/mm/transparent_hugepage")


def _words(flags: set[str]) -> str:
    return " ".join(name for name in system.FLAGS if name in flags) or "no flag"


def _on(lru: bool) -> str:
    return "on the LRU" if lru else "not on the LRU"


def _dirty(dirty: bool) -> str:
    return "dirty" if dirty else "clean"


PROBES: tuple[tuple[tuple[str, ...], str, Probe], ...] = (
    (("split",), "a large folio is one unit of head and tails, anonymous pages as page-types shows them", page_types),
    (("split", "pin-get", "unpin"), "a pin on any page refuses the split of the folio; after the unpin it splits",
     split_under_pin),
    (("split", "plain-put"), "so does a plain reference, though nobody may do I/O through it", split_under_reference),
    (("split",), "a dirty folio of a file system through iomap refuses the split", split_dirty_file),
    (("import-freeze", "reclaim-free"), "the count is frozen at its expected value or not at all: an extra reference "
     "refuses it", freeze_in_reclaim),
    (("import-freeze", "drain-all"), "extra references: drained, and what is left is busy until it is dropped",
     freeze_in_seal),
    (("lru-add", "drain-own"), "a page in this CPU's LRU batch leaves it in the same call", drain_own),
    (("lru-add", "drain-all"), "a page in another CPU's LRU batch is referenced until every CPU is drained", drain_all),
    (("import-map",), "a page not mapped writable is faulted in for write, and is dirty then", write_fault),
    (("writeback-flag", "writeback-end"), "writeback clears dirty and mapped-writable, and its flag at its end",
     writeback),
)  # fmt: skip
"""(rules, their behaviour in the model, probe) of every probe."""

_SECURE = "needs a secure guest and its ultravisor (s390)"
_INSIDE = "happens inside one system call, and leaves nothing that user space could read"
_TIMING = "a frozen count lasts for nanoseconds; user space cannot meet it at will"
_OTHERS = {
    _SECURE: ("vcpu-run", "vcpu-again", "import-mutex", "import-large", "import-arch", "import-export",
              "import-call", "import-end", "accessible-test", "accessible-pin", "accessible-export",
              "accessible-clear", "ring-teardown", "reclaim-export", "reboot-start", "reboot-quiet", "reboot-reset",
              "tamper", "access-start", "access-try", "access-put"),
    _INSIDE: ("import-trylock", "import-writeback", "wait-writeback", "sleep-refs", "split-lock", "device-start",
              "io-start", "io-end", "writeback-start", "writeback-lock", "writeback-io", "reclaim-start",
              "reclaim-lock", "reclaim-unmap", "reclaim-swap"),
    _TIMING: ("mapping-get", "speculative-get"),
}  # fmt: skip
"""Other rule -> why it is not compared with the kernel."""


def findings(folder: Path) -> list[Finding]:
    """Findings for every rule of the model, also for those without a probe. `folder`: for temporary files."""
    made = [_finding(rules, says, probe, folder) for rules, says, probe in PROBES]
    return made + [Finding(names, "", reason, IMPOSSIBLE) for reason, names in _OTHERS.items()]


def _finding(rules: tuple[str, ...], says: str, probe: Probe, folder: Path) -> Finding:
    """Run a probe. Returns its finding; IMPOSSIBLE, with the reason, where it cannot run."""
    try:
        with PageFlags() as flags:
            right, saw = probe(flags, folder)
    except NotPossible as error:
        return Finding(rules, says, str(error), IMPOSSIBLE)
    return Finding(rules, says, saw, AGREES if right else DIFFERS)
