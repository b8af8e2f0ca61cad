"""`ultrafolio check --history DIR`: save the verdict lines of these rules, and print how they differ from the last."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from ultrafolio import durable
from ultrafolio.errors import InputError
from ultrafolio.export import observation
from ultrafolio.export.history import KINDS, MOST_BYTES, Change, History, changes, history, read
from ultrafolio.fields import read_text
from ultrafolio.model.policies import AnyPolicy
from ultrafolio.model.scenario import Scenario
from ultrafolio.nouns import plural

_FILE = re.compile(r"(\d{4,9})-[0-9a-f]{12}\.history")


@dataclass(frozen=True, slots=True)
class Last:
    """The last version of a folder: its file and content; number 0 and None where there is none."""

    number: int
    file: Path | None
    kept: History | None


def last(folder: Path) -> Last:
    """The last version in a folder, which need not exist. Raises InputError if it is no folder, or not readable."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--history {folder}: a file", allowed="a folder", then=f"--history {folder.parent}/history")
    if not folder.parent.is_dir():
        raise InputError(
            f"--history {folder}: no folder {folder.parent}",
            allowed="a folder, or a new one in a folder that exists",
            then=f"mkdir -p {folder}",
        )
    there = {int(found.group(1)): file for file in folder.glob("*") if (found := _FILE.fullmatch(file.name))}
    if not there:
        return Last(0, None, None)
    file = there[max(there)]
    return Last(max(there), file, read(read_text(file, "history", MOST_BYTES), str(file)))


def run(folder: Path, before: Last, lines: Sequence[tuple[Scenario, AnyPolicy, str]], *, as_json: bool) -> int:
    """Save the lines unless the last version is equal, and print what differs. lines: scenario, policy, their line.

    Returns 1 if something differs, 3 if nothing does and a verdict is unknown, else 0.
    """
    asked = [(observation.question_of(story, policy), line) for story, policy, line in lines]
    now = history(observation.rules_digest(), asked)
    file = before.file
    if before.kept != now:
        file = folder / f"{before.number + 1:04}-{now.rules[:12]}.history"
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise durable.unwritable(folder, error) from None
        durable.replace(file, now.text().encode())
    found = changes(before.kept, now) if before.kept else []
    if as_json:
        click.echo(_json(before, file, now, found))
    else:
        click.echo("\n".join(_text(before, file, now, found)))
    if found:
        return 1
    return 3 if any(entry.told.word == "Unknown" for entry in now.entries.values()) else 0


def _json(before: Last, file: Path | None, now: History, found: Sequence[Change]) -> str:
    record = {
        "version": 1,
        "before": str(before.file) if before.file else None,
        "after": str(file),
        "rules": [before.kept.rules if before.kept else None, now.rules],
        "lines": len(now.entries),
        "changes": [change.record() for change in found],
    }
    return json.dumps(record, ensure_ascii=False)


def _text(before: Last, file: Path | None, now: History, found: Sequence[Change]) -> list[str]:
    counted = f"{file}: {plural(len(now.entries), 'line')}"
    if before.kept is None:
        return [f"{counted}, the first of this folder"]
    if before.kept == now:
        return [f"{counted}, nothing differs, not even the rules"]
    rules = "the same rules" if before.kept.rules == now.rules else "other rules"
    head = f"{counted}, against {before.file}: {rules}"
    if not found:
        return [f"{head}, nothing else differs"]
    by_kind = Counter(change.kind for change in found)
    return [head, *map(str, found), *(f"{by_kind[kind]} {kind}: {KINDS[kind]}" for kind in KINDS if by_kind[kind])]
