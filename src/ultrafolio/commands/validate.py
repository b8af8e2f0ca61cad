"""`ultrafolio trace validate`: read streams from Redis or a file, validate them, and print the verdicts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ultrafolio import durable, shipped
from ultrafolio.errors import InputError
from ultrafolio.export.observed_stream import of_stream
from ultrafolio.model.layout import State
from ultrafolio.names import find
from ultrafolio.nouns import plural
from ultrafolio.state import validate
from ultrafolio.state.sections import decode_meta, join, of_state
from ultrafolio.state.store import Event

from .stores import has_group, opened

SCHEMES = ("redis://", "rediss://", "unix://")
Stream = tuple[str, list[Event], Callable[[], State] | None]


Show = Callable[[str, list[Event], validate.Replay], str]
"""What is printed of a group: of its name, its stream and its replay."""


def run(source: str, groups: Sequence[str], save: Path | None, show: Show) -> int:
    """Validate the streams of `source`. Returns 0 if all are accepted and no property is broken, else 1."""
    if not source.startswith(SCHEMES):
        return _all(source, list(_saved(Path(source), groups)), save, show)
    with opened(source) as store:
        return _all(source, list(_live(store, groups)), save, show)


def _all(source: str, streams: list[Stream], save: Path | None, show: Show) -> int:
    if not streams:
        raise InputError(
            "nothing to validate",
            value=source,
            allowed="at least one folio group",
            cause="no group was laid out",
            then="python examples/lay_out.py SCENARIO POLICY",
        )
    if save:
        durable.replace(save, validate.saved([(group, events) for group, events, _ in streams]))
    wrong = 0
    for group, events, stored in streams:
        replay = validate.replayed(events, stored)
        wrong += not replay.verdict.accepted or bool(replay.verdict.broken)
        click.echo(show(group, events, replay))
    return 1 if wrong else 0


def _live(store: Any, groups: Sequence[str]) -> Iterator[Stream]:
    there = store.groups()
    for group in groups or there:
        has_group(group, there)
        yield group, list(store.history(group)), stored(store, group)


def stored(store: Any, group: str) -> Callable[[], State]:
    def now() -> State:
        sections = store.read(group, of_state())
        return join(decode_meta(sections.pop("meta")), sections)

    return now


def _saved(file: Path, groups: Sequence[str]) -> Iterator[Stream]:
    streams = validate.read(file)
    for group in groups or streams:
        has_group(group, list(streams))
        yield group, streams[group], None


def as_json(group: str, events: list[Event], replay: validate.Replay) -> str:
    """A group's verdict as a JSON object."""
    return json.dumps({"group": group, **asdict(replay.verdict)})


def as_text(group: str, events: list[Event], replay: validate.Replay) -> str:
    """A group's verdict in sentences."""
    verdict = replay.verdict
    counted = plural(verdict.steps, "step") + (f" and {plural(verdict.calls, 'page call')}" if verdict.calls else "")
    if verdict.accepted:
        lines = [f"{group}: accepted: {counted}"]
    else:
        lines = [f"{group}: not accepted at {verdict.at}, after {counted}: {verdict.why}"]
        lines += [f"    {line}" for line in verdict.enabled]
    return "\n".join(lines + [f"{group}: step {number} breaks: {name}" for number, name in verdict.broken])


def in_one_line(scenario: Path | None) -> Show:
    """The line that decides. scenario: the file that groups were laid out from; else the shipped ones are compared."""
    files = [scenario] if scenario else shipped.shipped("scenarios")
    stories = {find.stem(str(file)): find.found(file) for file in files}
    return lambda group, events, replay: of_stream(replay, group, events, stories)
