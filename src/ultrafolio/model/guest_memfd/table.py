"""The steps of the design guest_memfd by their place; shared ones are those of model/rules."""

from __future__ import annotations

import functools

from ultrafolio.model import rule as rules
from ultrafolio.model.layout import LRU_IDLE, PUT, SPECULATIVE_IDLE, UNPIN
from ultrafolio.model.rules import references, unpin

SHARED = (LRU_IDLE, SPECULATIVE_IDLE, PUT, UNPIN)
"""Places of the steps that both designs take."""
STEPS = {pc: rules.RULES[pc] for pc in SHARED}
rule = functools.partial(rules.rule, table=STEPS)
"""Registers a step of this design."""

assert {STEPS[pc].function.__module__ for pc in SHARED} == {references.__name__, unpin.__name__}
