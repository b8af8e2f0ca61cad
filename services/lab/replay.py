"""A group's stream replayed for the page: one frame per entry, with changed pages, steps, and waits after it.

state.validate.Replay computes the state with the rules; neither this module nor the page repeats a rule. Frame 0 is the
group as laid out; frame n is the state after the n-th entry.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec
import numpy as np

from services.lab.codes import Array, Codes, enter, runs
from services.lab.looks import LOOKS, Look
from services.lab.waiting import ActorWait, waits_of
from ultrafolio.engine.load import interpreted
from ultrafolio.errors import InputError
from ultrafolio.export import text_in
from ultrafolio.model.designs import GUEST_MEMFD, S390
from ultrafolio.model.layout import ALLOWED, DONE, OPS, PINNED_SHARED
from ultrafolio.nouns import plural
from ultrafolio.state.events import Again, Entry, Kept, Made, StepEvent, Steps, Uvc, decode
from ultrafolio.state.roles import PARTS
from ultrafolio.state.sections import Meta, decode_meta, join
from ultrafolio.state.store import Event
from ultrafolio.state.validate import Replay

MAX_PAGES = 262_144
"""A GiB."""
MAX_FRAMES = 50_000
"""Frames kept of a replay; a longer one keeps its last frames."""
UV_WORDS = ("OK", "error", "busy", "integrity", "exit")
QUERIES = {"uv_shared": "ultravisor", "turn_come": "host", "is_reachable": "ultravisor"}
"""Calls that only read, and the role that answers them."""
OF_THE_HOST = ("close_pipe",)
"""Calls of guest_memfd that the host answers; the hardware answers all others."""
Column = Literal["guest", "host", "ultravisor", "device"]
_COLUMN: dict[str, Column] = {
    "guest": "guest", "host": "host", "device": "device", "fault": "device", "vmm": "device",
}  # fmt: skip
_PARTS = {role.name for role in PARTS}
_ID = re.compile(r"\d{1,20}-\d{1,20}", re.ASCII)


class Step(msgspec.Struct, frozen=True, array_like=True):
    """A row of the ladder diagram. calls: (column, function, result)"""

    column: Column
    what: str
    outcome: str
    calls: list[tuple[str, str, str]]


class Frame(msgspec.Struct, frozen=True):
    """Effect of one entry. runs: of changed pages (codes.py);  waits: None if unchanged."""

    n: int
    id: str
    role: str
    steps: list[Step]
    runs: list[int]
    waits: list[ActorWait] | None
    broken: list[str]


class Base(msgspec.Struct, frozen=True):
    """Start of a replay: the number of pages, and the runs of all of them (codes.py) after entry `n`. machine: what
    enforces the design, "" where that has one only."""

    n: int
    id: str
    title: str
    machine: str
    look: Look
    actors: list[str]
    pages: int
    runs: list[int]
    waits: list[ActorWait]


class ReplayError(msgspec.Struct, frozen=True):
    """Why a replay stopped before the end of its stream. enabled: steps that the rules allow there."""

    text: str
    enabled: list[str] = []


class GroupReplay:
    """The frames so far. One thread calls `feed`; any thread may call `since`."""

    def __init__(self, name: str, admit: Callable[[int], None] = lambda pages: None) -> None:
        """admit: called with the number of the group's pages before they take memory; it may raise InputError."""
        self.name, self.pages, self._admit = name, 0, admit
        self.base: Base | None = None
        self.frames: list[Frame] = []
        self.error: ReplayError | None = None
        self.complete = False
        """Whether the stream is complete: a saved one, read to its end."""
        self.last = "0"
        self._started: dict[str, Made] = {}
        self._lock = threading.Lock()

    def feed(self, events: Iterable[Event]) -> None:
        """Replay the next events of the stream. Stops at one that is invalid; `error` then says why."""
        for event in events:
            if self.error:
                return
            try:
                self._replay_event(event)
            except InputError as error:
                self.error = ReplayError(str(error))
            # altered bytes make records on which the rules raise these
            except (msgspec.MsgspecError, ArithmeticError, LookupError, TypeError, ValueError) as error:
                self.error = ReplayError(f"entry {event.id} of the stream is none that a part wrote: {error}")
            self.last = event.id

    def since(self, seen: str) -> tuple[Base | None, list[Frame], bool]:
        """Returns the base, the frames after entry `seen`, and whether a page at `seen` can append them.

        (None, [], False): there is no base yet, or `seen` is an entry that was not read here yet.
        """
        with self._lock:
            if not self.base:
                return None, [], False
            if seen == self.base.id:
                return self.base, self.frames[:], True
            # search from the end: nearly always the last frame
            at = next((i for i in range(len(self.frames) - 1, -1, -1) if self.frames[i].id == seen), None)
            if at is None and not (self.complete or self.error) and _order(seen) > _order(self.last):
                return None, [], False
            return self.base, self.frames[(at + 1 if at is not None else 0) :], at is not None

    def _replay_event(self, event: Event) -> None:
        """Replay one event: a checkpoint, a part of the layout, or a step."""
        entry = decode(event.data)
        if isinstance(entry, Kept):
            self._check_size(decode_meta(entry.meta), entry.sections)
            self._start(event, Replay.after(entry))
        elif self.base is None:
            self._begin(event, entry)
        else:
            self._add_frame(event, entry)

    # --------------------------------------------------------------------------------------------- the beginning
    def _begin(self, event: Event, entry: Entry) -> None:
        """Take one role's layout; with that of each role the replay starts. Raises InputError for any other entry."""
        if not isinstance(entry, Made) or entry.role not in _PARTS:
            raise InputError(
                f"entry {event.id} of the stream",
                value=type(entry).__name__,
                allowed="the layout of ultravisor, host and guest, then steps",
                cause="the stream was cut off at its beginning, or changed",
            )
        self._started[entry.role] = entry
        if set(self._started) != _PARTS:
            return
        meta = decode_meta(self._started["host"].meta)
        sections: dict[str, bytes] = {}
        for made in self._started.values():
            sections |= made.sections
        self._check_size(meta, sections)
        self._start(event, Replay(meta, join(meta, sections)))

    def _check_size(self, meta: Meta, sections: dict[str, bytes]) -> None:
        """Raises InputError if the constants or sizes are invalid, or the group is too large for the page."""
        pages = int(meta.cfg["pages"][0])
        if not 0 < pages <= MAX_PAGES or len(meta.who) != meta.cfg["actors"][0] or not 0 <= meta.vms <= 256:
            raise InputError(
                "size of the group",
                value=plural(pages, "page"),
                allowed=f"1 to {MAX_PAGES} pages",
                then="ultrafolio trace validate holds a stream of any size against the rules",
            )
        # a stream of some bytes is no group of many pages
        for name, data in {**dict.fromkeys(meta.sections.arrays, b""), **sections}.items():
            if name not in meta.sections.dtypes or len(data) != meta.size(name):
                raise InputError(
                    f"section {name} of the group",
                    value=plural(len(data), "byte"),
                    allowed="as many as its pages and actors take",
                )
        self._admit(pages)
        self.pages = pages

    def _start(self, event: Event, replay: Replay) -> None:
        """Start the replay: with the layout of the group, or at a checkpoint."""
        meta = replay.meta
        self._replay = replay
        self._live = self._replay.live
        self._undo_log = self._replay.undo_log
        self._codes = Codes(self._live, replay.arrays)
        self._at_base = self._codes.codes.copy()
        actors = [self._name(t) for t in range(len(meta.who))]
        self._waits = waits_of(self._live)
        n = self.frames[-1].n + 1 if self.frames else 0
        with self._lock:
            self.frames.clear()
            runs_of_all = _all(self._at_base)
            self.base = Base(
                n, event.id, meta.scenario, _machine(meta), LOOKS[meta.named], actors, len(self._at_base), runs_of_all,
                self._waits,
            )  # fmt: skip

    def _name(self, t: int) -> str:
        return f"{self._replay.design.kinds[self._live.who[t].kind]} {t}"

    # --------------------------------------------------------------------------------------------- frame by frame
    def _add_frame(self, event: Event, entry: Entry) -> None:
        """Replay an entry and append its frame: changed pages, steps, and waits."""
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
                entries = plural(entry.entries, "entry", "entries")
                what = f"the same round of {entries}, {plural(entry.rounds, 'time')} more"
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
        waits = waits_of(self._live)
        changed = self._codes.update(self._undo_log.pages())
        self._undo_log.clear()
        n = self.frames[-1].n + 1 if self.frames else self.base.n + 1
        broken = [name for _, name in self._replay.verdict.broken[wrong:]]
        frame = Frame(n, event.id, role, steps, changed, waits if waits != self._waits else None, broken)
        self._waits = waits
        verdict = self._replay.verdict
        with self._lock:
            if verdict.accepted or steps:
                self.frames.append(frame)
            if not verdict.accepted:
                at = f"entry {event.id}, after {len(steps)} of its steps"
                self.error = ReplayError(f"the rules refuse {at}: {verdict.why}", verdict.enabled)
            if len(self.frames) > MAX_FRAMES:
                self._drop_frames(MAX_FRAMES // 5)

    def _step(self, event: Event, entry: Steps, step: StepEvent, steps: list[Step]) -> bool:
        """Replay one step and append its row to `steps`. False if the rules refuse it."""
        s, t, design = self._live, step.actor, self._replay.design
        known = 0 <= t < len(s.task) and s.task[t].pc in design.rules
        pc = s.task[t].pc if known else 0
        page = interpreted(design).focus(s, t, step.page) if known else 0
        if not self._replay.take(event.id, Steps(entry.role, [step])):
            return False
        steps.append(
            Step(
                _COLUMN[design.rules[pc].actor],
                self._what(step, pc, page),
                design.outcomes[step.outcome],
                [_call(*result) if design is S390 else _asked(*result) for result in step.results],
            )
        )
        return True

    def _what(self, step: StepEvent, pc: int, page: int) -> str:
        """Returns a step in the words of export.text."""
        design = self._replay.design
        rule, who = design.rules[pc], self._name(step.actor)
        what = text_in.of(design.name).deed(rule.name, OPS[step.op], page)
        names_page = rule.tells_page and (rule.name, step.outcome) != ("pin-get", DONE)
        fails = rule.call == "pin" and self._live.uv[page].state != PINNED_SHARED
        return f"{who} {what}" + (f" page {page}" if names_page else "") + (" fails" if fails else "")

    def _drop_frames(self, count: int) -> None:
        """Drop the first `count` frames: apply their changes to the base."""
        assert self.base is not None
        waits = self.base.waits
        for frame in self.frames[:count]:
            enter(self._at_base, frame.runs)
            waits = frame.waits if frame.waits is not None else waits
        end = self.frames[count - 1]
        self.base = msgspec.structs.replace(self.base, n=end.n, id=end.id, runs=_all(self._at_base), waits=waits)
        del self.frames[:count]


def _all(codes: Array) -> list[int]:
    """Returns the codes of all pages as a list of runs."""
    return runs(np.arange(len(codes)), codes)


def _machine(meta: Meta) -> str:
    """Returns the name of what enforces a group's design, "" where that has one machine only."""
    machines = meta.design.machines
    return machines[int(meta.cfg["machine"][0])] if len(machines) > 1 else ""


def _order(identity: str) -> tuple[int, ...]:
    """Returns a sort key of an entry's id; any other text sorts first."""
    return tuple(map(int, identity.split("-"))) if _ID.fullmatch(identity) else ()


def _uv(code: int) -> str:
    """Returns the word for a result of an ultravisor call."""
    return UV_WORDS[code] if 0 <= code < len(UV_WORDS) else str(code)


def _call(function: str, code: int) -> tuple[str, str, str]:
    """Returns (column, function, answer) of a call to another role."""
    if function in QUERIES:
        return QUERIES[function], function, "yes" if code else "no"
    if function.startswith("uv_"):
        return "ultravisor", function, _uv(code)
    if function.startswith("hw_"):
        return "ultravisor", function, "allowed" if code == ALLOWED else f"exception {code:#x}"
    return "host", function, ""


def _asked(function: str, code: int) -> tuple[str, str, str]:
    """Returns (column, function, answer) of a call in a step of guest_memfd: to the host, or to the hardware."""
    if function in QUERIES:
        return QUERIES[function], function, "yes" if code else "no"
    answer = GUEST_MEMFD.outcomes[code] if 0 < code < len(GUEST_MEMFD.outcomes) else ""
    return "host" if function in OF_THE_HOST else "ultravisor", function, answer
