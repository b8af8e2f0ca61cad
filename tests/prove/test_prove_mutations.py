"""A changed line of a rule makes the proof fail, or makes a guest hang, or is listed with the reason why not."""

import tomllib
from pathlib import Path

import pytest

pytest.importorskip("z3", reason="the extra `prove` is not installed")

from proving import FEW_KINDS, ONE
from rule_mutations import fates
from ultrafolio.model import policies
from ultrafolio.prove import all_but

SHORT, LONG = 20, 200
FILE = Path(__file__).parents[1] / "support/data/mutations-that-stand.toml"
STANDS = {name for entry in tomllib.loads(FILE.read_text())["stands"] for name in entry["mutations"]}
"""Mutations under which the whole proof stands; the file says why."""


def ends(kept, count, stands=frozenset()):
    return dict(fates(kept[0], policies.find(ONE), all_but(FEW_KINDS), count, stands))


def test_a_changed_line_of_a_rule_makes_the_proof_fail(kept):
    found = ends(kept, SHORT, STANDS)
    assert len(found) == SHORT
    listed = STANDS & set(found)
    assert listed and {name for name, end in found.items() if not end} == listed


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_each_changed_line_of_a_rule_makes_the_proof_fail(kept):
    found = ends(kept, LONG)
    assert len(found) == LONG
    assert {name for name, end in found.items() if not end} == STANDS
