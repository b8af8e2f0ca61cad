"""A design: who tracks what of a page, and who converts it. Its rules, records and words, for whatever runs them.

A state is of one design, which its class names, so `designs.of(state)` needs no field of the state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from .rule import Rule


@dataclass(frozen=True, eq=False)
class Design:
    """What differs between designs.

    name        as a scenario file names it
    machines    the machines that can enforce it, as scenario files name them
    rules       its steps by their place; places that two designs share may have a step of each
    modules     the modules with its functions, in the order in which they are read
    constants   names and numbers that its functions use, beside those of model/layout.py
    kinds       names of the kinds of actors by number; "" for a number that it does not use
    idle        per kind the rule at which it is idle
    outcomes    words for the outcomes of steps, by number
    waits       words for the reasons to wait, by number
    properties  its always-properties, from 1
    first       what is added to their numbers in documents
    in_state    those that a state itself can break: number, and name of the function (s, page) that says so
    leads_to    its leads-to properties
    devices     kinds of actors that ask for pins
    second      the least operation of a vCPU that owes the second leads-to
    verbs       sources of its functions that call the machine of a state
    """

    name: str
    machines: tuple[str, ...]
    rules: Mapping[int, Rule]
    modules: tuple[ModuleType, ...]
    constants: Mapping[str, Any]
    kinds: tuple[str, ...]
    idle: tuple[int, ...]
    outcomes: tuple[str, ...]
    waits: tuple[str, ...]
    properties: tuple[str, ...]
    first: int
    in_state: tuple[tuple[int, str], ...]
    leads_to: tuple[str, ...]
    devices: tuple[int, ...]
    second: int
    verbs: tuple[str, ...] = ()

    @property
    def last_rule(self) -> int:
        """The highest place of a rule, or that of the dead thread."""
        return max(*self.rules, int(self.constants["DEAD"]))
