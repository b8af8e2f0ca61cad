"""`ultrafolio trace show`: print the content of any file that ultrafolio writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ultrafolio.errors import InputError

Shown = tuple[str, dict[str, Any], Iterator[dict[str, Any]]]
"""(kind of file, head, steps or lines)."""
KINDS = {
    "counterexample": "check --save", "trace of a run": "run --trace", "stream of a cluster": "trace validate --save",
    "defect": "a command that ended with exit code 4",
}  # fmt: skip
"""Kind of file -> the command that writes it."""


def read(file: Path) -> Shown:
    """The file's kind, head and steps. Raises InputError for a file that is none of KINDS; the steps raise it at a
    damaged line."""
    head = _first(file)
    if head.get("format") == "ultrafolio-defect":
        return "defect", _without(head, "traceback"), ({"line": line.rstrip()} for line in head.get("traceback", []))
    if head.get("format") == "ultrafolio-trace" and "path" in head:
        return _counterexample(file)
    if head.get("format") == "ultrafolio-trace" and "actors" in head:
        if head.get("version") != 1:
            raise InputError(
                f"{file}: a trace of another version",
                value=head.get("version"),
                allowed="1",
                cause="another ultrafolio wrote it",
                then=f"{head.get('command', 'the run')} again",
            )
        return "trace of a run", head, _run_steps(file, head["actors"])
    if {"group", "id", "data"} <= set(head):
        return _stream(file)
    raise _none(file)


def _none(file: Path) -> InputError:
    """Returns the error for a file of no known kind."""
    return InputError(
        f"{file}: not a file that ultrafolio wrote",
        allowed="; ".join(f"{kind} ({writer})" for kind, writer in KINDS.items()),
        cause="a recording of a program is another kind",
        then=f"ultrafolio trace import {file}",
    )


def _first(file: Path) -> dict[str, Any]:
    """The first JSON object of a file: in its first line, or in the whole file."""
    try:
        with file.open(encoding="utf-8") as lines:
            line = lines.readline()
            try:
                made = json.loads(line)
            except json.JSONDecodeError:
                made = json.loads(line + lines.read())
    except FileNotFoundError:
        raise InputError(
            f"{file}: no such file", allowed="a file that ultrafolio wrote", then=f"ls {file.parent}"
        ) from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read", value=error.strerror, allowed="a readable file") from None
    except (ValueError, RecursionError):
        raise _none(file) from None
    if not isinstance(made, dict):
        raise _none(file)
    return made


def _without(record: dict[str, Any], name: str) -> dict[str, Any]:
    return {field: value for field, value in record.items() if field != name}


def _counterexample(file: Path) -> Shown:
    """Returns the kind, the head and the steps of a trace file of check."""
    from ultrafolio.export import trace_file

    made = trace_file.read(file)
    head = {
        "scenario": made.scenario,
        "policy": made.policy,
        "claim": made.text,
        "rules": made.rules,
        "loop": made.loop,
    }
    return "counterexample", head, ({"step": number, "what": text} for number, text in enumerate(made.steps, 1))


def _run_steps(file: Path, actors: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yields the steps of a trace file of run, each with its actor's kind. Raises InputError for a damaged line."""
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(islice(lines, 1, None), 2):
            try:
                step = json.loads(line)
                yield {**step, "who": actors[step["actor"]]["kind"]}
            except (ValueError, KeyError, IndexError, TypeError):
                raise InputError(
                    f"{file}: line {number} is damaged",
                    value=line[:60],
                    allowed="one step, as JSON",
                    then="ultrafolio run --trace FILE, once more",
                ) from None


def _stream(file: Path) -> Shown:
    """Returns the kind, the head and the entries of a saved stream."""
    from ultrafolio.state import validate
    from ultrafolio.state.events import Again, Kept, Made, Steps, decode

    streams = validate.read(file)

    def entries() -> Iterator[dict[str, Any]]:
        for group, events in streams.items():
            for event in events:
                entry = decode(event.data)
                if isinstance(entry, Steps):
                    for step in entry.steps:
                        yield {
                            "group": group,
                            "id": event.id,
                            "role": entry.role,
                            "actor": step.actor,
                            "op": step.op,
                            "page": step.page,
                            "outcome": step.outcome,
                        }
                elif isinstance(entry, Made):
                    yield {"group": group, "id": event.id, "role": entry.role, "sections": sorted(entry.sections)}
                elif isinstance(entry, Again):
                    yield {"group": group, "id": event.id, "entries": entry.entries, "rounds": entry.rounds}
                elif isinstance(entry, Kept):
                    yield {"group": group, "id": event.id, "checkpoint_after": entry.steps, "calls": entry.calls}
                else:
                    yield {
                        "group": group,
                        "id": event.id,
                        "call": entry.function,
                        "arguments": entry.arguments,
                        "result": entry.result,
                    }

    return "stream of a cluster", {"groups": list(streams)}, entries()


def show(file: Path, first: int | None, as_json: bool, tell: Callable[[str], None]) -> None:
    """Print the file: its kind and head, then its steps, at most the `first` ones."""
    kind, head, steps = read(file)
    if as_json:
        tell(json.dumps({"file": str(file), "kind": kind, **head}, ensure_ascii=False))
        for step in islice(steps, first):
            tell(json.dumps(step, ensure_ascii=False))
        return
    tell(f"{file}: {kind}")
    for name, value in head.items():
        if isinstance(value, str | int) and value != "":
            tell(f"  {name:<9} {value}")
    for step in islice(steps, first):
        tell("  ".join(str(value) for value in step.values()))
