"""Helpers of the checker's tests: every scenario once, and a second, naive explorer to hold the checker against."""

import functools
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ultrafolio.check.search.graph import Graph, explore
from ultrafolio.check.verdicts.replay import copied, frozen
from ultrafolio.check.verdicts.verdict import Result, check
from ultrafolio.engine.interp import to_lists
from ultrafolio.engine.load import interpreted
from ultrafolio.model import scenario
from ultrafolio.model.layout import IDLE_PC
from ultrafolio.model.policies import find
from ultrafolio.model.rule import RULES

ROOT = Path(__file__).parents[2]
PATHS = {path.stem: path for path in sorted((ROOT / "scenarios").glob("*.toml"))}


@functools.cache
def story(name: str) -> scenario.Scenario:
    return scenario.read(PATHS[name])


def system(name: str, policy: str) -> scenario.System:
    return scenario.system(story(name), find(policy, story(name).tables))


@functools.cache
def checked(name: str, policy: str) -> Result:
    return check(story(name), name, find(policy, story(name).tables), policy)


@functools.cache
def graph(name: str, policy: str) -> Graph:
    return explore(system(name, policy))


def finding(result: Result, start: str) -> Any:
    """The finding of the property whose name starts so."""
    return next(f for f in result.findings if f.name.startswith(start))


@dataclass
class Naive:
    """A state graph as plain lists.

    depth     steps to each state, in the order reached
    edges     per state: (actor, target) of each step
    fair      per state: the actors whose enabled step is fair
    states    the states themselves, as lists
    broke     per property number: steps to the first violation
    fired     steps taken per rule
    """

    depth: list[int] = field(default_factory=list)
    edges: list[list[tuple[int, int]]] = field(default_factory=list)
    fair: list[set[int]] = field(default_factory=list)
    states: list[Any] = field(default_factory=list)
    broke: dict[int, int] = field(default_factory=dict)
    fired: dict[str, int] = field(default_factory=dict)


def naive(made: scenario.System, *, rules: Any = None, until: int = 0, most: int = 20_000) -> Naive:
    """All interleavings with the interpreted `rules`, a dictionary and a queue; to the first break of property `until`.

    Shares with the checker the rules and nothing else.
    """
    run, out = rules or interpreted(), Naive()
    first = to_lists(made.state)
    number = {frozen(first): 0}
    queue = deque([first])
    out.depth.append(0)
    while queue and until not in out.broke:
        state = queue.popleft()
        here = len(out.states)
        out.states.append(state)
        steps, fair = [], set()
        for t, choices in enumerate(made.choices):
            pc = state.task[t].pc
            idle = pc == IDLE_PC[state.who[t].kind]
            for op, page in choices if idle else [(0, 0)]:
                after = copied(state)
                p = run.focus(after, t, page)
                was = after.uv[p].state
                outcome = run.step(after, t, op, page)
                if outcome < 0:
                    continue
                wrong = run.broken(after, t, pc, p, was, outcome)
                if wrong:
                    out.broke.setdefault(wrong, out.depth[here] + 1)
                out.fired[RULES[pc].name] = out.fired.get(RULES[pc].name, 0) + 1
                if not idle and RULES[pc].fair:
                    fair.add(t)
                key = frozen(after)
                if key not in number:
                    number[key] = len(number)
                    out.depth.append(out.depth[here] + 1)
                    queue.append(after)
                    assert len(number) <= most, "too large for the naive explorer"
                steps.append((t, number[key]))
        out.edges.append(steps)
        out.fair.append(fair)
    return out
