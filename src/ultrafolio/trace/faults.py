"""Page faults as touches: ``exceptions:page_fault_user`` and ``_kernel``, or perf's software event ``page-faults``.

A fault is the first touch of a page, or one after the page was taken away: later touches leave no trace, so a
recording of faults has fewer touches than the program. Sources: arch/x86/include/asm/trace/exceptions.h,
arch/x86/include/asm/trap_pf.h.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator

from ultrafolio.errors import InputError
from ultrafolio.model.layout import PAGE_SHIFT
from ultrafolio.nouns import plural
from ultrafolio.trace import ftrace
from ultrafolio.trace.importer import TOUCH, HoldsNone, Only, Rows, batched, gathered, runs
from ultrafolio.trace.reader import Lines, Path, open_stream, quoted, shown

TRACED = ("page_fault_user", "page_fault_kernel")
SOFTWARE = ("page-faults", "faults", "minor-faults", "major-faults")
_FIELDS = re.compile(rb"address=0x([0-9a-f]{1,16}) ip=.+ error_code=0x([0-9a-f]{1,8})")
WRITE = 1 << 1
USER_END = 1 << 63
BATCH = 65536
TELLS_THREADS = {"perf": "perf script -F +pid", "trace-cmd": "trace-cmd record -O record-tgid"}
RECORD = "perf record -e exceptions:page_fault_user PROGRAM; perf script -F +pid > mine.perf"


class _Faults:
    def __init__(self, form: str, source: Lines, only: Only) -> None:
        self.form, self.source, self.pid = form, source, only.pid
        self.seen: Counter[int] = Counter()  # faults of each process
        self.names: dict[int, set[bytes]] = {}
        self.threads = self.blind = self.kernel = 0
        self.others: Counter[str] = Counter()

    def rows(self) -> Iterator[tuple[int, int]]:
        """(page, write) of each fault of the process asked for, or of all."""
        for event in ftrace.events(self.form, self.source):
            name = ftrace.short(event.name)
            if name not in TRACED and name not in SOFTWARE:
                self.others[event.name] += 1
                continue
            address, write = self._traced(event) if name in TRACED else self._software(event)
            who = event.tid if event.pid is None else event.pid
            self.threads += event.pid is None
            self.seen[who] += 1
            self.names.setdefault(who, set()).add(event.comm)
            if self.pid not in (None, who):
                continue
            if address >= USER_END:
                self.kernel += 1
                continue
            yield address >> PAGE_SHIFT, write

    def _traced(self, event: ftrace.Event) -> tuple[int, int]:
        """Returns (address, 1 for a write or 0) of an event exceptions:page_fault_user."""
        match = _FIELDS.fullmatch(event.rest)
        if match is None:
            raise self.source.bad(event.lineno, event.text, "'address=0x… ip=… error_code=0x…'")
        return int(match[1], 16), int(int(match[2], 16) & WRITE != 0)

    def _software(self, event: ftrace.Event) -> tuple[int, int]:
        """Only ``-F +addr`` prints the address, before the instruction's; without it the latter stands alone."""
        fields = event.rest.split()
        hexes = [at for at, field in enumerate(fields) if re.fullmatch(rb"[0-9a-f]{1,16}", field)]
        if not hexes or hexes[0] != 0 or (len(fields) > 1 and len(hexes) < 2):
            raise self.source.bad(
                event.lineno,
                event.text,
                "the address of the fault, then that of the instruction",
                cause="perf script printed the instruction's address only",
                then="perf script -F +pid,+addr > mine.perf",
            )
        self.blind += 1
        return int(fields[0], 16), 0

    def check(self) -> None:
        """InputError for several processes, for one that is not there, and for a recording without any fault."""
        path = self.source.path
        name = os.fspath(path)
        listed = ", ".join(
            f"{pid} ({shown(b'/'.join(sorted(self.names[pid])))}, {plural(n, 'fault')})"
            for pid, n in self.seen.most_common(8)
        ) + (f" and {len(self.seen) - 8} more" if len(self.seen) > 8 else "")
        if not self.seen:
            raise HoldsNone(
                f"{name}: no page fault among the events",
                value=", ".join(sorted(self.others)[:5]),
                allowed=f"{' or '.join(TRACED)}, or page-faults with addresses",
                then=RECORD,
            )
        if self.pid is not None and self.pid not in self.seen:
            raise InputError(f"{name}: no page fault of process {self.pid}", value=str(self.pid), allowed=listed)
        if self.pid is None and len(self.seen) > 1:
            most = self.seen.most_common(1)[0][0]
            cause = "each process has an address space of its own"
            if self.threads:
                cause = f"the numbers are of threads ({TELLS_THREADS[self.form]} tells the process), or {cause}"
            raise InputError(
                f"{name}: page faults of {len(self.seen)} processes in one recording",
                value=listed,
                allowed="one process",
                cause=cause,
                then=f"ultrafolio trace import {quoted(path)} --pid {most} --save one.lackey",
            )

    def note(self) -> None:
        """A note on the limits of the counts."""
        notes = self.source.notes
        ftrace.skipped(self.others, notes)
        if self.kernel:
            notes.append(f"left out: {plural(self.kernel, 'fault')} at kernel addresses")
        if self.blind:
            notes.append("page-faults does not say whether a fault is a write: all are taken as reads")
        for pid, names in self.names.items():
            if self.pid in (None, pid) and len(names) > 1:
                notes.append(f"process {pid} had {len(names)} names: an exec puts a new address space in one recording")


def touches(form: str, path: Path, only: Only, notes: list[str]) -> Rows:
    """The faults of one process, rows of ``TOUCH``, in order. InputError as ``_Faults.check`` and for a bad line."""
    with open_stream(path) as stream:
        faults = _Faults(form, Lines(path, stream, notes), only)
        batches = list(batched(faults.rows(), TOUCH, BATCH))
        faults.check()
        faults.note()
    if not batches:
        raise InputError(
            f"{os.fspath(path)}: all page faults are at kernel addresses", allowed="addresses below 2^63", then=RECORD
        )
    return runs(gathered(path, batches))
