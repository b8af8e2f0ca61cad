"""Leads-to properties as never claims: what an actor has begun ends, in every run that is fair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from ultrafolio.export.promela import terms
from ultrafolio.export.promela.terms import Term

MOST_HANDED = 6
"""Most strongly fair steps that a claim can assume: its states double with each."""


@dataclass(frozen=True, slots=True)
class Sleep:
    """A strongly fair step: whether its thread is elsewhere than at its rule, and whether it is enabled."""

    awake: Term
    enabled: Term


def claim(name: str, pending: Term, sleeps: Sequence[Sleep]) -> str:
    """Returns the never claim of an actor: from some state on it is pending for ever, in a run that is strongly fair to
    each of `sleeps`: infinitely often the thread is awake, or from that state on the step is never enabled. Weak
    fairness comes from pan -f."""
    lines = [f"never {name} {{", "begin:", "    do", "    :: true"]
    parts = []
    for n, disabled in enumerate(product((False, True), repeat=len(sleeps))):
        here = pending
        for sleep, never in zip(sleeps, disabled, strict=True):
            here = terms.both(here, terms.negate(sleep.enabled)) if never else here
        if here.truth is False:
            continue
        owed = [sleep.awake for sleep, never in zip(sleeps, disabled, strict=True) if not never]
        owed = [awake for awake in owed if awake.truth is not True]
        lines.append(f"    :: ({here.text}) -> goto {_label(n, 0, len(owed))}")
        parts += _part(n, here, owed)
    return "\n".join([*lines, "    od;", *parts, "}", ""])


def _label(number: int, at: int, last: int) -> str:
    return f"{'accept' if at == last else 'owed'}_{number}_{at}"


def _part(number: int, here: Term, owed: Sequence[Term]) -> list[str]:
    """Returns the states in which `here` stays true; the last is entered once each of `owed` was true, in turn."""
    lines = []
    for at in range(len(owed) + 1):
        lines += [f"{_label(number, at, len(owed))}:", "    do"]
        if at == len(owed):
            lines.append(f"    :: ({here.text}) -> goto {_label(number, 0, len(owed))}")
        else:
            met = terms.both(here, owed[at])
            lines.append(f"    :: ({met.text}) -> goto {_label(number, at + 1, len(owed))}")
            lines.append(f"    :: ({here.text})")
        lines.append("    od;")
    return lines
