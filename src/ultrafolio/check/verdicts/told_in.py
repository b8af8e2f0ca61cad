"""The functions of told.py for the design of a state."""

from __future__ import annotations

import functools
from typing import Any

from ultrafolio.check.verdicts import told
from ultrafolio.model import designs
from ultrafolio.model.designs import S390
from ultrafolio.waits import telling
from ultrafolio.waits.load import interpreted


@functools.cache
def in_design(name: str) -> Any:
    """Returns the functions of told.py for a design."""
    if name == S390.name:
        return told
    words = telling.in_design(name)
    return telling.rebound(told, words=words, interpreted=functools.partial(interpreted, designs.DESIGNS[name]))


def of(state: Any) -> Any:
    """Returns the functions of told.py for a state's design."""
    return in_design(designs.of(state).name)
