"""Kernel events as text: the output of ``perf script`` and ``trace-cmd report``, and ftrace's ``trace`` file.

    perf script       comm  tid [cpu] seconds.micros: [period] system:event: what the event says
    trace-cmd report  comm-tid  [cpu] [flags] seconds.micros: event: what the event says

Read are page faults as touches (``faults``), block requests (``blocks``) and DAMON's regions (``damon``).
Sources: tools/perf/builtin-script.c, trace-cmd's report, Documentation/trace/ftrace.rst.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from ultrafolio.nouns import plural
from ultrafolio.trace.importer import Head
from ultrafolio.trace.reader import Lines

_TIME = rb"(?P<seconds>[0-9]{1,9})\.(?P<fraction>[0-9]{6,9}):"
PERF = re.compile(
    rb"\s*(?P<comm>\S.{0,15}?)\s+(?P<pid>[0-9]{1,10}|-1|x+)(?:/(?P<tid>[0-9]{1,10}|-1))?\s+"
    rb"(?:\[(?:[0-9]{1,5})\]\s+|x+\s+)?" + _TIME + rb"\s+(?:[0-9]{1,20}\s+)?"
    rb"(?P<event>[a-z][\w.-]*(?::[\w.-]+)?):\s*(?P<rest>.*)"
)
TRACE_CMD = re.compile(
    rb"\s*(?P<comm>\S.{0,15}?)-(?P<tid>[0-9]{1,10})\s+(?:\(\s*(?P<pid>[0-9]{1,10}|-+)\)\s+)?"
    rb"\[[0-9]{1,5}\]\s+(?:[\w.#!]{4,6}\s+)?" + _TIME + rb"\s+(?P<event>[a-z][\w.-]*(?::[\w.-]+)?):\s*(?P<rest>.*)"
)
FORMS = {"perf": PERF, "trace-cmd": TRACE_CMD}
EXPECTED = {
    "perf": "'comm tid [cpu] seconds.micros: event: …' as perf script prints it, a line of a call chain, or '# …'",
    "trace-cmd": "'comm-tid [cpu] flags seconds.micros: event: …' as trace-cmd report prints it, or '# …'",
}
_CHAIN = re.compile(rb"\s+[0-9a-f]{1,16} \S.* \(.*\)")
_OF_EVENT = re.compile(rb"\s[0-9]+\.[0-9]{6,9}: ")
"""The time of an event; in a line of a call chain the two were joined, and an event would be lost."""
_ABOUT = re.compile(rb"#.*|cpus=[0-9]+|version = .*|CPU:? ?[0-9]+ is empty")
LOST = re.compile(rb"CPU:[0-9]+ \[(?:LOST )?([0-9]+) EVENTS(?: DROPPED)?\]|.* PERF_RECORD_LOST .*", re.IGNORECASE)


class Event(NamedTuple):
    """One event. pid: the process, None where the line names the thread only; ns: since boot."""

    lineno: int
    text: bytes
    comm: bytes
    pid: int | None
    tid: int
    ns: int
    name: str
    rest: bytes


def parsed(form: str, lineno: int, text: bytes) -> Event | None:
    """The event on a line, None for any other line; ``form`` is a key of FORMS."""
    match = FORMS[form].fullmatch(text)
    if match is None:
        return None
    pid, tid = match["pid"], match["tid"]
    if form == "perf" and tid is None:
        pid, tid = None, pid
    ns = int(match["seconds"]) * 10**9 + int(match["fraction"].ljust(9, b"0"))
    name = match["event"].decode("ascii", "replace")
    return Event(lineno, text, match["comm"], _number(pid), _number(tid) or 0, ns, name, match["rest"])


def _number(text: bytes | None) -> int | None:
    """Returns the decimal number in a text, None if there is none."""
    return int(text) if text is not None and text.isdigit() else None


def events(form: str, source: Lines) -> Iterator[Event]:
    """The events of a text, in order. Raises InputError for a line that is no event, call chain or comment."""
    chain = False
    lost = 0
    for lineno, text in source:
        if not text or _ABOUT.fullmatch(text):
            continue
        if LOST.fullmatch(text):
            lost += 1
            continue
        event = parsed(form, lineno, text)
        if event is not None:
            chain = form == "perf"
            yield event
        elif not (chain and _CHAIN.fullmatch(text) and not _OF_EVENT.search(text)):
            raise source.bad(lineno, text, EXPECTED[form])
    if lost:
        source.notes.append(f"events were lost, by {plural(lost, 'line')} that says so: the buffer was too small")


def first(head: Head) -> tuple[str, Event] | None:
    """The form of the text and its first event, if the file begins like one."""
    for text in head.lines:
        if not text or _ABOUT.fullmatch(text) or LOST.fullmatch(text):
            continue
        found = ((form, parsed(form, 1, text)) for form in FORMS)
        return next(((form, event) for form, event in found if event is not None), None)
    return None


_MODIFIERS = "ukhGHpPSDWeIbR"
"""Letters behind an event's name in `perf record -e` (perf-list(1), EVENT MODIFIERS)."""


def short(name: str) -> str:
    """An event's name without its system and without perf's modifiers: page-faults:u is page-faults."""
    system, _, event = name.partition(":")
    return event if event.strip(_MODIFIERS) else system


def skipped(others: Counter[str], notes: list[str]) -> None:
    """Add a note with the numbers of events of other kinds."""
    if others:
        names = ", ".join(f"{n} {name}" for name, n in sorted(others.items())[:5])
        notes.append(f"left out: {plural(sum(others.values()), 'event')} of other kinds: {names}")
