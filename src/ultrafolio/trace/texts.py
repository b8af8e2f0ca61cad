"""The importers of event texts: perf script and trace-cmd report, read as touches or as requests."""

from __future__ import annotations

from functools import partial

from ultrafolio.trace import blocks, damon, faults, ftrace
from ultrafolio.trace.importer import MAX_ROWS, Format, Head, Kind, Only, Rows
from ultrafolio.trace.reader import Path


def _sniff(form: str, head: Head) -> bool:
    """Whether the file begins with events in ``form``, a key of ftrace.FORMS."""
    found = ftrace.first(head)
    return found is not None and found[0] == form and ftrace.short(found[1].name) not in damon.EVENTS


def _read(form: str, path: Path, kind: Kind, only: Only, notes: list[str]) -> Rows:
    read = faults.touches if kind == "touches" else blocks.requests
    return read(form, path, only, notes)


def _format(form: str, made_by: str) -> Format:
    return Format(
        form,
        made_by,
        ("touches", "requests"),
        partial(_sniff, form),
        partial(_read, form),
        bounds={"rows": MAX_ROWS},
        parts=("pid", "device"),
    )


PERF = _format("perf", "perf script -F +pid, of page faults or block requests")
TRACE_CMD = _format("trace-cmd", "trace-cmd report, of page faults or block requests")
