"""A group's stream as a film: a frame per entry, with what it changed on the map, its steps, and who waits after it.

The state comes from state.validate.Replay, so from the rules themselves; nothing of them is written again here or in
the page. Frame 0 is the group as it was laid out; frame n is what the n-th entry after that led to.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable

import msgspec

from services.lab.waiting import Told, told
from ultrafolio.engine.load import interpreted
from ultrafolio.errors import InputError
from ultrafolio.export.text import deed
from ultrafolio.model.layout import ACTOR_KINDS, ALLOWED, DONE, OPS, OUTCOMES, PINNED_SHARED, SECURE
from ultrafolio.model.rule import RULES
from ultrafolio.state.events import Again, Entry, Kept, Made, StepEvent, Steps, Uvc, decode
from ultrafolio.state.sections import DTYPES, Meta, decode_meta, join
from ultrafolio.state.store import Event
from ultrafolio.state.validate import Replay

MAX_PAGES = 65_536
MAX_FRAMES = 50_000
"""Frames kept of a film; of a longer one, the last so many."""
UV_WORDS = ("OK", "error", "busy", "integrity", "exit")
QUESTIONS = {"uv_shared": "ultravisor", "turn_come": "host"}
"""Calls that change nothing, and whom they ask."""
_COLUMN = {"guest": "guest", "host": "host", "device": "device", "fault": "device"}
_ID = re.compile(r"\d{1,20}-\d{1,20}", re.ASCII)
_ROLES = {"ultravisor", "host", "guest"}


class Step(msgspec.Struct, frozen=True, array_like=True):
    """A row of the ladder. column: guest, host, ultravisor, device;  calls: (column, function, what it returned)"""

    column: str
    what: str
    outcome: str
    calls: list[tuple[str, str, str]]


class Frame(msgspec.Struct, frozen=True):
    """What one entry did. pages: page, code, page, code, … of the pages that changed;  waits: None as before."""

    n: int
    id: str
    role: str
    steps: list[Step]
    pages: list[int]
    waits: list[Told] | None
    broken: list[str]


class Base(msgspec.Struct, frozen=True):
    """Where a film begins: all pages' codes after entry `n`."""

    n: int
    id: str
    title: str
    actors: list[str]
    pages: list[int]
    waits: list[Told]


class Trouble(msgspec.Struct, frozen=True):
    """Why a film ended before its stream did. enabled: what the rules would have allowed there."""

    text: str
    enabled: list[str] = []


class Film:
    """The frames so far. One thread feeds it with events; any thread may look."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.base: Base | None = None
        self.frames: list[Frame] = []
        self.trouble: Trouble | None = None
        self.whole = False
        """Whether nothing will come any more: a saved stream was read to its end."""
        self.last = "0"
        self._started: dict[str, Made] = {}
        self._lock = threading.Lock()

    def feed(self, events: Iterable[Event]) -> None:
        """Take the next events of the stream, up to one that cannot be: `trouble` says why, and no more is taken."""
        for event in events:
            if self.trouble:
                return
            try:
                self._take(event)
            except InputError as error:
                self.trouble = Trouble(str(error))
            # what tampered bytes make of records, rules then stumble over
            except (msgspec.MsgspecError, ArithmeticError, LookupError, TypeError, ValueError) as error:
                self.trouble = Trouble(f"entry {event.id} of the stream is none that a part wrote: {error}")
            self.last = event.id

    def since(self, seen: str) -> tuple[Base | None, list[Frame], bool]:
        """The base, the frames after the entry `seen`, and whether a page that saw it can go on from there.

        No base: there is none yet, or the page saw more than was read here so far.
        """
        with self._lock:
            if not self.base:
                return None, [], False
            if seen == self.base.id:
                return self.base, self.frames[:], True
            # looked for from the end, where it nearly always is
            at = next((i for i in range(len(self.frames) - 1, -1, -1) if self.frames[i].id == seen), None)
            if at is None and not (self.whole or self.trouble) and _order(seen) > _order(self.last):
                return None, [], False
            return self.base, self.frames[(at + 1 if at is not None else 0) :], at is not None

    def _take(self, event: Event) -> None:
        entry = decode(event.data)
        if isinstance(entry, Kept):
            self._sized(decode_meta(entry.meta), entry.sections)
            self._start(event, Replay.after(entry))
        elif self.base is None:
            self._begin(event, entry)
        else:
            self._add(event, entry)

    # --------------------------------------------------------------------------------------------- the beginning
    def _begin(self, event: Event, entry: Entry) -> None:
        if not isinstance(entry, Made) or entry.role not in _ROLES:
            raise InputError(
                f"entry {event.id} of the stream",
                value=type(entry).__name__,
                allowed="the layout of ultravisor, host and guest, then steps",
                cause="the stream was cut off at its beginning, or changed",
            )
        self._started[entry.role] = entry
        if set(self._started) != _ROLES:
            return
        meta = decode_meta(self._started["host"].meta)
        sections: dict[str, bytes] = {}
        for made in self._started.values():
            sections |= made.sections
        self._sized(meta, sections)
        self._start(event, Replay(meta, join(meta, sections)))

    @staticmethod
    def _sized(meta: Meta, sections: dict[str, bytes]) -> None:
        """InputError for a group that is no group, or too large for the page."""
        pages = int(meta.cfg["pages"][0])
        if not 0 < pages <= MAX_PAGES or len(meta.who) != meta.cfg["actors"][0] or not 0 <= meta.vms <= 256:
            raise InputError(
                "size of the group",
                value=f"{pages} pages",
                allowed=f"1 to {MAX_PAGES} pages",
                then="ultrafolio trace validate holds a stream of any size against the rules",
            )
        for name, data in sections.items():
            if name not in DTYPES or len(data) != meta.blank(name).nbytes:
                raise InputError(
                    f"section {name} of the group",
                    value=f"{len(data)} bytes",
                    allowed="as many as its pages and actors take",
                )

    def _start(self, event: Event, replay: Replay) -> None:
        """The film begins here: as the group was laid out, or at a checkpoint."""
        meta = replay.meta
        pages = int(meta.cfg["pages"][0])
        self._replay = replay
        self._live = self._replay.live
        self._notes = self._replay.notes
        self._codes = [self._code(page) for page in range(pages)]
        actors = [self._name(t) for t in range(len(meta.who))]
        self._said = told(self._live)
        n = self.frames[-1].n + 1 if self.frames else 0
        with self._lock:
            self.frames.clear()
            self.base = Base(n, event.id, meta.scenario, actors, self._codes[:], self._said)

    def _name(self, t: int) -> str:
        return f"{ACTOR_KINDS[self._live.who[t].kind]} {t}"

    # --------------------------------------------------------------------------------------------- frame by frame
    def _add(self, event: Event, entry: Entry) -> None:
        assert self.base is not None
        steps: list[Step] = []
        wrong = len(self._replay.verdict.broken)
        if isinstance(entry, Steps):
            for one in entry.steps:
                if not self._step(event, entry, one, steps):
                    break
            self._replay.recent.append(entry)
            role = entry.role
        elif isinstance(entry, Again):
            if self._replay.entry(event.id, entry):
                what = f"the same round of {entry.entries} entries, {entry.rounds} times more"
                steps.append(Step("guest", what, "polls", []))
            role = "guest"
        elif isinstance(entry, Uvc):
            if self._replay.entry(event.id, entry):
                steps.append(Step("ultravisor", f"{entry.function}{tuple(entry.arguments)}", _uv(entry.result), []))
            role = "ultravisor"
        else:
            raise InputError(
                f"entry {event.id} of the stream",
                value=type(entry).__name__,
                allowed="steps, after the group was laid out",
            )
        waits = told(self._live)
        changed = self._changed()
        n = self.frames[-1].n + 1 if self.frames else self.base.n + 1
        broken = [name for _, name in self._replay.verdict.broken[wrong:]]
        frame = Frame(n, event.id, role, steps, changed, waits if waits != self._said else None, broken)
        self._said = waits
        verdict = self._replay.verdict
        with self._lock:
            if verdict.accepted or steps:
                self.frames.append(frame)
            if not verdict.accepted:
                at = f"entry {event.id}, after {len(steps)} of its steps"
                self.trouble = Trouble(f"the rules refuse {at}: {verdict.why}", verdict.enabled)
            if len(self.frames) > MAX_FRAMES:
                self._forget(MAX_FRAMES // 5)

    def _step(self, event: Event, entry: Steps, step: StepEvent, steps: list[Step]) -> bool:
        """One step by the rules, and its row; False if they refuse it."""
        s, t = self._live, step.actor
        known = 0 <= t < len(s.task) and s.task[t].pc in RULES
        pc = s.task[t].pc if known else 0
        page = interpreted().focus(s, t, step.page) if known else 0
        if not self._replay.take(event.id, Steps(entry.role, [step])):
            return False
        steps.append(
            Step(
                _COLUMN[RULES[pc].actor],
                self._what(step, pc, page),
                OUTCOMES[step.outcome],
                [_call(*result) for result in step.results],
            )
        )
        return True

    def _what(self, step: StepEvent, pc: int, page: int) -> str:
        """A step in words, as check.show tells it."""
        rule, who = RULES[pc], self._name(step.actor)
        what = deed(rule.name, OPS[step.op], page)
        told = rule.tells_page and (rule.name, step.outcome) != ("pin-get", DONE)
        fails = rule.call == "pin" and self._live.uv[page].state != PINNED_SHARED
        return f"{who} {what}" + (f" page {page}" if told else "") + (" fails" if fails else "")

    def _changed(self) -> list[int]:
        """Page, code, page, code, … of the pages that look different since the last frame."""
        found, run = [], interpreted()
        about: set[int] = set()
        for page in self._notes.pages():
            # a folio's fields stand on its head
            first = run.head(self._live, page)
            about.add(page)
            about.update(range(first, min(len(self._codes), first + (1 << self._live.mm[first].order))))
        self._notes.forget()
        for page in sorted(about):
            code = self._code(page)
            if code != self._codes[page]:
                self._codes[page] = code
                found += [page, code]
        return found

    def _code(self, page: int) -> int:
        """All that the map shows of a page in 31 bits, which page/model.js takes apart."""
        s, run = self._live, interpreted()
        uv, mm = s.uv[page].state, s.mm[page]
        bit = bool(s.mm[run.bit_page(s, page)].arch)
        flags = (
            (uv, 3),
            (bit, 1),
            (bit and uv != SECURE, 1),
            (mm.locked, 1),
            (mm.frozen, 1),
            (mm.writeback, 2),
            (mm.dirty, 1),
            (s.io[page].flying, 1),
            (run.head(s, page) == page, 1),
        )
        code = at = 0
        for value, width in (*flags, (mm.pins, 6), (mm.longs, 6), (mm.refs, 7)):
            code |= max(0, min(int(value), (1 << width) - 1)) << at
            at += width
        return code

    def _forget(self, count: int) -> None:
        """Begin later: what the first frames changed becomes part of the base."""
        assert self.base is not None
        pages, waits = self.base.pages[:], self.base.waits
        for frame in self.frames[:count]:
            for at in range(0, len(frame.pages), 2):
                pages[frame.pages[at]] = frame.pages[at + 1]
            waits = frame.waits if frame.waits is not None else waits
        end = self.frames[count - 1]
        self.base = msgspec.structs.replace(self.base, n=end.n, id=end.id, pages=pages, waits=waits)
        del self.frames[:count]


def _order(identity: str) -> tuple[int, ...]:
    """Ids of entries by which comes first; what is no id comes before all."""
    return tuple(map(int, identity.split("-"))) if _ID.fullmatch(identity) else ()


def _uv(code: int) -> str:
    return UV_WORDS[code] if 0 <= code < len(UV_WORDS) else str(code)


def _call(function: str, code: int) -> tuple[str, str, str]:
    """A call across a wall: whom it asked, what, and the answer."""
    if function in QUESTIONS:
        return QUESTIONS[function], function, "yes" if code else "no"
    if function.startswith("uv_"):
        return "ultravisor", function, _uv(code)
    if function.startswith("hw_"):
        return "ultravisor", function, "allowed" if code == ALLOWED else f"exception {code:#x}"
    return "host", function, ""
