"""What a cluster did, held against the rules: its event stream replayed by the plain interpreter, step by step."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ultrafolio.engine import load
from ultrafolio.engine.interp import to_lists, write_back
from ultrafolio.engine.undo import Notes
from ultrafolio.errors import InputError
from ultrafolio.model import properties
from ultrafolio.model.layout import (
    ACTOR_KINDS,
    IDLE_PC,
    NOTHING,
    OPS,
    OUTCOMES,
    OWNERS,
    UV_BUSY,
    UV_INTEGRITY,
    UV_OK,
    WAITS,
    State,
)
from ultrafolio.model.rule import RULES
from ultrafolio.state.view import Live

from .events import LONGEST_ROUND, MOST_ROUNDS, Again, Entry, Kept, Made, StepEvent, Steps, Uvc, decode, encode
from .sections import Meta, decode_meta, encode_meta, join, split
from .store import Event

_ROLE = {"host": "host", "fault": "host", "guest": "guest", "device": "guest"}
"""Whose process runs the rules of each actor: a broken or hostile host is the host, too."""
MOST_AGAIN = 100_000
"""Entries that are done once more for one `again`; polling changes nothing, and is done once."""
KEPT_BROKEN = 100
"""Broken properties that a checkpoint names at most."""
ULTRAVISOR = ("uv_import", "uv_export", "uv_pin", "uv_unpin", "uv_reset", "uv_share", "uv_unshare")


@dataclass(slots=True)
class Verdict:
    """accepted   every step of the stream is one that the rules allow, with this very outcome
    steps      how many steps were accepted, from the first on;  calls: page calls outside of steps among them
    at         id of the entry that was refused, and why in one line
    enabled    what the rules would have allowed there: one line per actor, with the guard that refuses the others
    broken     (step number, property) for every property of model.md §5.1 that a step broke
    """

    accepted: bool = True
    steps: int = 0
    calls: int = 0
    at: str = ""
    why: str = ""
    enabled: list[str] = field(default_factory=list)
    broken: list[tuple[int, str]] = field(default_factory=list)


class _Refused(Exception):
    pass


@functools.cache
def _rules() -> Any:
    """The plain rules; a call to the ultravisor that was answered "busy" by injection is answered so here, too."""
    space = load.functions(lambda function: function)
    for name in ULTRAVISOR:
        space[name] = _recorded(name, space[name])
    return load.rules(space)


def _recorded(name: str, function: Callable[..., int]) -> Callable[..., int]:
    def called(s: Live, *arguments: int) -> int:
        if s.crossing is None:
            return function(s, *arguments)
        recorded = next((code for was, code in s.crossing if was == name), None)
        if recorded == UV_BUSY:
            return UV_BUSY
        code = function(s, *arguments)
        if recorded is not None and code != recorded:
            raise _Refused(f"the ultravisor answered {recorded} to {name}, the rules say {code}{_why(recorded, code)}")
        return code

    return called


def _why(recorded: int, code: int) -> str:
    """What leads to such a pair of answers, where something is known to."""
    if (recorded, code) != (UV_INTEGRITY, UV_OK):
        return ""
    return ": the exported page was written into, and not by a tamper step; a disk that reads into one does so"


class Replay:
    """A group's state as its stream says it came about. notes: what was written to it; the caller forgets them.
    recent: the last entries, which an `again` may mean."""

    def __init__(self, meta: Meta, state: State) -> None:
        self.meta, self._arrays = meta, state
        self.live = Live(*to_lists(state))
        self.live.crossing = None
        self.notes = Notes(self.live)
        self.verdict = Verdict()
        self.recent: deque[Entry] = deque(maxlen=LONGEST_ROUND)

    @classmethod
    def after(cls, kept: Kept) -> Replay:
        """The replay at a checkpoint."""
        meta = decode_meta(kept.meta)
        made = cls(meta, join(meta, kept.sections))
        made.recent.extend(map(decode, kept.recent))
        made.verdict = Verdict(steps=kept.steps, calls=kept.calls, broken=list(kept.broken))
        return made

    def kept(self) -> Kept:
        """A checkpoint of the present state."""
        state, told = self.state(), self.verdict
        recent = [encode(entry) for entry in self.recent]
        return Kept(encode_meta(self.meta), split(state), recent, told.steps, told.calls, told.broken[:KEPT_BROKEN])

    def entry(self, event: str, entry: Entry) -> bool:
        """Take an entry of the stream; False if the rules refuse it, and then the verdict says where and why."""
        taken = self.take(event, entry)
        if not isinstance(entry, Again):
            self.recent.append(entry)
        return taken

    def take(self, event: str, entry: Entry) -> bool:
        """As entry, for what is no entry of its own."""
        try:
            self._take(entry)
        except (_Refused, IndexError, OverflowError) as error:
            self.verdict.accepted, self.verdict.at, self.verdict.why = False, event, str(error)
            self.verdict.enabled = list(self._enabled())
            return False
        return True

    def _take(self, entry: Entry) -> None:
        if isinstance(entry, Steps):
            for step in entry.steps:
                self._step(step, entry.role)
        elif isinstance(entry, Uvc):
            self._call(entry)
        elif isinstance(entry, Again):
            self._again(entry)

    def _again(self, entry: Again) -> None:
        """Entries that came again. A round that leads back to where it began does so every time."""
        if not 0 < entry.entries <= len(self.recent) or not 0 < entry.rounds <= MOST_ROUNDS:
            raise _Refused(f"{entry.rounds} rounds of the last {entry.entries} entries: there are {len(self.recent)}")
        entries = list(self.recent)[-entry.entries :]
        if any(isinstance(one, Again | Made) for one in entries):
            raise _Refused("rounds of what is no round of steps")
        told, broken = self.verdict, len(self.verdict.broken)
        known = {name for _, name in told.broken}
        for number in range(entry.rounds):
            mark, steps, calls = self.notes.mark(), told.steps, told.calls
            for one in entries:
                self._take(one)
            if self.notes.back(mark):
                left = entry.rounds - 1 - number
                told.steps += left * (told.steps - steps)
                told.calls += left * (told.calls - calls)
                break
            if number * entry.entries > MOST_AGAIN:
                raise _Refused(f"{entry.rounds} rounds, of which each changes something")
        told.broken[broken:] = [one for one in told.broken[broken:] if one[1] not in known]

    def _step(self, step: StepEvent, role: str) -> None:
        s, t = self.live, step.actor
        if not 0 <= t < len(s.task):
            raise _Refused(f"there is no actor {t}")
        pc = s.task[t].pc
        if pc not in RULES:
            raise _Refused(f"{_name(s, t)} is dead and took a step")
        if _ROLE[RULES[pc].actor] != role:
            raise _Refused(f"{RULES[pc].name} of {_name(s, t)}: done by {role}, and it is {_ROLE[RULES[pc].actor]}'s")
        if RULES[pc].chooses and not 0 <= step.page < len(s.mm):
            raise _Refused(f"{RULES[pc].name} of {_name(s, t)}: there is no page {step.page}")
        about = properties.focus(s, t, step.page)
        was, mark = s.uv[about].state, self.notes.mark()
        s.crossing = step.results
        try:
            outcome = _rules().step(s, t, step.op, step.page)
            if outcome != step.outcome:
                chosen = f" ({OPS[step.op]} page {step.page})" if RULES[pc].chooses else ""
                raise _Refused(
                    f"{RULES[pc].name} of {_name(s, t)}{chosen}: "
                    f"the cluster says {_word(step.outcome)}, the rules say {_word(outcome)}"
                )
        except Exception:
            # what was refused did not happen
            self.notes.undo(mark)
            raise
        finally:
            s.crossing = None
        self.verdict.steps += 1
        wrong = properties.broken(s, t, pc, about, was, outcome)
        if wrong:
            self.verdict.broken.append((self.verdict.steps, properties.PROPERTIES[wrong]))

    def _call(self, call: Uvc) -> None:
        if not call.function.startswith("uv_") or not hasattr(load.interpreted(), call.function):
            raise _Refused(f"there is no page call {call.function}")
        mark = self.notes.mark()
        try:
            code = getattr(load.interpreted(), call.function)(self.live, *call.arguments)
        except TypeError as error:
            raise _Refused(str(error)) from None
        if code != call.result:
            self.notes.undo(mark)
            raise _Refused(
                f"{call.function}{tuple(call.arguments)}: the ultravisor says {call.result}, the rules say {code}"
            )
        self.verdict.calls += 1

    def _enabled(self) -> Iterator[str]:
        for t in range(len(self.live.task)):
            pc = self.live.task[t].pc
            if pc not in RULES:
                yield f"{_name(self.live, t)}: dead"
            elif pc == IDLE_PC[self.live.who[t].kind]:
                yield f"{_name(self.live, t)}: may start {RULES[pc].name}"
            else:
                mark = self.notes.mark()
                outcome = _rules().step(self.live, t, NOTHING, 0)
                self.notes.undo(mark)
                yield f"{_name(self.live, t)}: {RULES[pc].name} {'is enabled' if outcome > 0 else _word(outcome)}"

    def state(self) -> State:
        """The present state as arrays."""
        return write_back(State(*self.live), self._arrays)


def validate(events: Iterable[Event], stored: Callable[[], State] | None = None) -> Verdict:
    """Hold a group's stream against the rules; with `stored`, also that the state in the store is the one it leads to.

    InputError for a stream with nothing in it, or in which a part's layout is missing.
    """
    replay, started = None, []
    for event in events:
        with _written_by_parts(event):
            entry = decode(event.data)
            if isinstance(entry, Kept):
                replay = Replay.after(entry)
            elif replay is None:
                started.append(entry)
                replay = begin(started)
            elif not replay.entry(event.id, entry):
                return replay.verdict
            else:
                replay.notes.forget()
    if replay is None:
        raise _nothing(len(started))
    verdict = replay.verdict
    if stored is not None:
        differs = _difference(replay.state(), stored())
        if differs:
            verdict.accepted, verdict.at, verdict.why = False, "the end", differs
    return verdict


def begin(started: Sequence[Entry]) -> Replay | None:
    """The replay once every part has laid out its sections; None before."""
    made = [entry for entry in started if isinstance(entry, Made)]
    if {entry.role for entry in made} != {"ultravisor", "host", "guest"}:
        return None
    sections: dict[str, bytes] = {}
    for entry in made:
        sections |= entry.sections
    meta = decode_meta(next(entry.meta for entry in made if entry.role == "host"))
    return Replay(meta, join(meta, sections))


@contextmanager
def _written_by_parts(event: Event) -> Iterator[None]:
    """InputError for an entry over which the rules stumble: its bytes are no event, or a layout is none."""
    try:
        yield
    except InputError:
        raise
    except (msgspec.MsgspecError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"entry {event.id} of the stream",
            value=str(error),
            allowed="an event of ultrafolio.state.events",
            cause="a stream of something else, of another version, or changed",
        ) from None


def _nothing(entries: int) -> InputError:
    return InputError(
        "the stream says of no step where it began",
        value=f"{entries} entries",
        allowed="the layout of ultravisor, host and guest, then steps",
        cause="no such group, or it was never laid out",
        then="ultrafolio trace validate URL without --group names the groups",
    )


def _difference(replayed: State, stored: State) -> str:
    """Where the state in the store differs from the replayed one, or ""."""
    for name in OWNERS:
        left, right = getattr(replayed, name), getattr(stored, name)
        for at in range(len(left)):
            if left[at] != right[at]:
                return f"section {name}, record {at}: the stream leads to {left[at]}, the store holds {right[at]}"
    return ""


def _name(s: Any, t: int) -> str:
    return f"{ACTOR_KINDS[s.who[t].kind]} {t}"


def _word(outcome: int) -> str:
    return OUTCOMES[outcome] if outcome > 0 else f"waits for {WAITS[-outcome]}"


# ------------------------------------------------------------------------------------------ saved streams
STREAM_VERSION, READ_VERSIONS = 2, (1, 2)


class _Line(msgspec.Struct):
    """An entry of a saved stream. version: of the file's form; an entry without one is of version 1."""

    group: str
    id: str
    data: bytes
    version: int = 1


def saved(streams: Iterable[tuple[str, Iterable[Event]]]) -> bytes:
    """The content of a file of streams, one entry a line."""
    lines = (_Line(group, event.id, event.data, STREAM_VERSION) for group, stream in streams for event in stream)
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def read(file: Path) -> dict[str, list[Event]]:
    """The streams of a saved file, by group. InputError for a file that is none."""
    streams: dict[str, list[Event]] = {}
    try:
        for line in file.read_bytes().splitlines():
            entry = msgspec.json.decode(line, type=_Line)
            if entry.version not in READ_VERSIONS:
                raise InputError(
                    f"{file}: a saved stream of another version",
                    value=entry.version,
                    allowed=", ".join(map(str, READ_VERSIONS)),
                    cause="another ultrafolio wrote it",
                    then="validate it with the ultrafolio that saved it",
                )
            streams.setdefault(entry.group, []).append(Event(entry.id, entry.data))
    except (OSError, msgspec.MsgspecError) as error:
        raise InputError(
            f"{file}: not a saved stream",
            value=str(error),
            allowed="what trace validate --save wrote",
            then="ultrafolio trace validate redis://… --save FILE",
        ) from None
    return streams
