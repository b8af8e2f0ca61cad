"""Proofs about several kinds of systems, each with what the ones before leave to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path as File

from ultrafolio.model.guest_memfd.layout import HOLE
from ultrafolio.model.policies import AnyPolicy
from ultrafolio.model.policy import Policy

from . import judge, paths, refuted
from .earlier import Earlier
from .facts import COMPARED
from .houdini import Tally, Told
from .memfd.subject import COMPARED as COMPARED_MEMFD
from .rules import Rules, unchanged
from .state import Refused
from .systems import Systems
from .words import Outcome

Done = list[tuple[Systems, Earlier]]


NOT_ASKED = "huge pages are asked about with --huge, for minutes"
"""What is said of systems with huge pages of which no proof was asked."""


def proofs(
    chosen: Sequence[Systems],
    numbers: tuple[int, ...],
    smt2: File | None = None,
    told: Told = lambda line: None,
    *,
    huge: bool = False,
) -> list[Outcome]:
    """The outcome for each kind of systems of one design, in their order; for a policy with huge pages, one with single
    and one with huge pages. huge: whether a proof of the latter is tried; else a story may break a property there.

    What is not proved with the facts of an earlier proof, and is not false, is tried again with all candidates. The
    questions of a proof are kept in the folder `smt2`, if one is given.
    """
    asked = [one for systems in chosen for one in forms(systems)]
    made: dict[Systems, Outcome] = {}
    done: Done = []
    for systems in _order(asked):
        rules = unchanged(systems.design)
        if systems.huge and not huge:
            made[systems] = _not_read(systems, numbers, NOT_ASKED)
        else:
            made[systems] = _proof(systems, rules, numbers, done, smt2, told)
    return [made[systems] for systems in asked]


def forms(systems: Systems) -> list[Systems]:
    """These systems; under a policy with huge pages those with single pages, and those with huge ones, where nobody
    punches a hole."""
    if not systems.has_huge:
        return [systems]
    return [systems, replace(systems, huge=True, without=systems.without | {HOLE})]


def _proof(
    systems: Systems, rules: Rules, numbers: tuple[int, ...], done: Done, smt2: File | None, told: Told
) -> Outcome:
    earlier = nearest(systems, done)
    for first in [earlier, None] if earlier else [None]:
        try:
            proof = judge.prove_under(
                systems.cfg, without=systems.without, rules=rules, numbers=numbers, tally=Tally(smt2=smt2),
                told=_named(systems.label, told), earlier=first,
            )  # fmt: skip
        except Refused as refusal:
            return _not_read(systems, numbers, str(refusal))
        found = refuted.counterexamples(systems, proof.open)
        if all(number in found for number, steps in proof.open.items() if steps):
            break
    done.append((systems, proof.earlier))
    return Outcome(systems, numbers, proof, found)


def _not_read(systems: Systems, numbers: tuple[int, ...], why: str) -> Outcome:
    """What is said without an induction, as where a rule has a form that is not read: a story may break a property."""
    return Outcome(systems, numbers, None, refuted.counterexamples(systems, dict.fromkeys(numbers)), why)


def _named(name: str, told: Told) -> Told:
    return lambda line: told(f"{name}: {line}")


def _order(asked: Sequence[Systems]) -> list[Systems]:
    """Those first in which threads can be at the most places: what is shown with more places holds with fewer."""

    def places(systems: Systems) -> int:
        try:
            return len(paths.reached(unchanged(systems.design), systems.cfg, systems.without))
        except Refused:
            return 0

    return list(asked) if len(asked) == 1 else sorted(asked, key=lambda systems: (systems.huge, -places(systems)))


def nearest(systems: Systems, done: Iterable[tuple[Systems, Earlier]]) -> Earlier | None:
    """The earlier proof of the policy that differs in the fewest choices, the last of several.

    None where none agrees in the choices that facts read, and makes folios, or pages, accessible as this one does, or
    is about another machine, or about single pages where this one is about huge ones: other facts are needed then.
    """

    def kind(one: Systems) -> list[object]:
        if isinstance(one.policy, Policy):
            return [*(getattr(one.policy, name) for name in COMPARED), one.policy.accessible == "page"]
        return [*(getattr(one.policy, name) for name in COMPARED_MEMFD), one.machine, one.huge]

    near = [
        (differing(systems.policy, other.policy), -n, proof)
        for n, (other, proof) in enumerate(done)
        if kind(other) == kind(systems)
    ]
    return min(near, key=lambda one: one[:2])[2] if near else None


def differing(policy: AnyPolicy, other: AnyPolicy) -> int:
    """In how many choices two policies differ."""
    ours, theirs = policy.codes(), other.codes()
    return sum(ours[name] != theirs[name] for name in ours)
