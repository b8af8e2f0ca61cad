"""Proofs of several policies, each with what the ones before leave to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path as File

from ultrafolio.model.policy import Policy

from . import WITHOUT, judge, paths, refuted
from .earlier import Earlier
from .facts import COMPARED
from .houdini import Tally, Told
from .rules import unchanged
from .words import Outcome


def proofs(
    chosen: Mapping[str, Policy],
    numbers: tuple[int, ...],
    smt2: File | None = None,
    told: Told = lambda line: None,
    without: frozenset[int] = WITHOUT,
) -> list[Outcome]:
    """The outcome for each of these policies, by name, in their order.

    What is not proved with the facts of an earlier policy, and is not false, is tried again with all candidates. The
    questions of a proof are kept in the folder `smt2`, if one is given.
    """
    made: dict[str, Outcome] = {}
    done: list[tuple[Policy, Earlier]] = []
    for name in _order(chosen, without):
        policy = chosen[name]
        earlier = nearest(policy, done)
        for first in [earlier, None] if earlier else [None]:
            here = Tally(smt2=smt2)
            proof = judge.prove(
                policy, without=without, numbers=numbers, tally=here, told=_named(name, told), earlier=first
            )
            found = refuted.counterexamples(policy, name, proof.open, without)
            if all(number in found for number, steps in proof.open.items() if steps):
                break
        done.append((policy, proof.earlier))
        made[name] = Outcome(name, proof, without, found)
    return [made[name] for name in chosen]


def _named(name: str, told: Told) -> Told:
    return lambda line: told(f"{name}: {line}")


def _order(chosen: Mapping[str, Policy], without: frozenset[int]) -> list[str]:
    """Those first under which threads can be at the most places: what is shown with more places holds with fewer."""
    if len(chosen) == 1:
        return list(chosen)
    rules = unchanged()
    return sorted(chosen, key=lambda name: -len(paths.reached(rules, chosen[name].codes(), without)))


def nearest(policy: Policy, done: Sequence[tuple[Policy, Earlier]]) -> Earlier | None:
    """The earlier proof of the policy that differs in the fewest choices, the last of several.

    None where none agrees in the choices that facts read (facts.COMPARED), and makes folios, or pages, accessible as
    this one does: other facts are needed then.
    """

    def kind(one: Policy) -> list[object]:
        return [*(getattr(one, name) for name in COMPARED), one.accessible == "page"]

    near = [
        (differing(policy, other), -n, proof) for n, (other, proof) in enumerate(done) if kind(other) == kind(policy)
    ]
    return min(near, key=lambda one: one[:2])[2] if near else None


def differing(policy: Policy, other: Policy) -> int:
    """In how many choices two policies differ."""
    ours, theirs = policy.codes(), other.codes()
    return sum(ours[name] != theirs[name] for name in ours)
