"""Turns of an exploration by two workers: how many states a timed turn expands, and where a turn ends."""

from types import SimpleNamespace

import numpy as np
import pytest

from ultrafolio.check.search import allocation, turns
from ultrafolio.check.search.packing import RUNNING

ROUND = allocation.SHARED_ROUND
TEAM = SimpleNamespace(workers=2)


class Exploration:
    """Expands states by count alone. What does not fill a round is left by shared turns, as sharing.py leaves it.

    took: of each turn its way, where it began, and the number of states it was to expand below.
    """

    def __init__(self, states):
        self.took = []
        self.count = {"stop": np.array([RUNNING]), "next": np.array([0]), "states": np.array([states])}

    def alone(self, space, until):
        self._turn("alone", until, 1)

    def shared(self, space, team, until):
        self._turn("shared", until, ROUND)

    def _turn(self, way, until, whole):
        before = int(self.count["next"][0])
        end = max(min(until, int(self.count["states"][0])), before)
        self.count["next"][0] = before + (end - before) // whole * whole
        if until:
            self.took.append((way, before, until))


@pytest.fixture(params=[True, False])
def shares(request, monkeypatch):
    """Whether two workers are faster, whatever the clock says."""
    monkeypatch.setattr(turns, "is_faster", lambda alone, shared: request.param)
    return request.param


def test_both_timed_turns_expand_the_same_part_of_the_states(shares):
    """One in TRIAL of those before, in whole rounds; the next trial is where their number has doubled."""
    found = Exploration(6 * turns.SHARE_FROM)
    turns.Turns(found.count, TEAM).take(found, None)
    start, size = turns.SHARE_FROM, turns.SHARE_FROM // turns.TRIAL // ROUND * ROUND
    assert size >= ROUND and found.took[:3] == [
        ("alone", 0, start), ("alone", start, start + size), ("shared", start + size, start + 2 * size)]  # fmt: skip
    way, again = ("shared" if shares else "alone"), 2 * (start + 2 * size)
    assert found.took[3] == (way, start + 2 * size, again)
    size = again // turns.TRIAL // ROUND * ROUND
    assert ("alone", again, again + size) in found.took and ("shared", again + size, again + 2 * size) in found.took
    assert int(found.count["next"][0]) == int(found.count["states"][0])


def test_a_small_trial_is_one_round(shares, monkeypatch):
    monkeypatch.setattr(turns, "SHARE_FROM", 4)
    found = Exploration(8 * ROUND)
    turns.Turns(found.count, TEAM).take(found, None)
    assert found.took[1:3] == [("alone", 4, 4 + ROUND), ("shared", 4 + ROUND, 4 + 2 * ROUND)]


def test_one_worker_expands_what_fills_no_round_and_no_more_than_there_was(monkeypatch):
    monkeypatch.setattr(turns, "is_faster", lambda alone, shared: True)
    monkeypatch.setattr(turns, "SHARE_FROM", 4)
    rest = 5
    found = Exploration(4 + 2 * ROUND + rest)
    turns.Turns(found.count, TEAM).take(found, None)
    before = 4 + 2 * ROUND
    assert found.took[-2:] == [("shared", before, 2 * before), ("alone", before, before + rest)]


def test_a_timed_turn_that_ends_early_decides_nothing(monkeypatch):
    decided = []
    monkeypatch.setattr(turns, "is_faster", lambda *took: decided.append(took) or True)
    monkeypatch.setattr(turns, "SHARE_FROM", 4)
    found = Exploration(4 + ROUND // 2)
    turns.Turns(found.count, TEAM).take(found, None)
    assert not decided and int(found.count["next"][0]) == 4 + ROUND // 2
