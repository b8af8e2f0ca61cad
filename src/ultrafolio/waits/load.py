"""Loads the functions of waits/rules.py with the rules."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from ultrafolio.engine import load

from . import rules, tables


def add(space: dict[str, Any], decorate: Callable[[Any], Any]) -> None:
    """Add the functions of rules.py and their tables to a namespace that has the rules."""
    space.update(load.constants(tables))
    load.add_functions(space, rules, decorate)


@functools.cache
def interpreted() -> Any:
    """Returns the rules and the functions of rules.py as plain Python."""
    return with_rules(None)


def with_rules(changed: Mapping[str, str] | None) -> Any:
    """Returns interpreted() with some source text of the rules replaced, as engine.load.mutant."""
    space = load.functions(lambda function: function, changed)
    add(space, lambda function: function)
    return load.rules(space)
