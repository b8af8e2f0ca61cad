"""A conformance case, and the list of all cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ultrafolio.conformance.bench import Engine


@dataclass(frozen=True, slots=True)
class Case:
    """One requirement on every engine.

    name     of the case, unique in the suite
    numbers  which cases of docs/conformance.md it decides; empty for the model's own tables and sequences
    title    what it checks, in a sentence
    run      drives an engine; AssertionError, with the steps so far, where the engine does otherwise
    """

    name: str
    numbers: tuple[int, ...]
    title: str
    run: Callable[[Engine], None]


CASES: list[Case] = []


def case(*numbers: int) -> Callable[[Callable[[Engine], None]], Callable[[Engine], None]]:
    """Enter a function over an engine into the suite: its name is the case's, its docstring's first line the title."""

    def enter(run: Callable[[Engine], None]) -> Callable[[Engine], None]:
        title = (run.__doc__ or "").strip().split("\n")[0]
        CASES.append(Case(run.__name__.replace("_", "-"), numbers, title, run))
        return run

    return enter
