"""The stored table of a scenario, a file with a checksum, from which a search is resumed."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ultrafolio import durable
from ultrafolio.checksums import Pieces, piece
from ultrafolio.engine.load import digest
from ultrafolio.errors import InputError
from ultrafolio.model.scenario import Scenario, document
from ultrafolio.search.asking.ask import Answer
from ultrafolio.search.space import Space, Values
from ultrafolio.version import __version__

SUFFIX = ".search"
LARGEST = 64 << 20
"""The most bytes of a table's file."""
Answers = Sequence[tuple[Values, Answer]]


def key_of(space: Space, story: Scenario, max_states: int) -> str:
    """What a table depends on: the rules and the checker, the scenario, the space, the limit."""
    said = {
        "rules": _rules(),
        "scenario": document(story),
        "machine": story.machine,
        "space": [[axis.name, list(map(str, axis.values))] for axis in space.axes],
        "max_states": max_states,
    }
    return blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=16).hexdigest()


@functools.cache
def _rules() -> str:
    return digest("model", "engine", "waits", "check", "search/asking")


def write(path: Path, key: str, name: str, answers: Answers) -> None:
    """Write a table, whole or not at all."""
    made = {
        "format": "ultrafolio-search",
        "version": 1,
        "made_by": f"ultrafolio {__version__}",
        "scenario": name,
        "key": key,
        "answers": [[list(values), a.verdict, format(a.box, "x"), a.name, a.states] for values, a in answers],
    }
    durable.replace(path, piece(json.dumps(made, separators=(",", ":")).encode()))


def read(path: Path, key: str) -> list[tuple[Values, Answer]]:
    """The answers in a file; none if there is no file, or if it was made for another key. Raises InputError for a file
    that was changed."""
    try:
        raw = path.read_bytes() if path.stat().st_size <= LARGEST else b""
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{path}: cannot be read", value=error.strerror or str(error)) from None
    try:
        made: Any = json.loads(Pieces(io.BytesIO(raw), path).readall() or b"{}")
        if made.get("key") != key:
            return []
        return [
            (tuple(map(int, values)), Answer(int(verdict), int(box, 16), str(name), int(states)))
            for values, verdict, box, name, states in made["answers"]
        ]
    except (InputError, ValueError, TypeError, KeyError, AttributeError):
        raise InputError(
            f"{path}: damaged",
            value="its checksum differs",
            allowed="the file as the search wrote it",
            cause="a disk, a copy or an editor changed it",
            then=f"delete only {path}, then repeat the command: its scenario is asked again",
        ) from None
