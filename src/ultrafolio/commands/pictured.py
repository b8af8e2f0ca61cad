"""`ultrafolio trace show --format chrome|heat`: a file of steps as a timeline, and as a heat line."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ultrafolio.check.verdicts.replay import NotCertified
from ultrafolio.commands import written
from ultrafolio.engine.interp import to_lists
from ultrafolio.engine.load import interpreted
from ultrafolio.errors import InputError
from ultrafolio.export import timeline, trace_file
from ultrafolio.export.chrome import chrome
from ultrafolio.export.heat import heat
from ultrafolio.export.timeline import STEP_NS, Slice, Timeline, Waiting
from ultrafolio.model.designs import DESIGNS, S390
from ultrafolio.state import validate
from ultrafolio.state.events import Again, Entry, Kept, Steps, decode
from ultrafolio.state.store import Event
from ultrafolio.state.validate import Replay
from ultrafolio.trace.events import word_of

MOST_STEPS = 200_000
"""Most steps of a picture; a viewer needs about 1 KB for each."""
FORMATS = ("text", "json", "chrome", "heat")


def picture(file: Path, form: str, first: int | None) -> str:
    """Returns the steps in a file, at most the `first` ones, as a Chrome trace or a heat line.

    Raises InputError for a file without steps, with more than MOST_STEPS of them, or that the rules refuse.
    """
    made, about = _timeline(file, first)
    return chrome(made, about).rstrip("\n") if form == "chrome" else heat(made.pages)


def _timeline(file: Path, first: int | None) -> tuple[Timeline, dict[str, Any]]:
    kind, head, steps = written.read(file)
    if kind == "counterexample":
        return _of_story(file, first)
    if kind == "stream of a cluster":
        return _of_stream(file, first)
    if kind == "trace of a run":
        events = list(islice(steps, MOST_STEPS + 1 if first is None else first))
        _bounded(file, len(events), first)
        try:
            design = DESIGNS[head.get("design", S390.name)]
            return timeline.of_run(head["actors"], events, design), {"command": head.get("command", "")}
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise InputError(
                f"{file}: a step is damaged",
                value=str(error),
                allowed="the lines of run --trace, unchanged",
                then="ultrafolio run --trace FILE, once more",
            ) from None
    raise InputError(f"{file}: a {kind} has no steps", allowed="a counterexample, a trace of a run, or a stream")


def _bounded(file: Path, steps: int, first: int | None) -> None:
    """Raise InputError if a picture has too many steps."""
    if steps <= MOST_STEPS:
        return
    raise InputError(
        f"{file}: too many steps for one picture",
        value=first or f"more than {MOST_STEPS}",
        allowed=f"up to {MOST_STEPS} steps",
        then=f"ultrafolio trace show {file} --format chrome --first {MOST_STEPS}",
    )


def _of_story(file: Path, first: int | None) -> tuple[Timeline, dict[str, Any]]:
    made = trace_file.read(file)
    path = made.path[:first]
    _bounded(file, len(path), first)
    about = {"scenario": made.scenario, "policy": made.policy, "claim": made.text, "rules": made.rules}
    try:
        return timeline.of_story(made.system, path, made.loop), about
    except NotCertified as error:
        raise InputError(
            f"{file}: a step is not possible",
            value=str(error),
            allowed="a counterexample that the rules certify",
            cause="the file was changed, or made under other rules",
            then=f"ultrafolio trace verify {file}",
        ) from None


# ------------------------------------------------------------------------------------------ streams of a cluster
def _of_stream(file: Path, first: int | None) -> tuple[Timeline, dict[str, Any]]:
    streams = validate.read(file)
    if len(streams) != 1:
        raise InputError(
            f"{file}: streams of several groups",
            value=", ".join(streams),
            allowed="one group",
            then="ultrafolio trace validate URL --group GROUP --save FILE",
        )
    ((group, events),) = streams.items()
    reader = _Stream(file, first)
    for event in events:
        with validate.written_by_parts(event):
            going_on = reader.take(event)
        if not going_on:
            break
    if reader.made is None:
        raise InputError(f"{file}: the stream says of no step where it began", then=f"ultrafolio trace show {file}")
    return reader.made, {"group": group}


class _Stream:
    """Replays a group's stream and draws its steps.

    The time of a step is that of its entry in the store, in whole milliseconds where this tells it; steps that the
    store does not tell apart follow one another every STEP_NS.
    """

    def __init__(self, file: Path, first: int | None) -> None:
        self.file, self.first = file, first
        self.made: Timeline | None = None
        self._started: list[Entry] = []
        self._now = self._last = 0
        self._zero: int | None = None

    def take(self, event: Event) -> bool:
        """Take an entry of the stream; False after the last step that is asked for."""
        entry = decode(event.data)
        if isinstance(entry, Kept) or self.made is None:
            self._begin(entry)
            return True
        made = self.made
        for one in _single(entry):
            if self.first is not None and len(made.slices) >= self.first:
                return False
            _bounded(self.file, len(made.slices) + 1, self.first)
            self._step(made, event.id, one)
        return True

    def _begin(self, entry: Entry) -> None:
        if isinstance(entry, Kept):
            self._replay = Replay.after(entry)
        else:
            self._started.append(entry)
            begun = validate.begin(self._started)
            if begun is None:
                return
            self._replay = begun
        self._state = to_lists(self._replay.state())
        if self.made is None:
            self.made = Timeline(timeline.actors_of(self._state))
        self._waiting = Waiting(self._state)

    def _step(self, made: Timeline, event: str, entry: Entry) -> None:
        """Replay an entry of at most one step and draw it. Raises InputError if the rules refuse it."""
        before, at = self._state, self._time(event)
        if not self._replay.entry(event, entry):
            raise InputError(
                f"{self.file}: the rules refuse entry {event}",
                value=self._replay.verdict.why,
                allowed="a stream that trace validate accepts",
                then=f"ultrafolio trace validate {self.file}",
            )
        self._replay.undo_log.clear()
        self._state = to_lists(self._replay.state())
        if isinstance(entry, Again):
            about = {"entries": entry.entries, "rounds": entry.rounds}
            made.add(Slice(self._last, "again", at, at + STEP_NS, about))
        if isinstance(entry, Steps):
            step = entry.steps[0]
            self._last = step.actor
            self._draw(made, before, step.actor, (step.page, step.outcome), at, event)

    def _draw(self, made: Timeline, before: Any, t: int, did: tuple[int, int], at: int, event: str) -> None:
        """Draw a step of actor `t`: the page that it chose, its outcome."""
        design = self._replay.design
        page = int(interpreted(design).focus(before, t, did[0]))
        about = {"page": page, "outcome": word_of(did[1], design), "entry": event}
        made.add(Slice(t, design.rules[before.task[t].pc].name, at, at + STEP_NS, about))
        seen = len(self._waiting.flows)
        self._waiting.step(before, self._state, t, did[1], at)
        made.flows += self._waiting.flows[seen:]

    def _time(self, event: str) -> int:
        """Returns the time of an entry, ns since the first one: ids of the store are MILLISECONDS-NUMBER."""
        stamp = event.partition("-")[0]
        told = int(stamp) * 1_000_000 if "-" in event and stamp.isdigit() else 0
        if self._zero is None:
            self._zero = told
        self._now = max(self._now + STEP_NS, told - self._zero)
        return self._now


def _single(entry: Entry) -> Iterator[Entry]:
    """The same entry as entries of one step each."""
    if isinstance(entry, Steps):
        yield from (Steps(entry.role, [step]) for step in entry.steps)
    else:
        yield entry
