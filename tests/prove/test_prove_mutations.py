"""A changed line of a rule makes the proof fail, or makes a guest hang, or is listed with the reason why not."""

import pytest

pytest.importorskip("z3", reason="the extra `prove` is not installed")

from proving import FEW_KINDS, ONE, without
from rule_mutations import fate, hang, mutations, run_by
from ultrafolio.model import policies

SHORT, LONG = 20, 200
STANDS = {}
"""Mutations under which the whole proof stands, and why."""


def fates(kept, count):
    """The first mutations that change a step of the proof, and what they break: of the proof, or else of a guest."""
    policy, found = policies.find(ONE), {}
    for each in mutations(run_by(kept[0])):
        end = fate(kept[0], policy, without(FEW_KINDS), each)
        if end != "no step":
            found[each.name] = end or hang(policy, each)
        if len(found) == count:
            break
    return found


def test_a_changed_line_of_a_rule_makes_the_proof_fail(kept):
    found = fates(kept, SHORT)
    assert len(found) == SHORT
    assert {name for name, end in found.items() if not end} <= set(STANDS)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_each_changed_line_of_a_rule_makes_the_proof_fail(kept):
    found = fates(kept, LONG)
    assert len(found) == LONG
    assert {name for name, end in found.items() if not end} == set(STANDS)
