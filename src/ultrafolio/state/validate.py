"""Validation: replays a cluster's event stream with the plain interpreter, and compares each step with the rules."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ultrafolio.engine import load
from ultrafolio.engine.interp import to_lists, write_back
from ultrafolio.engine.undo import UndoLog
from ultrafolio.errors import InputError
from ultrafolio.model.design import Design
from ultrafolio.model.designs import S390, PerDesign
from ultrafolio.model.layout import NOTHING, OPS, OWNERS, UV_BUSY, UV_INTEGRITY, UV_OK, State
from ultrafolio.nouns import plural
from ultrafolio.state.view import LIVE
from ultrafolio.waits.tables import BUSY

from .crossing import WALLS
from .events import LONGEST_ROUND, MOST_ROUNDS, Again, Entry, Kept, Made, StepEvent, Steps, Uvc, decode, encode
from .roles import PARTS, ROLE_OF_ACTOR
from .sections import Meta, decode_meta, encode_meta, join, split
from .store import Event

MOST_AGAIN = 100_000
"""Most entries replayed for one `again`; a round that changes nothing is replayed once."""
KEPT_BROKEN = 100
"""Most broken properties in a checkpoint."""
ULTRAVISOR = ("uv_import", "uv_export", "uv_pin", "uv_unpin", "uv_reset", "uv_share", "uv_unshare")


@dataclass(slots=True)
class Verdict:
    """accepted   whether the rules allow every step of the stream, with its outcome
    steps      number of accepted steps before the first refused one;  calls: page calls outside of steps among them
    at         id of the refused entry;  why: the reason in one line
    enabled    what the rules allow there: one line per actor, with the guard that refuses it
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


@PerDesign
def _rules(design: Design) -> Any:
    """Returns the plain rules of a design, whose calls of another role are held against those of the stream. A call of
    the ultravisor of s390 that was answered "busy" by injection is answered "busy" again."""
    space = load.functions(lambda function: function, design=design)
    names = ULTRAVISOR if design is S390 else {name for walls in WALLS[design.name].values() for name in walls}
    for name in names:
        space[name] = (_recorded if design is S390 else _in_order)(name, space[name])
    return load.rules(space)


def _recorded(name: str, function: Callable[..., int]) -> Callable[..., int]:
    def called(s: Any, *arguments: int) -> int:
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


def _in_order(name: str, function: Callable[..., int]) -> Callable[..., int]:
    """Returns a function of the rules that is held against the next call of the recorded step."""

    def called(s: Any, *arguments: int) -> int:
        code = int(function(s, *arguments) or 0)
        if s.crossing is None:
            return code
        recorded = s.crossing.pop(0) if s.crossing else ("nothing", 0)
        if recorded != (name, code):
            said = f"{recorded[0]}, answered {recorded[1]}"
            raise _Refused(f"the step asked another part: {said}; the rules say {name}, answered {code}")
        return code

    return called


def _why(recorded: int, code: int) -> str:
    """Returns a known cause of this difference of results, or ""."""
    if (recorded, code) != (UV_INTEGRITY, UV_OK):
        return ""
    return ": the exported page was written into, and not by a tamper step; a disk that reads into one does so"


class Replay:
    """A group's state, replayed from its stream. notes: the writes to it, which the caller clears.
    arrays: the state with which it began, until `state` is called;
    recent: the last entries, to which an `again` refers; refused: whether an import was refused, to be tried again."""

    def __init__(self, meta: Meta, state: State) -> None:
        self.meta, self.design, self.arrays = meta, meta.design, state
        self.live: Any = LIVE[meta.named](*to_lists(state))
        self.live.crossing = None
        self.undo_log = UndoLog(self.live)
        self.verdict = Verdict()
        self.recent: deque[Entry] = deque(maxlen=LONGEST_ROUND)
        self.refused = False

    @classmethod
    def after(cls, kept: Kept) -> Replay:
        """Returns the replay at a checkpoint."""
        meta = decode_meta(kept.meta)
        made = cls(meta, join(meta, kept.sections))
        made.recent.extend(map(decode, kept.recent))
        made.verdict = Verdict(steps=kept.steps, calls=kept.calls, broken=list(kept.broken))
        return made

    def kept(self) -> Kept:
        """Returns a checkpoint of the present state."""
        state, told = self.state(), self.verdict
        recent = [encode(entry) for entry in self.recent]
        return Kept(encode_meta(self.meta), split(state), recent, told.steps, told.calls, told.broken[:KEPT_BROKEN])

    def entry(self, event: str, entry: Entry) -> bool:
        """Replay an entry of the stream. False if the rules refuse it; the verdict then says where and why."""
        taken = self.take(event, entry)
        if not isinstance(entry, Again):
            self.recent.append(entry)
        return taken

    def take(self, event: str, entry: Entry) -> bool:
        """As `entry`, without counting it as an entry of the stream."""
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
        """Replay repeated entries. A round that ends in its starting state is replayed once."""
        if not 0 < entry.entries <= len(self.recent) or not 0 < entry.rounds <= MOST_ROUNDS:
            asked = f"{plural(entry.rounds, 'round')} of the last {plural(entry.entries, 'entry', 'entries')}"
            raise _Refused(f"{asked}: there are {len(self.recent)}")
        entries = list(self.recent)[-entry.entries :]
        if any(isinstance(one, Again | Made) for one in entries):
            raise _Refused("rounds of what is no round of steps")
        told, broken = self.verdict, len(self.verdict.broken)
        known = {name for _, name in told.broken}
        for number in range(entry.rounds):
            mark, steps, calls = self.undo_log.mark(), told.steps, told.calls
            for one in entries:
                self._take(one)
            if self.undo_log.is_unchanged(mark):
                left = entry.rounds - 1 - number
                told.steps += left * (told.steps - steps)
                told.calls += left * (told.calls - calls)
                break
            if number * entry.entries > MOST_AGAIN:
                raise _Refused(f"{plural(entry.rounds, 'round')}, of which each changes something")
        told.broken[broken:] = [one for one in told.broken[broken:] if one[1] not in known]

    def _step(self, step: StepEvent, role: str) -> None:
        s, t = self.live, step.actor
        if not 0 <= t < len(s.task):
            raise _Refused(f"there is no actor {t}")
        pc = s.task[t].pc
        if pc not in self.design.rules:
            raise _Refused(f"{self._name(t)} is dead and took a step")
        rule, rules = self.design.rules[pc], load.interpreted(self.design)
        if ROLE_OF_ACTOR[rule.actor] != role:
            raise _Refused(f"{rule.name} of {self._name(t)}: done by {role}, and it is {ROLE_OF_ACTOR[rule.actor]}'s")
        if rule.chooses and not 0 <= step.page < len(s.mm):
            raise _Refused(f"{rule.name} of {self._name(t)}: there is no page {step.page}")
        about = rules.focus(s, t, step.page)
        was, mark = s.uv[about].state, self.undo_log.mark()
        s.crossing = list(step.results)
        try:
            outcome = _rules(self.design).step(s, t, step.op, step.page)
            if outcome != step.outcome:
                chosen = f" ({OPS[step.op]} page {step.page})" if rule.chooses else ""
                raise _Refused(
                    f"{rule.name} of {self._name(t)}{chosen}: "
                    f"the cluster says {self._word(step.outcome)}, the rules say {self._word(outcome)}"
                )
            if self.design is not S390 and s.crossing:
                raise _Refused(f"{rule.name} of {self._name(t)}: asked another part {s.crossing[0][0]}, the rules not")
        except Exception:
            # a refused step changes nothing
            self.undo_log.undo(mark)
            raise
        finally:
            s.crossing = None
        self.verdict.steps += 1
        self.refused = self.refused or outcome in BUSY
        wrong = rules.broken(s, t, pc, about, was, outcome)
        if wrong:
            self.verdict.broken.append((self.verdict.steps, self.design.properties[wrong]))

    def _call(self, call: Uvc) -> None:
        if (
            self.design is not S390
            or not call.function.startswith("uv_")
            or not hasattr(load.interpreted(), call.function)
        ):
            raise _Refused(f"there is no page call {call.function}")
        mark = self.undo_log.mark()
        try:
            code = getattr(load.interpreted(), call.function)(self.live, *call.arguments)
        except TypeError as error:
            raise _Refused(str(error)) from None
        if code != call.result:
            self.undo_log.undo(mark)
            raise _Refused(
                f"{call.function}{tuple(call.arguments)}: the ultravisor says {call.result}, the rules say {code}"
            )
        self.verdict.calls += 1

    def _enabled(self) -> Iterator[str]:
        rules = self.design.rules
        for t in range(len(self.live.task)):
            pc = self.live.task[t].pc
            if pc not in rules:
                yield f"{self._name(t)}: dead"
            elif pc == self.design.idle[self.live.who[t].kind]:
                yield f"{self._name(t)}: may start {rules[pc].name}"
            else:
                mark = self.undo_log.mark()
                outcome = _rules(self.design).step(self.live, t, NOTHING, 0)
                self.undo_log.undo(mark)
                yield f"{self._name(t)}: {rules[pc].name} {'is enabled' if outcome > 0 else self._word(outcome)}"

    def _name(self, t: int) -> str:
        return f"{self.design.kinds[self.live.who[t].kind]} {t}"

    def _word(self, outcome: int) -> str:
        """Returns the word for an outcome; a stream may have any number there."""
        words = self.design.outcomes if outcome > 0 else self.design.waits
        said = words[abs(outcome)] if abs(outcome) < len(words) else str(outcome)
        return said if outcome > 0 else f"waits for {said}"

    def state(self) -> State:
        """Returns the present state as arrays."""
        return write_back(type(self.arrays)(*self.live), self.arrays)


def validate(events: Iterable[Event], stored: Callable[[], State] | None = None) -> Verdict:
    """Replay a group's stream with the rules. With `stored`, also compare the final state with the stored one.

    Raises InputError for an empty stream, or one without the layout of a role.
    """
    return replayed(events, stored).verdict


def replayed(events: Iterable[Event], stored: Callable[[], State] | None = None) -> Replay:
    """As `validate`; returns the replay at the end of the stream, or at the refused entry."""
    replay, started = None, []
    for event in events:
        with written_by_parts(event):
            entry = decode(event.data)
            if isinstance(entry, Kept):
                replay = Replay.after(entry)
            elif replay is None:
                started.append(entry)
                replay = begin(started)
            elif not replay.entry(event.id, entry):
                return replay
            else:
                replay.undo_log.clear()
    if replay is None:
        raise _nothing(len(started))
    verdict = replay.verdict
    if stored is not None:
        differs = _difference(replay.state(), stored())
        if differs:
            verdict.accepted, verdict.at, verdict.why = False, "the end", differs
    return replay


def origin(events: Iterable[Event]) -> tuple[Meta, State]:
    """Returns the constants and the state with which a stream begins: those of its layout, or of its checkpoint.

    Raises InputError for a stream without either."""
    started: list[Entry] = []
    for event in events:
        with written_by_parts(event):
            entry = decode(event.data)
            started.append(entry)
            replay = Replay.after(entry) if isinstance(entry, Kept) else begin(started)
            if replay:
                return replay.meta, replay.state()
    raise _nothing(len(started))


def begin(started: Sequence[Entry]) -> Replay | None:
    """Returns the replay, None until all roles have laid out their sections."""
    made = [entry for entry in started if isinstance(entry, Made)]
    if {entry.role for entry in made} != {part.name for part in PARTS}:
        return None
    sections: dict[str, bytes] = {}
    for entry in made:
        sections |= entry.sections
    meta = decode_meta(next(entry.meta for entry in made if entry.role == "host"))
    return Replay(meta, join(meta, sections))


@contextmanager
def written_by_parts(event: Event) -> Iterator[None]:
    """Turn exceptions of the rules into InputError: the entry's bytes are no event, or no valid layout."""
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
        value=plural(entries, "entry", "entries"),
        allowed="the layout of ultravisor, host and guest, then steps",
        cause="no such group, or it was never laid out",
        then="ultrafolio trace validate URL without --group names the groups",
    )


def _difference(replayed: State, stored: State) -> str:
    """Returns the first difference of the stored state from the replayed one, or ""."""
    for name in OWNERS:
        left, right = getattr(replayed, name), getattr(stored, name)
        for at in range(len(left)):
            if left[at] != right[at]:
                return f"section {name}, record {at}: the stream leads to {left[at]}, the store holds {right[at]}"
    return ""


# ------------------------------------------------------------------------------------------ saved streams
STREAM_VERSION, READ_VERSIONS = 2, (1, 2)


class _Line(msgspec.Struct):
    """An entry of a saved stream. version: of the file format, 1 if missing."""

    group: str
    id: str
    data: bytes
    version: int = 1


def saved(streams: Iterable[tuple[str, Iterable[Event]]]) -> bytes:
    """Returns the content of a file of streams, one entry a line."""
    lines = (_Line(group, event.id, event.data, STREAM_VERSION) for group, stream in streams for event in stream)
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def read(file: Path) -> dict[str, list[Event]]:
    """Returns the streams of a saved file, by group. Raises InputError for another file."""
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
