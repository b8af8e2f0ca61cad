"""The story that becomes a test: a counterexample, or a run in which all that can be begun ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrafolio.check.search.first import explore
from ultrafolio.check.verdicts import told_in
from ultrafolio.check.verdicts.replay import NotCertified, Step, replay
from ultrafolio.check.verdicts.verdict import MAX_MIB, Extent, Result, check
from ultrafolio.errors import InputError
from ultrafolio.export import trace_file
from ultrafolio.export.formats import has_story
from ultrafolio.export.trace_file import Trace
from ultrafolio.model import scenario
from ultrafolio.model.designs import GUEST_MEMFD, S390, of
from ultrafolio.model.guest_memfd import layout as memfd
from ultrafolio.model.layout import DEAD, ENDLESS, TOUCH, VCPU
from ultrafolio.model.policies import AnyPolicy
from ultrafolio.model.scenario import Scenario, System

MAX_STATES = 1_000_000
_RESTS = (memfd.DMA_STANDS, memfd.DMA_ASKED, memfd.PIPE_READ, DEAD)
"""Places at which no call is under way: of a device with its pins, of a page in a pipe, of a vCPU of a dead VM."""


@dataclass(frozen=True, slots=True)
class Story:
    """A story of guest_memfd.

    scenario, policy  their names;  title: of the scenario;  verdict: a line about it
    wait     lines about who waits for what, or none
    steps    the replayed steps; loop: the number of those that repeat for ever, at their end
    """

    scenario: str
    policy: str
    title: str
    verdict: str
    wait: tuple[str, ...]
    system: System
    steps: tuple[Step, ...]
    loop: int


def of_memfd(design: str, where: str) -> None:
    """Raises InputError for another design than guest_memfd, by its name."""
    if design != GUEST_MEMFD.name:
        raise InputError(
            f"{where}: a story of the design {design}",
            allowed=f"a story of the design {GUEST_MEMFD.name}",
            cause="its steps are calls of an ultravisor and faults of a secure guest, which a test process cannot make",
            then="ultrafolio check SCENARIO --policy POLICY --format ktap"
            if design == S390.name
            else "docs/model.md, section 9",
        )


def checked(story: Scenario, name: str, policy: AnyPolicy, policy_name: str) -> Story:
    """The counterexample of a scenario under a policy; where the verdict is holds, the longest of the shortest runs
    that end with nothing left to begin. InputError for s390, or for more than MAX_STATES states."""
    of_memfd(story.design, name)
    system = scenario.system(story, policy)
    result = check(story, name, policy, policy_name, Extent(MAX_STATES, MAX_MIB))
    if not result.complete:
        raise InputError(
            f"{name}: too large for a test", value=result.reason, allowed=f"{MAX_STATES} states", then="fewer actors"
        )
    worst = result.worst
    if has_story(worst) and worst.verdict == "violated":
        steps, loop = (*worst.steps, *worst.cycle), len(worst.cycle)
    else:
        steps, loop = tuple(replay(system, _settled(system))[0]), 0
    return Story(
        name, policy_name, story.title, _verdict(result.verdict, worst.kind), _wait(result), system, steps, loop
    )


def given(
    story: Scenario, name: str, policy: AnyPolicy, policy_name: str, record: Mapping[str, Any], where: str
) -> Story:
    """The story of a record of `check --json`. Raises InputError where the rules do not have its steps."""
    if not record["trace"] and not record["cycle"]:
        return checked(story, name, policy, policy_name)
    of_memfd(story.design, where)
    system = scenario.system(story, policy)
    was = [*record["trace"], *record["cycle"]]
    try:
        steps, _ = replay(system, [step["by"] for step in was])
    except (NotCertified, IndexError) as error:
        raise _strange(where, str(error), name, policy_name) from None
    for number, (step, given_step) in enumerate(zip(steps, was, strict=True), 1):
        if step.record() != given_step:
            raise _strange(where, f"step {number}: {given_step}", name, policy_name)
    violated = record["verdict"] == "violated"
    told = _told(record["waiter"], record["waits_for"], record["held_by"], record["released_by"]) if violated else ()
    return Story(
        name, policy_name, story.title, _verdict(record["verdict"], record["kind"]), told, system, tuple(steps),
        len(record["cycle"]),
    )  # fmt: skip


def saved(trace: Trace, where: str) -> Story:
    """The story of a saved trace file. Raises InputError where the rules do not have its steps, or its claim fails."""
    of_memfd(of(trace.system.state).name, where)
    if failure := trace_file.verify(trace):
        raise _strange(where, failure, trace.scenario, trace.policy, "--save")
    steps, _ = replay(trace.system, trace.path)
    end = len(trace.path) if trace.loop is None else trace.loop
    verdict = {"property": "violated, safety", "wait": "violated", "stall": "holds"}[trace.claim]
    told: tuple[str, ...] = ()
    if trace.wait:
        words = told_in.of(trace.system.state)
        wait = words.wait_from_story(trace.system, trace.path[:end], trace.path[end:], trace.wait)
        verdict = _verdict(verdict, trace.wait.kind)
        told = _told(wait.waiter, wait.waits_for, wait.held_by, wait.released_by)
    title = trace.given["scenario"]["document"].get("title", "")
    return Story(
        trace.scenario, trace.policy, title, verdict, told, trace.system, tuple(steps), len(trace.path) - end
    )  # fmt: skip


def _strange(where: str, value: str, name: str, policy: str, kept: str = "--json >") -> InputError:
    return InputError(
        f"{where}: the rules do not have this story",
        value=value,
        allowed="a record that today's rules made, unchanged",
        cause="it was changed, or other rules made it",
        then=f"ultrafolio check {name} --policy {policy} {kept} {Path(where).name}",
    )


def _verdict(verdict: str, kind: str | None) -> str:
    return f"{verdict}, {kind}" if verdict == "violated" and kind else verdict


def _wait(result: Result) -> tuple[str, ...]:
    """Returns who waits for what in a counterexample."""
    wait = result.worst.wait
    if wait is None or result.verdict != "violated":
        return ()
    return _told(wait.waiter, wait.waits_for, wait.held_by, wait.released_by)


def _told(waiter: str | None, waits_for: str | None, held_by: str | None, released_by: str | None) -> tuple[str, ...]:
    """Returns a wait in words; nothing without a waiter."""
    if waiter is None:
        return ()
    return f"{waiter} waits for ever for: {waits_for}", f"held by: {held_by}", f"released by: {released_by}"


def _settled(system: System) -> list[int]:
    """Returns a shortest path to the last state, in breadth-first order, in which no call is under way and no actor can
    begin another that it has a limit for; to the last state of all where there is none."""
    graph = explore(system, max_states=MAX_STATES)
    limited = [any(op != TOUCH for op, _ in ops) or who["kind"] != VCPU for ops, who in _actors(system)]
    for number in range(graph.states - 1, 0, -1):
        if _rests(graph.unpack(number), limited):
            return graph.path(number)
    return graph.path(graph.states - 1)


def _actors(system: System) -> list[tuple[list[tuple[int, int]], Any]]:
    """Returns per actor its choices and its record."""
    return list(zip(system.choices, system.state.who, strict=True))


def _rests(state: Any, limited: Sequence[bool]) -> bool:
    """Whether no call is under way, and no actor that has a limit can begin another."""
    for task, actor, who, ends in zip(state.task, state.actor, state.who, limited, strict=True):
        if task["pc"] != GUEST_MEMFD.idle[who["kind"]] and task["pc"] not in _RESTS:
            return False
        if ends and actor["budget"] not in (0, ENDLESS):
            return False
    return True
