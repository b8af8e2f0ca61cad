"""The paths that proofs are made of are the interpreter's steps: the same condition, the same effect, every rule."""

import pytest

from proving import place_of, walk, walk_huge, walk_memfd
from ultrafolio.check.verdicts.replay import copied
from ultrafolio.engine.load import interpreted_of
from ultrafolio.model.designs import GUEST_MEMFD, S390
from ultrafolio.model.policies import find_any
from ultrafolio.prove import paths, rules, without
from ultrafolio.prove.evaluate import Concrete, changes, stepped
from ultrafolio.prove.memfd.configuration import configuration
from ultrafolio.prove.state import Refused

SHORT, LONG = 1_000, 100_000
NEVER_RUN = {"convert-restructure", "convert-rollback"}
"""Rules of guest_memfd for huge pages only."""
NO_HOLE = {"hole-start", "hole-lock", "hole-punch", "hole-end"}
"""Those that no system with huge pages has."""
UNREAD = {
    "rule convert-drain-own: a turn of a loop over huge pages changes mm.refs of one page",
    "rule convert-drain-all: a turn of a loop over huge pages changes mm.refs of one page",
    "rule convert-zap: a loop in a loop",
    "rule convert-zap: a turn of a loop over huge pages changes vm.no_table of one page",
}
"""What is refused of systems with huge pages."""
NOT_READ = {"no-kick", "pamt-race"}
"""Variants of which a rule has a form that is refused, on tdx: nothing is proved of them."""


class Translated:
    """The paths of policies, read when they are asked for."""

    def __init__(self):
        self.by_policy = {}

    def at(self, design, policy, cfg, place):
        by_place = self.by_policy.setdefault(policy, {})
        if place not in by_place:
            try:
                by_place[place] = paths.paths_of(rules.unchanged(design), cfg, place)
            except Refused as refused:
                chosen, machine = policy
                known = cfg["block"] or (machine == "tdx" and NOT_READ & {*chosen.variants})
                assert known and (not cfg["block"] or str(refused) in UNREAD), place.name
                by_place[place] = []
        return by_place[place]


def the_path(ways, here, place):
    taken = [path for path in ways if all(here.holds(c) for c in path.conditions)]
    assert len(taken) == 1, f"{place.name}: {len(taken)} paths are open"
    return taken[0]


def s390_walk(number):
    for policy, *step in walk(number, changed=0.3):
        yield policy, policy.codes(), *step


def memfd_walk(number):
    for policy, machine, *step in walk_memfd(number, changed=0.3):
        yield (policy, machine), configuration(policy, machine), *step


def huge_walk(number):
    for policy, machine, *step in walk_huge(number, changed=0.3):
        yield (policy, machine), configuration(policy, machine, huge=True), *step


def compared(design, walked, count):
    """Compare so many steps; how often each rule ran."""
    translated, ran, number = Translated(), {}, 0
    while sum(ran.values()) < count:
        for policy, cfg, state, t, op, page in walked(number):
            place = place_of(state, t)
            if place.pc not in design.rules:
                continue
            here = Concrete(copied(state), {"S": t}, {"choose.op": op, "choose.page": page})
            ways = translated.at(design, policy, cfg, place)
            new = copied(state)
            outcome = interpreted_of(new).step(new, t, op, page)
            if not ways:
                continue
            path = the_path(ways, here, place)
            assert path.outcome == outcome, (number, place.name)
            if outcome > 0:
                assert stepped(path, here) == changes(here.state, new), (number, place.name)
            else:
                assert not changes(here.state, new), (number, place.name)
            ran[place.rule] = ran.get(place.rule, 0) + 1
        number += 1
    return ran


@pytest.mark.parametrize("machine", GUEST_MEMFD.machines)
def test_each_rule_is_translated_on_each_machine(machine):
    """Else nothing is proved there: a rule of another form is refused."""
    cfg = configuration(find_any("gmem-7.4"), machine)
    assert len(paths.reached(rules.unchanged(GUEST_MEMFD), cfg, without(GUEST_MEMFD))) > 40


CASES = {
    "s390": (S390, s390_walk, set()),
    "guest_memfd": (GUEST_MEMFD, memfd_walk, NEVER_RUN),
    "huge pages": (GUEST_MEMFD, huge_walk, NO_HOLE | {"convert-drain-own", "convert-drain-all"}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_path_is_the_step_of_the_interpreter(name):
    design, walked, _ = CASES[name]
    ran = compared(design, walked, SHORT)
    assert len(ran) > len(design.rules) // 2


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", CASES)
def test_a_path_is_the_step_of_the_interpreter_in_many_states(name):
    design, walked, never = CASES[name]
    assert set(compared(design, walked, LONG)) == {rule.name for rule in design.rules.values()} - never
