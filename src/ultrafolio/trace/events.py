"""The event record: one line of NDJSON a step, after one header line. The same form for every engine.

{"format": "ultrafolio-trace", "version": 1, "rules": DIGEST, "command": …, "actors": [{"kind": "vcpu", …}]}
{"n": 0, "ns": 96112, "actor": 1, "rule": "vcpu-run", "page": 3476, "outcome": "FAULT"}
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

from ultrafolio.durable import partial_of, unwritable
from ultrafolio.engine.load import digest
from ultrafolio.errors import InputError
from ultrafolio.model.layout import ACTOR_KINDS, OUTCOMES, WAITS, State
from ultrafolio.model.rule import RULES

WAITING = "waits: "
"""Start of the outcome of a step that was refused; the reason follows."""


def word_of(outcome: int) -> str:
    """Returns the word of a step's outcome."""
    return OUTCOMES[outcome] if outcome > 0 else WAITING + WAITS[-outcome]


def header(state: State, command: str) -> dict[str, Any]:
    """The first line: the command, the digest of the rules, and the actors."""
    actors = [{"kind": ACTOR_KINDS[who["kind"]], "guest": int(who["vm"]), "cpu": int(who["cpu"])} for who in state.who]
    return {"format": "ultrafolio-trace", "version": 1, "rules": digest(), "command": command, "actors": actors}


def lines(events: np.ndarray[Any, Any], first: int) -> Iterable[dict[str, Any]]:
    """Yields one record an event of dtype sim.layout.EVENT; `first` is the number of the first."""
    for n, (ns, actor, page, rule, outcome) in enumerate(events.tolist(), first):
        yield {"n": n, "ns": ns, "actor": actor, "rule": RULES[rule].name, "page": page, "outcome": word_of(outcome)}


class Writer:
    """Writes a trace to a file that appears under its name only when it is complete.

    InputError when the file cannot be written. Use as a context manager; an exception inside leaves nothing behind.
    """

    def __init__(self, path: Path, state: State, command: str) -> None:
        self.path, self.written = path, 0
        self._part = partial_of(path)
        try:
            self._file: IO[str] = self._part.open("w", encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"{path}: trace cannot be written",
                value=error.strerror,
                allowed="a path in a folder you may write to",
                then=f"mkdir -p {path.parent}",
            ) from None
        self._line(header(state, command))

    def _line(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record, separators=(",", ":")) + "\n")

    def add(self, events: np.ndarray[Any, Any]) -> None:
        """Append the events, in order."""
        for record in lines(events, self.written):
            self._line(record)
        self.written += len(events)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            self._file.close()
            if kind is None:
                self._part.replace(self.path)
        except OSError as failed:
            raise unwritable(self.path, failed) from None
        finally:
            with contextlib.suppress(OSError):
                self._part.unlink(missing_ok=True)
