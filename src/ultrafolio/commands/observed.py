"""`ultrafolio trace validate --scenario`: kernel events against the rules."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict
from pathlib import Path

import click

from ultrafolio import api
from ultrafolio.errors import InputError, one_of
from ultrafolio.explore.observed import Answer, Event, Search
from ultrafolio.model import scenario
from ultrafolio.nouns import plural
from ultrafolio.trace import kernel
from ultrafolio.trace.kernel import Seen

MOST_GUESSES = 64
"""Most ways to say which page is page 0 that are tried."""


def run(file: Path, where: Path, policy: str, first: tuple[str, ...], as_json: bool) -> int:
    """Hold a recording against a scenario under a policy. Returns 0 accepted, 1 not accepted, 3 unknown."""
    given = dict(map(_base, first))
    story = api.Scenario.find(where)
    system = scenario.system(story.story, api.Policy.find(policy, story).choices)
    notes: list[str] = []
    seen = kernel.read(file, notes)
    made = _best(system, seen, given, notes)
    if made is None:
        raise InputError(
            f"{file}: no event of a page of the scenario",
            value=" ".join(first),
            allowed=f"events of {plural(len(system.state.uv), 'page')}",
            cause="--page0 names another page",
            then="ultrafolio trace validate FILE --scenario SCENARIO --policy POLICY --page0 pfn=0x…",
        )
    events, answer = made
    if as_json:
        click.echo(json.dumps({"recording": str(file), "events": len(events), **asdict(answer), "notes": notes}))
    else:
        _print(file, events, answer, notes)
    return {True: 0, False: 1, None: 3}[answer.accepted]


def _best(
    system: scenario.System, seen: list[Seen], given: dict[str, int], notes: list[str]
) -> tuple[list[Event], Answer] | None:
    """The events, with what the search says of them, for the first way to say which page is page 0 that is accepted, or
    else that explains most. None if no event is of a page of the scenario. Adds notes."""
    best: tuple[list[Event], Answer, dict[str, int], list[str]] | None = None
    for bases in itertools.islice(kernel.bases(seen, given, len(system.state.uv)), MOST_GUESSES):
        told: list[str] = []
        events = list(_events(seen, bases, len(system.state.uv), told))
        if not events:
            continue
        answer = Search(system, {event.name for event in events}).run(events)
        if best is None or (bool(answer.accepted), answer.shown) > (bool(best[1].accepted), best[1].shown):
            best = (events, answer, bases, told)
        if answer.accepted:
            break
    if best is None:
        return None
    guessed = ", ".join(f"{name}={value:#x}" for name, value in sorted(best[2].items()) if name not in given)
    notes += best[3]
    notes += [f"page 0 is taken to be {guessed}, of which most is explained; --page0 says another"] if guessed else []
    return best[0], best[1]


def _base(word: str) -> tuple[str, int]:
    """FIELD=NUMBER as a pair."""
    name, _, text = word.partition("=")
    if name not in kernel.UNITS:
        raise one_of("--page0: unknown field", name, kernel.UNITS, then="--page0 pfn=0x8000")
    try:
        return name, int(text, 0)
    except ValueError:
        raise InputError(f"--page0 {word}", allowed=f"{name}=NUMBER, such as {name}=0x8000") from None


def _events(seen: list[Seen], bases: dict[str, int], pages: int, notes: list[str]) -> list[Event]:
    """The events with their pages as numbers; those of other pages are left out, with a note."""
    made, others = [], 0
    for one in seen:
        page = kernel.page_of(one, bases)
        if page is not None and not 0 <= page < pages:
            others += 1
            continue
        made.append(Event(one.name, page, one.tid, one.succeeded, f"line {one.lineno}: {one.text}"))
    if others:
        notes.append(f"left out, as the scenario does not have their pages: {plural(others, 'event')}")
    return made


def _print(file: Path, events: list[Event], answer: Answer, notes: list[str]) -> None:
    whole = plural(len(events), "event")
    if answer.accepted:
        click.echo(f"{file}: accepted: {whole}")
        for end in answer.waits:
            certain = end.situations == end.all
            click.echo(f"    it {'ends' if certain else 'may end'} in a wait ({', '.join(end.kinds)}): {end.line}")
    elif answer.accepted is None:
        click.echo(f"{file}: unknown: more situations than are kept, after {answer.shown} of {whole}")
    else:
        assert answer.refused is not None
        click.echo(f"{file}: not accepted after {answer.shown} of {whole}: {answer.refused.where}")
        click.echo(f"    {plural(answer.prefixes, 'situation')} in which the events before it may have led")
        for line in answer.why:
            click.echo(f"    {line}")
    for note in notes:
        click.echo(f"  note  {note}")
