"""How the search asks for the properties of s390; guest_memfd has a broken_within() of its own. Loaded with rules."""

# mypy: disallow_untyped_defs=False, disallow_untyped_calls=False
from __future__ import annotations

from ultrafolio.model.properties import broken
from ultrafolio.model.rule import fn


@fn
def broken_within(s, t, pc, p, was, outcome, first, end):
    """properties.broken(), where the actor's steps look at no page outside [first, end): it asks the pages of the step
    alone."""
    return broken(s, t, pc, p, was, outcome)
