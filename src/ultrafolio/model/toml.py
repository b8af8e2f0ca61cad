"""A scenario as TOML, which scenario.parse reads as the same one."""

from __future__ import annotations

import json
from typing import Any

from ultrafolio.fields import Field, told

from .layout import ACTOR_KINDS
from .scenario import ACTORS, FEATURES, MEMORY, Scenario


def lines(story: Scenario) -> list[str]:
    """The lines of a scenario, without its policies and expectations, and without fields that have their default."""
    made = [f"title = {value(story.title)}"] if story.title else []
    made += _table("[memory]", story.memory, MEMORY)
    if features := _table("[features]", story.features, FEATURES)[1:]:
        made += ["[features]", *features]
    for kind, fields in story.actors:
        made += _table(f"[[{ACTOR_KINDS[kind]}]]", fields, ACTORS[ACTOR_KINDS[kind]])
    return made


def _table(head: str, values: dict[str, Any], fields: dict[str, Field]) -> list[str]:
    return [head, *(f"{name} = {value(each)}" for name, each in told(values, fields).items())]


def value(one: Any) -> str:
    """A value as TOML, which writes these as JSON does."""
    return json.dumps(list(one) if isinstance(one, tuple) else one, ensure_ascii=False)
