"""What the kernel did with pages: page_ref and writeback tracepoints and probes, as text of ftrace, trace-cmd or perf.

The events are those that rules name (Rule.traced). A probe of a function is known by the function in brackets, or by
its own name: its entry "(uv_pin_shared+0x0/0x88) paddr=0x1000", its return "(caller+0x1c <- uv_pin_shared) ret=0x0".
Sources: include/trace/events/page_ref.h and writeback.h, Documentation/trace/kprobetrace.rst, mm/gup.c.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ultrafolio.errors import InputError
from ultrafolio.model import rules  # noqa: F401  (it fills RULES)
from ultrafolio.model.bounds import fits
from ultrafolio.model.layout import PAGE_SIZE
from ultrafolio.model.rule import RULES
from ultrafolio.trace import ftrace
from ultrafolio.trace.importer import Head
from ultrafolio.trace.reader import Lines, Path, open_stream

SPELLINGS: dict[str, tuple[str, ...]] = {
    "page_ref_freeze": ("page_ref_freeze",),
    "page_ref_unfreeze": ("page_ref_unfreeze",),
    "try_grab_folio": ("try_grab_folio", "try_grab_page", "page_ref_mod"),
    "unpin_user_page": ("unpin_user_page", "page_ref_mod_and_test"),
    "folio_wait_writeback": ("folio_wait_writeback", "wait_on_page_writeback"),
    "folio_start_writeback": ("__folio_start_writeback", "__test_set_page_writeback"),
    "folio_end_writeback": ("folio_end_writeback", "end_page_writeback"),
    "uv_pin_shared": ("uv_pin_shared",),
    "uv_convert_from_secure": ("uv_convert_from_secure", "uv_convert_from_secure_folio"),
    "split_folio": ("split_huge_page_to_list_to_order", "split_huge_page_to_list"),
}
"""Event of Rule.traced -> what shows it in a recording, by kernel: tracepoints, and functions with a probe. Of several
that a file has, the first counts."""
_NAMED = {name for rule in RULES.values() for name in rule.shown}
fits(
    f"events that only rules or only recordings know: {', '.join(sorted(_NAMED ^ set(SPELLINGS)))}",
    len(_NAMED | set(SPELLINGS)),
    len(_NAMED & set(SPELLINGS)),
    "trace/kernel.py: SPELLINGS, or @rule(traced=...)",
)
_EVENT_OF = {spelling: event for event, spellings in SPELLINGS.items() for spelling in spellings}
PIN_BIAS = 1024
"""GUP_PIN_COUNTING_BIAS: a pin of a small folio adds so much to its count."""
_BY_VALUE = {"page_ref_mod": PIN_BIAS, "page_ref_mod_and_test": -PIN_BIAS}
"""Tracepoints that show a pin or an unpin, with the value that does; other values are other references."""
RESULTS = ("uv_pin_shared", "uv_convert_from_secure", "split_folio")
"""Events that are a function's return, with its result; of a file without the return, its entry, without a result."""
SPLIT = "split_folio"
"""Inside of this, references are frozen and thawed for its own sake."""
UNITS = {"pfn": 1, "page": 64, "gaddr": PAGE_SIZE}
"""What names a page -> the difference between two neighbours: its frame, its struct page, its address in the guest."""
_FIELDS = {
    "pfn": ("pfn", 1),
    "paddr": ("pfn", PAGE_SIZE),
    "page": ("page", 1),
    "folio": ("page", 1),
    "gaddr": ("gaddr", 1),
}
"""Field of an event -> what of UNITS it says, and how many times over."""
MOST_EVENTS = 20_000
"""Most events of a recording that is held against the rules."""
_FIELD = re.compile(rb"\b([a-z_]\w{0,30})=(-?(?:0x[0-9a-f]{1,16}|0|[1-9][0-9]{0,19}))\b")
_ENTRY, _RETURN = (
    re.compile(rb"\((\w+)\+0x[0-9a-f]+(?:/0x[0-9a-f]+)?\)"),
    re.compile(rb"<- (\w+)(?:\+0x[0-9a-f/x]+)?\)"),
)
_RETURN_NAME = re.compile(r"(\w+?)_{1,2}ret(?:urn)?")


@dataclass(frozen=True, slots=True)
class Seen:
    """An event. name: of SPELLINGS; fields: what names its page, of UNITS; succeeded: None if it does not say."""

    lineno: int
    text: str
    name: str
    tid: int
    fields: Mapping[str, int] = field(default_factory=dict)
    succeeded: bool | None = None


@dataclass(slots=True)
class _Raw:
    """An event before it is known what else the file has."""

    seen: ftrace.Event
    spelling: str
    returns: bool
    fields: dict[str, int]


def read(path: Path, notes: list[str]) -> list[Seen]:
    """Returns the events of a recording that rules name, in order. Adds a note for what was left out.

    Raises InputError for another file, a malformed line, and for none or more than MOST_EVENTS of these events.
    """
    found = ftrace.first(Head(path))
    if found is None:
        raise InputError(
            f"{path}: not a recording of kernel events",
            allowed="the text of ftrace's trace file, trace-cmd report or perf script",
            then="trace-cmd report > FILE",
        )
    others: Counter[str] = Counter()
    with open_stream(path) as stream:
        source = Lines(path, stream, notes)
        raw = list(_raw(path, found[0], source, others))
    if not raw:
        raise InputError(
            f"{path}: no event that a rule names",
            value=", ".join(sorted(others)[:5]),
            allowed=", ".join(SPELLINGS),
            cause="these events were not enabled",
            then="trace-cmd record -e page_ref -e writeback:folio_wait_writeback",
        )
    made = list(_joined(raw, others))
    ftrace.skipped(others, notes)
    return made


def _raw(path: Path, form: str, source: Lines, others: Counter[str]) -> Iterator[_Raw]:
    """The events with a name of SPELLINGS; the others are counted."""
    count = 0
    for event in ftrace.events(form, source):
        name, returns = _named(event)
        fields = {key.decode(): int(value, 0) for key, value in _FIELD.findall(event.rest)}
        wanted = _BY_VALUE.get(name)
        if name not in _EVENT_OF or (wanted is not None and fields.get("val") != wanted):
            others[name] += 1
            continue
        count += 1
        if count > MOST_EVENTS:
            raise InputError(
                f"{path}: more than {MOST_EVENTS} events to hold against the rules",
                allowed=f"up to {MOST_EVENTS}",
                cause="the recording covers more than one scenario",
                then="record less, or cut the file",
            )
        yield _Raw(event, name, returns, fields)


def _named(event: ftrace.Event) -> tuple[str, bool]:
    """The function of a probe, or the name of the tracepoint; and whether it is a return."""
    if match := _RETURN.search(event.rest):
        return match[1].decode(), True
    if match := _ENTRY.match(event.rest):
        return match[1].decode(), False
    name = ftrace.short(event.name)
    if name not in _EVENT_OF and (probe := _RETURN_NAME.fullmatch(name)) and probe[1] in _EVENT_OF:
        return probe[1], True
    return name, False


def _joined(raw: list[_Raw], others: Counter[str]) -> Iterator[Seen]:
    """Entries and returns of a function as one event; of several spellings the first that the file has."""
    have = {(one.spelling, one.returns) for one in raw}
    spelled = {
        event: next((one for one in spellings if (one, True) in have or (one, False) in have), "")
        for event, spellings in SPELLINGS.items()
    }
    open_calls: dict[tuple[int, str], dict[str, int]] = {}
    for one in raw:
        event, tid = _EVENT_OF[one.spelling], one.seen.tid
        fields = {_FIELDS[name][0]: value // _FIELDS[name][1] for name, value in one.fields.items() if name in _FIELDS}
        waits_for_return = event in RESULTS and not one.returns and (one.spelling, True) in have
        if one.spelling != spelled[event] or (one.returns and event not in RESULTS):
            others[one.spelling] += 1
        elif waits_for_return:
            open_calls[tid, event] = fields
        elif (tid, SPLIT) in open_calls and event != SPLIT:
            others[f"{one.spelling} of a split"] += 1
        else:
            fields = fields or open_calls.pop((tid, event), {})
            open_calls.pop((tid, event), None)
            yield Seen(one.seen.lineno, one.seen.text.decode("ascii", "backslashreplace").strip(), event, tid, fields,
                       _succeeded(one, event))  # fmt: skip


def _succeeded(one: _Raw, event: str) -> bool | None:
    """Whether the event's result is a success: a freeze returns 1, a function 0."""
    result = one.fields.get("ret")
    if result is None or (event in RESULTS and not one.returns):
        return None
    if event == "page_ref_freeze":
        return result != 0
    return result == 0 if event in RESULTS else None


def bases(seen: list[Seen], given: Mapping[str, int], pages: int) -> Iterator[dict[str, int]]:
    """What fields of UNITS may say of page 0: as given; else so that the least value in the recording is a page of the
    scenario, page 0 first, then 1 …"""
    least: dict[str, int] = {}
    for one in seen:
        for name, value in one.fields.items():
            least[name] = min(value, least.get(name, value))
    unknown = sorted(set(least) - set(given))
    for first in itertools.product(range(pages), repeat=len(unknown)):
        guess = {name: least[name] - UNITS[name] * page for name, page in zip(unknown, first, strict=True)}
        yield guess | dict(given)


def page_of(one: Seen, first: Mapping[str, int]) -> int | None:
    """Returns the page that an event names, by what its fields say of page 0 (`first`); None if it names none. It may
    be a page that a scenario does not have."""
    for name, value in one.fields.items():
        return (value - first[name]) // UNITS[name]
    return None
