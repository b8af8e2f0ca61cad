"""The targets of a jump: the counterexample, its loop, or the nearest state that satisfies an expression."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from ultrafolio.check.search.first import explore
from ultrafolio.check.search.graph import Graph
from ultrafolio.check.verdicts.verdict import MAX_MIB, MAX_STATES, Extent, Result, check
from ultrafolio.export.formats import has_story
from ultrafolio.nouns import plural

from .expression import compiled
from .walk import Walk

COUNTEREXAMPLE, LOOP = "counterexample", "loop"


@dataclass(frozen=True, slots=True)
class Story:
    """The checker's worst counterexample as index paths.

    verdict  a sentence; path: to the violation, or to the start of the loop; loop: the repeated steps
    wait     lines with the waiter, what it waits for, the holder and the releasing step; may be empty
    exists   whether something failed or waited; else the path is empty
    """

    verdict: str
    path: tuple[int, ...]
    loop: tuple[int, ...]
    wait: list[str]
    exists: bool


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a jump. path: None if there is no such state; message: about the state, or the searched part."""

    path: tuple[int, ...] | None
    message: str
    complete: bool = True


class Guide:
    """The checker's result for a walk's graph; computed on first use, within the given limits."""

    def __init__(self, walk: Walk, *, max_states: int = MAX_STATES, max_mib: int = MAX_MIB) -> None:
        self.walk, self.max_states, self.max_mib = walk, max_states, max_mib

    @functools.cached_property
    def result(self) -> Result:
        walk = self.walk
        extent = Extent(self.max_states, self.max_mib, machine=walk.machine)
        return check(walk.story, walk.scenario, walk.choices, walk.policy, extent)

    @functools.cached_property
    def graph(self) -> Graph:
        return explore(self.walk.system, max_states=self.max_states, max_mib=self.max_mib)

    @functools.cached_property
    def story(self) -> Story:
        result, worst = self.result, self.result.worst
        kind = f", {worst.kind}" if worst.kind else ""
        verdict = f"{result.verdict}{kind}" + (f": {worst.name}" if worst.kind else "")
        if not has_story(worst):
            return Story(result.reason or verdict, (), (), [], False)
        path = self.walk.indices([step.by for step in (*worst.steps, *worst.cycle)])
        ever = "waits for ever for" if worst.verdict == "violated" or worst.expected else "waits for"
        wait = []
        if w := worst.wait:
            wait = [f"{w.waiter} {ever}: {w.waits_for}", f"held by: {w.held_by}", f"released by: {w.released_by}"]
            wait += [f"taken again by: {w.taken_by}"] if w.taken_by else []
        return Story(verdict, path[: len(worst.steps)], path[len(worst.steps) :], wait, True)

    def goto(self, target: str) -> Found:
        """The path to `counterexample`, once around its `loop`, or a shortest one to a state where an expression holds.

        Raises InputError for a malformed expression.
        """
        if target not in (COUNTEREXAMPLE, LOOP):
            return self.search(target)
        story, done = self.story, self.result.complete
        if not story.exists:
            return Found(None, f"there is no {target}: {story.verdict}", done)
        if target == COUNTEREXAMPLE:
            return Found(story.path, story.verdict, done)
        if story.loop:
            return Found((*story.path, *story.loop), f"once around the loop of {plural(len(story.loop), 'step')}", done)
        rests = "nothing that must happen is enabled: it rests here for ever" if story.wait else "no step repeats"
        return Found(story.path, f"the story has no loop: {rests}", done)

    def search(self, expression: str) -> Found:
        """A shortest path to a state in which the expression is not zero."""
        holds, graph = compiled(expression, self.walk.system.state), self.graph
        for number in range(graph.states):
            if holds(graph.unpack(number)):
                path = self.walk.indices(graph.path(number))
                near = f"the nearest of {plural(graph.states, 'state')}: {plural(len(path), 'step')}"
                return Found(path, near, graph.complete)
        seen = (
            f"none of {plural(graph.states, 'reachable state')}"
            if graph.complete
            else (f"none of {plural(graph.states, 'state')}, and there are more: {graph.reason}")
        )
        return Found(None, f"{seen} satisfies {expression}", graph.complete)
