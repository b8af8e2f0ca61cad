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
from ultrafolio.model import designs
from ultrafolio.model.design import Design
from ultrafolio.model.designs import S390
from ultrafolio.model.layout import State

WAITING = "waits: "
"""Start of the outcome of a step that was refused; the reason follows."""


def word_of(outcome: int, design: Design = S390) -> str:
    """Returns the word of a step's outcome."""
    return design.outcomes[outcome] if outcome > 0 else WAITING + design.waits[-outcome]


def header(state: State, command: str) -> dict[str, Any]:
    """The first line: the design unless it is s390, the command, the digest of the rules, and the actors."""
    design = designs.of(state)
    actors = [{"kind": design.kinds[who["kind"]], "guest": int(who["vm"]), "cpu": int(who["cpu"])} for who in state.who]
    named = {} if design is S390 else {"design": design.name}
    head = {"format": "ultrafolio-trace", "version": 1, **named, "rules": digest(), "command": command}
    return {**head, "actors": actors}


def lines(events: np.ndarray[Any, Any], first: int, design: Design = S390) -> Iterable[dict[str, Any]]:
    """Yields one record an event of dtype sim.records.EVENT; `first` is the number of the first."""
    for n, (ns, actor, page, rule, outcome) in enumerate(events.tolist(), first):
        step = {"n": n, "ns": ns, "actor": actor, "rule": design.rules[rule].name, "page": page}
        yield {**step, "outcome": word_of(outcome, design)}


class Writer:
    """Writes a trace to a file that appears under its name only when it is complete.

    InputError when the file cannot be written. Use as a context manager; an exception inside leaves nothing behind.
    """

    def __init__(self, path: Path, state: State, command: str) -> None:
        self.path, self.written, self._design = path, 0, designs.of(state)
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
        for record in lines(events, self.written, self._design):
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
