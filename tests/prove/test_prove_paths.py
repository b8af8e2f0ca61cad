"""The paths that proofs are made of are the interpreter's steps: the same condition, the same effect, every rule."""

import pytest

from proving import place_of, walk
from ultrafolio.check.verdicts.replay import copied
from ultrafolio.engine.load import interpreted
from ultrafolio.model.rule import RULES
from ultrafolio.prove import paths, rules
from ultrafolio.prove.evaluate import Concrete, changes, stepped

SHORT, LONG = 1_000, 100_000


class Translated:
    """The paths of policies, read when they are asked for."""

    def __init__(self):
        self.by_policy = {}

    def at(self, policy, place):
        by_place = self.by_policy.setdefault(policy, {})
        if place not in by_place:
            by_place[place] = paths.paths_of(rules.unchanged(), policy.codes(), place)
        return by_place[place]


def the_path(translated, policy, here, place):
    taken = [path for path in translated.at(policy, place) if all(here.holds(c) for c in path.conditions)]
    assert len(taken) == 1, f"{place.name}: {len(taken)} paths are open"
    return taken[0]


def compared(count):
    """Compare so many steps; how often each rule ran."""
    translated, ran, number = Translated(), {}, 0
    while sum(ran.values()) < count:
        for policy, state, t, op, page in walk(number, changed=0.3):
            place = place_of(state, t)
            if place.pc not in RULES:
                continue
            here = Concrete(copied(state), {"S": t}, {"choose.op": op, "choose.page": page})
            path = the_path(translated, policy, here, place)
            new = copied(state)
            outcome = interpreted().step(new, t, op, page)
            assert path.outcome == outcome, (number, place.name)
            if outcome > 0:
                assert stepped(path, here) == changes(here.state, new), (number, place.name)
            else:
                assert not changes(here.state, new), (number, place.name)
            ran[RULES[place.pc].name] = ran.get(RULES[place.pc].name, 0) + 1
        number += 1
    return ran


def test_a_path_is_the_step_of_the_interpreter():
    ran = compared(SHORT)
    assert len(ran) > len(RULES) // 2


@pytest.mark.slow
def test_a_path_is_the_step_of_the_interpreter_in_many_states():
    assert set(compared(LONG)) == {rule.name for rule in RULES.values()}
