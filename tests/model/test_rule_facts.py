"""The facts of each rule match its behaviour: takers, ultravisor call, what it sleeps for, cost."""

from pathlib import Path

import pytest

from ultrafolio.check.verdicts.replay import copied, frozen
from ultrafolio.engine.interp import to_lists
from ultrafolio.engine.load import interpreted
from ultrafolio.model import layout, policies, scenario
from ultrafolio.model.layout import ACTOR_KINDS
from ultrafolio.model.rule import RULES
from ultrafolio.sim.costs import DEFAULTS

SCENARIOS = sorted((Path(__file__).parents[2] / "scenarios").glob("*.toml"))
MOST = 150
NAMES = ("folio-bitmap", "split-writeback", "linux-7.2")


def steps(system, most=MOST):
    """(thread, its rule, the state before, the state after, the outcome) of the first steps found, breadth first."""
    start = to_lists(system.state)
    seen, queue = {frozen(start)}, [start]
    while queue and most:
        state = queue.pop(0)
        for t, choices in enumerate(system.choices):
            idle = state.task[t].pc == layout.IDLE_PC[state.who[t].kind]
            for op, page in choices if idle else [(0, 0)]:
                after = copied(state)
                pc = state.task[t].pc
                outcome = interpreted().step(after, t, op, page) if pc in RULES else 0
                yield t, pc, state, after, outcome
                most -= 1
                if outcome > 0 and frozen(after) not in seen:
                    seen.add(frozen(after))
                    queue.append(after)


@pytest.fixture(scope="module")
def taken():
    """For each rule the kinds that took it, whether a page's state changed by it, and how it was refused."""
    found = {pc: (set(), set(), set()) for pc in RULES}
    for path in SCENARIOS:
        story = scenario.read(path)
        for name in NAMES:
            for t, pc, before, after, outcome in steps(scenario.system(story, policies.find(name, story.tables))):
                kinds, changed, refused = found.get(pc, (set(), set(), set()))
                if outcome > 0:
                    kinds.add(ACTOR_KINDS[before.who[t].kind])
                    changed.add(frozen(before)[0] != frozen(after)[0])
                elif outcome:
                    refused.add(outcome)
    return found


def test_only_the_takers_take_a_rule(taken):
    assert not {
        RULES[pc].name: kinds - set(RULES[pc].takers)
        for pc, (kinds, *_) in taken.items()
        if kinds - set(RULES[pc].takers)
    }
    assert sum(bool(kinds) for kinds, *_ in taken.values()) > 40


def test_a_rule_of_the_host_that_changes_a_page_state_makes_a_call(taken):
    rules = {pc for pc, (_, changed, _) in taken.items() if True in changed}
    changing = {RULES[pc].name for pc in rules if RULES[pc].actor == "host"}
    assert changing == {rule.name for rule in RULES.values() if rule.call and rule.name in changing}
    assert {"import-call", "accessible-export", "accessible-pin"} <= changing


def test_a_rule_that_sleeps_is_refused_for_what_it_sleeps_for(taken):
    words = {layout.W_LOCK: "lock", layout.W_WRITEBACK: "writeback", layout.W_MUTEX: "mutex", layout.W_REFS: "refs"}
    for pc, (_, _, refused) in taken.items():
        said = {words[outcome] for outcome in refused if outcome in words}
        assert said <= set(RULES[pc].sleeps), RULES[pc].name


def test_each_class_of_cost_is_one_and_most_are_used():
    used = {word.removeprefix("~").partition("@")[0] for rule in RULES.values() for word in rule.cost}
    assert used <= set(DEFAULTS)
    assert set(DEFAULTS) - used == {"unpin_call", "split_page", "read", "write"}
