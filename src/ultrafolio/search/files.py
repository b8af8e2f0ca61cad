"""What a search stores, files with a checksum: the table of each scenario, from which it is resumed, and the answer."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ultrafolio import durable
from ultrafolio.checksums import Pieces, piece
from ultrafolio.engine.load import digest
from ultrafolio.errors import InputError
from ultrafolio.model.scenario import Scenario, document
from ultrafolio.search.asking.ask import VERDICTS, Answer
from ultrafolio.search.space import Space, Values
from ultrafolio.version import __version__

SUFFIX = ".search"
ANSWER = "search.answer"
"""The name of the file with the answer, beside the tables."""
STORES = "asked"
"""The folder, beside the tables, of what is being computed."""
LARGEST = 64 << 20
"""The most bytes of a file."""
VERSION = 1
"""Of the form of both files."""
Answers = Sequence[tuple[Values, Answer]]
Packed = list[list[Any]]
"""Answers as JSON has them: values, verdict, box in hexadecimal digits, name, states."""


def key_of(space: Space, story: Scenario, max_states: int) -> str:
    """What a table depends on: the rules and the checker, the scenario, the space, the limit."""
    said = {
        "rules": rules(),
        "scenario": document(story),
        "machine": story.machine,
        "space": [[axis.name, list(map(str, axis.values))] for axis in space.axes],
        "max_states": max_states,
    }
    return blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=16).hexdigest()


@functools.cache
def rules() -> str:
    """The digest of the sources on which verdicts depend."""
    return digest("model", "engine", "waits", "check", "search/asking")


def packed(answers: Answers) -> Packed:
    """The answers for JSON."""
    return [[list(values), a.verdict, format(a.box, "x"), a.name, a.states] for values, a in answers]


def unpacked(made: Any, space: Space) -> list[tuple[Values, Answer]]:
    """The answers that packed() has made. Raises ValueError for anything else."""
    found = []
    try:
        for values, verdict, box, name, states in made:
            one = tuple(map(int, values)), Answer(int(verdict), int(box, 16), str(name), int(states))
            fits = [0 <= value < size for value, size in zip(one[0], space.shape, strict=True)]
            if not all(fits) or one[1].verdict not in VERDICTS or not 0 <= one[1].box <= space.full:
                raise ValueError("an answer is out of range")
            found.append(one)
    except TypeError as error:
        raise ValueError(str(error)) from None
    return found


def write_answer(out: Path, said: Mapping[str, Any]) -> None:
    """Keep the answer in the folder of a search, in place of the one before."""
    made = {"format": "ultrafolio-answer", "version": VERSION, "made_by": f"ultrafolio {__version__}", "answer": said}
    out.mkdir(parents=True, exist_ok=True)
    durable.replace(out / ANSWER, piece(json.dumps(made, separators=(",", ":")).encode()))


def read_answer(out: Path) -> dict[str, Any]:
    """The answer that is kept in the folder of a search. Raises InputError for a folder without one, a file that was
    changed, or one of another version."""
    path = out / ANSWER
    raw = _bytes(path)
    try:
        made: Any = json.loads(Pieces(io.BytesIO(raw), path).readall() or b"{}")
        if made["version"] == VERSION and made["format"] == "ultrafolio-answer":
            return dict(made["answer"])
    except (InputError, ValueError, TypeError, KeyError):
        pass
    raise InputError(
        f"{path}: no answer of a search",
        value="it is not there" if not raw else "it is damaged, or of another version",
        allowed="a folder that `ultrafolio search --out DIR` wrote to its end",
        then=f"repeat the search with --out {out}: it resumes",
    )


def write(path: Path, key: str, name: str, answers: Answers) -> None:
    """Write a table, whole or not at all."""
    made = {
        "format": "ultrafolio-search",
        "version": VERSION,
        "made_by": f"ultrafolio {__version__}",
        "scenario": name,
        "key": key,
        "answers": packed(answers),
    }
    durable.replace(path, piece(json.dumps(made, separators=(",", ":")).encode()))


def read(path: Path, key: str, space: Space) -> list[tuple[Values, Answer]]:
    """The answers in a file; none if there is no file, or if it was made for another key or in another form. Raises
    InputError for a file that was changed."""
    raw = _bytes(path)
    if not raw:
        return []
    try:
        made: Any = json.loads(Pieces(io.BytesIO(raw), path).readall() or b"{}")
        if (made.get("version"), made.get("key")) != (VERSION, key):
            return []
        return unpacked(made["answers"], space)
    except (InputError, ValueError, TypeError, KeyError, AttributeError):
        raise InputError(
            f"{path}: damaged",
            value="its checksum differs",
            allowed="the file as the search wrote it",
            cause="a disk, a copy or an editor changed it",
            then=f"delete only {path}, then repeat the command: its scenario is asked again",
        ) from None


def _bytes(path: Path) -> bytes:
    """The content of a file; b"" for none, or for one that is larger than LARGEST. Raises InputError for a file that
    cannot be read."""
    try:
        return path.read_bytes() if path.stat().st_size <= LARGEST else b""
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise InputError(f"{path}: cannot be read", value=error.strerror or str(error)) from None
