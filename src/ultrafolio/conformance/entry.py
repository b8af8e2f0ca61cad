"""The one compiled function that Python calls: everything it calls is inlined and has no wrapper of its own."""

from __future__ import annotations

from typing import Any

from ultrafolio.model.rule import fn

step: Any = None  # the dispatcher of the rules this function is loaded with


@fn
def enter(s: Any, t: int, op: int, page: int) -> Any:
    """Run the rule that thread `t` is at."""
    return step(s, t, op, page)
