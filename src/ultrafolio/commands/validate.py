"""`ultrafolio trace validate`: read streams from Redis or a file, validate them, and print the verdicts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ultrafolio import durable
from ultrafolio.errors import InputError
from ultrafolio.model.layout import State
from ultrafolio.nouns import plural
from ultrafolio.state import validate
from ultrafolio.state.sections import DTYPES, decode_meta, join
from ultrafolio.state.store import Event

from .stores import has_group, opened

SCHEMES = ("redis://", "rediss://", "unix://")
Stream = tuple[str, list[Event], Callable[[], State] | None]


def run(source: str, groups: Sequence[str], save: Path | None, as_json: bool) -> int:
    """Validate the streams of `source`. Returns 0 if all are accepted and no property is broken, else 1."""
    if not source.startswith(SCHEMES):
        return _all(source, list(_saved(Path(source), groups)), save, as_json)
    with opened(source) as store:
        return _all(source, list(_live(store, groups)), save, as_json)


def _all(source: str, streams: list[Stream], save: Path | None, as_json: bool) -> int:
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
        verdict = validate.validate(events, stored)
        wrong += not verdict.accepted or bool(verdict.broken)
        if as_json:
            click.echo(json.dumps({"group": group, **asdict(verdict)}))
        else:
            _print(group, verdict)
    return 1 if wrong else 0


def _live(store: Any, groups: Sequence[str]) -> Iterator[Stream]:
    there = store.groups()
    for group in groups or there:
        has_group(group, there)
        yield group, list(store.history(group)), stored(store, group)


def stored(store: Any, group: str) -> Callable[[], State]:
    def now() -> State:
        sections = store.read(group, ["meta", *(name for name in DTYPES if name != "seal")])
        return join(decode_meta(sections.pop("meta")), sections)

    return now


def _saved(file: Path, groups: Sequence[str]) -> Iterator[Stream]:
    streams = validate.read(file)
    for group in groups or streams:
        has_group(group, list(streams))
        yield group, streams[group], None


def _print(group: str, verdict: validate.Verdict) -> None:
    counted = plural(verdict.steps, "step") + (f" and {plural(verdict.calls, 'page call')}" if verdict.calls else "")
    if verdict.accepted:
        click.echo(f"{group}: accepted: {counted}")
    else:
        click.echo(f"{group}: not accepted at {verdict.at}, after {counted}: {verdict.why}")
        for line in verdict.enabled:
            click.echo(f"    {line}")
    for number, name in verdict.broken:
        click.echo(f"{group}: step {number} breaks: {name}")
