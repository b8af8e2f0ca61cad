"""One cell of a search: the verdicts of all policies of a box on one scenario. This is the search's interface for
sweep/, so that executors of sweeps compute it: processes of this machine, or Celery workers.

The plan of a search holds its scenarios: a worker opens no file for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ultrafolio.check.search import graph as exploring
from ultrafolio.check.verdicts.verdict import MAX_STATES
from ultrafolio.errors import InputError, one_of
from ultrafolio.fields import Field, take
from ultrafolio.model import designs, scenario
from ultrafolio.model.scenario import Scenario, document
from ultrafolio.search import files, table
from ultrafolio.search import space as spaces
from ultrafolio.search.space import Array, Space

MOST_SCENARIOS = 1024
"""Scenarios of a plan."""
MOST_ACTORS = 64
"""Actors of a scenario of a plan."""
MOST_PAGES = 4096
"""Pages of a scenario of a plan."""
AXES = {
    "scenario": Field("text"),
    "max_states": Field("int", MAX_STATES, 1, 2**31 - 2),
    "tables": Field("table", {}),
}
"""The axes, and the definitions, of a plan."""
TABLES = {"scenario": Field("table"), "within": Field("table", {})}
"""The definitions: the document of each scenario; the choices that are restricted, with the words of their values."""


def plan(stories: Sequence[tuple[str, Scenario]], space: Space, within: int, max_states: int) -> str:
    """The text of the plan that asks all policies of a box about scenarios, which have names."""
    words = {name: [str(value) for value in values] for name, values in space.words(within).items()}
    return "\n".join(
        [
            'title = "search"',
            f"design = {_toml(space.design)}",
            'asks = "search"',
            f"fixed = {_toml({'max_states': max_states})}",
            f"grid = {_toml({'scenario': [name for name, _ in stories]})}",
            f"within = {_toml(words)}",
            "[scenario]",
            *(f"{_toml(name)} = {_toml(document(story))}" for name, story in stories),
            "",
        ]
    )


def _toml(value: Any) -> str:
    """Returns a value in TOML, on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml(str(name))} = {_toml(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    # JSON's texts are those of TOML, but for one control character
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def wanted(space: Space, within: int) -> Array:
    """Which policies of a box are asked: each that is counted."""
    made = np.zeros(space.shape, bool)
    made[space.where(within)] = True
    made &= space.distinct
    return made


@dataclass
class Verdicts:
    """The cells of a search, as sweep.cells.Cells has them.

    compiles  the design whose checker is compiled before the first graph, or "": plain Python is faster for a few
              small graphs
    out       folder of stored tables, from which a cell starts; None for a worker
    """

    compiles: str
    out: Path | None = None
    COLUMNS: dict[str, str] = field(default_factory=lambda: {"answers": "str"}, init=False)
    PLAIN: Mapping[str, tuple[str, ...]] = field(default_factory=dict, init=False)

    def resolve(self, cell: dict[str, Any], base: Path) -> dict[str, Any]:
        """See Cells.resolve. The configuration: the scenario's document, the box in words, the limit of states."""
        where = "the plan of a search"
        axes = take(cell, where, AXES)
        tables = take(axes["tables"], where, TABLES)
        stories, name = tables["scenario"], axes["scenario"]
        if len(stories) > MOST_SCENARIOS:
            raise InputError(f"{where}: scenarios", value=len(stories), allowed=f"at most {MOST_SCENARIOS:,}",
                             then="several searches with fewer scenarios each")  # fmt: skip
        if name not in stories:
            raise one_of(f"{where}: scenario", name, stories)
        story = scenario.parse(_bounded(stories[name], f"{where}: {name}"), name)
        box = spaces.of(story.design).box(_words(tables["within"]))
        return {
            "scenario": document(story),
            "within": {choice: list(map(str, values)) for choice, values in spaces.of(story.design).words(box).items()},
            "max_states": axes["max_states"],
            "name": name,
        }

    def run(self, config: Mapping[str, Any], base: Path) -> dict[str, str]:
        """See Cells.run: the answers, as files.packed() has them. Raises Defect where answers contradict each other."""
        story = scenario.parse(config["scenario"], config["name"])
        space = spaces.of(story.design)
        path, key = path_of(self.out, config["name"]), files.key_of(space, story, config["max_states"])
        made = table.new(space, files.read(path, key, space) if path else ())
        self.warm()
        box = space.box(config["within"].items())
        table.fill(made, story, wanted(space, box), config["max_states"])
        return {"answers": json.dumps(files.packed(made.answers), separators=(",", ":"))}

    def warm(self) -> None:
        """See Cells.warm."""
        if self.compiles:
            exploring.compiled(designs.DESIGNS[self.compiles])

    def engine_digest(self) -> str:
        """See Cells.engine_digest."""
        return files.rules()


def _bounded(story: Any, where: str) -> dict[str, Any]:
    """Returns the document of a scenario. InputError for one that document() does not make, since [policy] may name
    files, or that is too large."""
    if not isinstance(story, dict) or set(story) & {"policy", "expect"}:
        raise InputError(f"{where}: a scenario of a search", value=type(story).__name__,
                         allowed="a table of memory, features and actors")  # fmt: skip
    actors = sum(len(value) for value in story.values() if isinstance(value, list))
    memory = story.get("memory")
    folios = memory.get("folios") if isinstance(memory, dict) else None
    orders = [order for order in folios if isinstance(order, int)] if isinstance(folios, list) else []
    pages = sum(1 << min(max(order, 0), MOST_PAGES.bit_length()) for order in orders)
    for what, number, most in (("actors", actors, MOST_ACTORS), ("pages", pages, MOST_PAGES)):
        if number > most:
            raise InputError(f"{where}: {what}", value=number, allowed=f"at most {most:,}",
                             then="ultrafolio check, which has no such limit")  # fmt: skip
    return story


def _words(within: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Returns the restricted choices with their words. InputError for values that are no list of words."""
    for choice, words in within.items():
        if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
            raise InputError(f"the plan of a search: within, {choice}", value=words, allowed="a list of words")
    return list(within.items())


def path_of(out: Path | None, name: str) -> Path | None:
    """The file of a scenario's table in the folder of a search."""
    return out / f"{Path(name).stem}{files.SUFFIX}" if out else None
