"""benchmarks/reduction.py: reduced searches find what the whole graph has, and a reduction that loses is noticed."""

import sys

import numpy as np
import pytest

from checking import ROOT, system

sys.path.append(str(ROOT / "benchmarks"))
import reduction

VIOLATED, ENDS = ("05-late-failure", "per-page"), ("08-unshare-under-pin", "per-page")
"""One breaks a property; one ends in two states, of which a wrong reduction loses one."""


@pytest.mark.parametrize(("name", "policy"), [VIOLATED, ("31-import-mutex-writeback", "split")])
def test_reduced_searches_reach_fewer_states_and_find_the_same(name, policy):
    row = reduction.measured(name, "one folio", system(name, policy), 2_000)
    assert row["ceiling"] <= row["remembered"] < row["states"]


def test_folios_without_a_common_actor_do_not_multiply():
    (made,) = [one for name, _, one in reduction.systems(False) if name == "two folios, refuse-large"]
    row = reduction.measured("two folios", "many folios", made, 2_000)
    assert row["remembered"] < row["states"] / 10


def test_a_set_that_is_not_persistent_is_noticed(monkeypatch):
    def every(small):
        able = np.array([[bool(some) for some in here] for here in small.steps])
        return {chosen: able[:, list(chosen)].any(axis=1) for chosen in reduction.subsets(small.actors)}

    monkeypatch.setattr(reduction, "exact", every)
    with pytest.raises(AssertionError, match="ceiling finds"):
        reduction.measured("a wrong reduction", "one folio", system(*ENDS), 500)


def test_a_large_system_is_left_out():
    assert reduction.measured("large", "one folio", system(*VIOLATED), 20) is None
