"""A scenario as TOML, which scenario.parse reads as the same one."""

from __future__ import annotations

import json
from typing import Any

from ultrafolio.fields import Field, told

from .designs import DESIGNS, S390
from .scenario import TABLES, Scenario


def lines(story: Scenario) -> list[str]:
    """The lines of a scenario, without its policies and expectations, and without fields that have their default."""
    tables, design = TABLES[story.design], DESIGNS[story.design]
    made = [f"title = {value(story.title)}"] if story.title else []
    if design is not S390:
        made += [f"design = {value(design.name)}", f"machine = {value(story.machine)}"]
    made += _table("[memory]", story.memory, tables.memory)
    if features := _table("[features]", story.features, tables.features)[1:]:
        made += ["[features]", *features]
    for word, fields in ((design.kinds[kind], fields) for kind, fields in story.actors):
        made += _table(f"[[{word}]]", fields, tables.actors[word])
    return made


def _table(head: str, values: dict[str, Any], fields: dict[str, Field]) -> list[str]:
    return [head, *(f"{name} = {value(each)}" for name, each in told(values, fields).items())]


def value(one: Any) -> str:
    """A value as TOML, which writes these as JSON does."""
    return json.dumps(list(one) if isinstance(one, tuple) else one, ensure_ascii=False)
