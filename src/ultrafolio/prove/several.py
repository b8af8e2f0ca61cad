"""Proofs of several policies, each with what the ones before leave to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ultrafolio.model.policy import Policy

from . import WITHOUT, judge, refuted
from .earlier import Earlier
from .houdini import Tally, Told
from .judge import Proof
from .words import Told as Outcome


def proofs(
    chosen: Mapping[str, Policy], numbers: tuple[int, ...], tally: Tally, told: Told = lambda line: None
) -> Iterator[Outcome]:
    """The outcome for each of these policies, by name.

    What is not proved with the facts of an earlier policy, and is not false, is tried again with all candidates.
    """
    done: list[tuple[Policy, Earlier]] = []
    for name, policy in chosen.items():
        here = Tally(smt2=tally.smt2)
        proof = judge.prove(
            policy, without=WITHOUT, numbers=numbers, tally=here, told=_named(name, told), earlier=nearest(policy, done)
        )
        found = refuted.counterexamples(policy, name, proof.open, WITHOUT)
        if proof.began_with_facts and _left(proof, found):
            again = judge.prove(policy, without=WITHOUT, numbers=numbers, tally=here, told=_named(name, told))
            proof, found = again, refuted.counterexamples(policy, name, again.open, WITHOUT)
        done.append((policy, proof.earlier))
        yield Outcome(name, proof, WITHOUT, found)


def _left(proof: Proof, found: Mapping[int, refuted.Refuted]) -> bool:
    """Whether a property is neither proved nor false."""
    return any(steps and number not in found for number, steps in proof.open.items())


def nearest(policy: Policy, done: Sequence[tuple[Policy, Earlier]]) -> Earlier | None:
    """The earlier proof of the policy that differs in the fewest choices, the last of several; None where none makes
    the same pages accessible, tracks bits alike and counts references alike: then other facts are needed."""
    near = [
        (differing(policy, other), -n, proof)
        for n, (other, proof) in enumerate(done)
        if all(getattr(policy, name) == getattr(other, name) for name in ("accessible", "refs", "track"))
    ]
    return min(near, key=lambda one: one[:2])[2] if near else None


def differing(policy: Policy, other: Policy) -> int:
    """In how many choices two policies differ."""
    ours, theirs = policy.codes(), other.codes()
    return sum(ours[name] != theirs[name] for name in ours)


def _named(name: str, told: Told) -> Told:
    return lambda line: told(f"{name}: {line}")
