"""The verdict on each wait of a policy: proved, refuted by a scenario, or open."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from ultrafolio.check.verdicts.replay import copied, replay
from ultrafolio.check.verdicts.verdict import Extent, Finding, check
from ultrafolio.engine.load import interpreted_of
from ultrafolio.errors import Defect
from ultrafolio.model import designs, scenario
from ultrafolio.model.designs import GUEST_MEMFD, S390
from ultrafolio.prove.before import Problem
from ultrafolio.prove.houdini import Houdini, Tally, Told
from ultrafolio.prove.paths import reached
from ultrafolio.prove.refuted import MAX_STATES, PLAIN_STATES
from ultrafolio.prove.rules import Rules, unchanged
from ultrafolio.prove.systems import Systems

from . import memfd, s390
from .nodes import Edge, Graph
from .ranks import Answer, Ranks
from .resources import awaited
from .waits import Waits

WAITS: dict[str, Waits] = {S390.name: s390.WAITS, GUEST_MEMFD.name: memfd.WAITS}
"""The waits of each design."""
Verdict = Literal["proved", "refuted", "open"]
VERDICTS: tuple[Verdict, ...] = ("proved", "refuted", "open")
Wait = tuple[str, str]
"""A rule by name, and what a thread waits for there: a name of tables.OBSTACLES, or of s390.py or memfd.py."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A scenario in which a wait is permanent: its name, how many steps its story has, what prints it, and the
    exceptions that its actors can be."""

    scenario: str
    steps: int
    command: str
    lasting: frozenset[str]


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict on one wait. answer: what the ranks say, of all that is waited for; found: a scenario in which the
    wait is permanent; expected: one in which it is, and as pin shared intends it, or in which only the VMM need not
    end it."""

    rule: str
    name: str
    answer: Answer
    found: Shown | None = None
    expected: Shown | None = None

    @property
    def verdict(self) -> Verdict:
        if self.found:
            return "refuted"
        return "open" if self.answer.open else "proved"


@dataclass(frozen=True)
class Hangs:
    """The outcome for one policy, on a machine. ranks: of the resources whose holds end."""

    systems: Systems
    waits: list[Judged]
    ranks: Mapping[str, int]
    tally: Tally
    figures: Mapping[str, int] = field(default_factory=dict)

    @property
    def code(self) -> int:
        """The exit code: 0 all proved, 1 one is refuted, 3 one is open."""
        verdicts = {wait.verdict for wait in self.waits}
        return 1 if "refuted" in verdicts else 3 if "open" in verdicts else 0


def ranked(
    systems: Systems, *, rules: Rules | None = None, tally: Tally | None = None, told: Told = lambda line: None
) -> tuple[list[Ranks], dict[Wait, Answer]]:
    """Returns the ranks, and the answer for each wait of these systems. Each part of them (waits.Part) is judged apart,
    as a scenario has the actors of one part only."""
    waits = WAITS[systems.design.name]
    rules = rules or unchanged(systems.design)
    problem = Problem(rules, systems.cfg, reached(rules, systems.cfg, systems.without))
    if waits.templates is not None:
        counted = {fact for fact in problem.tried if fact[0] in ("count", "sum")}
        problem.keep(counted | {fact for fact in problem.tried if fact[2] in waits.templates})
    run = Houdini(problem, tally or Tally(), told)
    run.run()
    answers: dict[tuple[object, ...], bool] = {}
    parts = [part for part in waits.apart if not part.about & systems.without]
    every = [Ranks(Graph(problem, run, waits, part, answers)) for part in parts]
    made: dict[Wait, Answer] = {}
    for ranks in every:
        for edge in ranks.graph.every:
            wait = wait_of(ranks.graph, edge)
            if wait and ranks.told_elsewhere(edge):
                ranks.told.add(wait)
            elif wait:
                for _, answer in ranks.permanent(edge):
                    made[wait] = _both(made.get(wait, Answer()), answer)
    return every, made


def wait_of(graph: Graph, edge: Edge) -> Wait | None:
    """The wait that a step is: of a fair rule, for something that is named; None where it gives up, or goes on."""
    rule, name = graph.waits.rule(edge.node.place.pc), awaited(graph, edge)
    if name is None or not rule.fair:
        return None
    return (rule.name, name) if edge.waits or edge.node.place.kind in graph.waits.retrying else None


def _both(one: Answer, other: Answer) -> Answer:
    return Answer(max(one.rank, other.rank), tuple(dict.fromkeys((*one.open, *other.open))), one.but | other.but)


def hangs(systems: Systems, *, tally: Tally | None = None, told: Told = lambda line: None) -> Hangs:
    """The outcome for one policy, with the scenarios that refute. Defect where a scenario contradicts the ranks."""
    tally = tally or Tally()
    every, answers = ranked(systems, tally=tally, told=told)
    found, expected = refuting(systems)
    waits = []
    for (rule, resource), answer in sorted(answers.items()):
        one = Judged(rule, resource, answer, found.get((rule, resource)), expected.get((rule, resource)))
        agrees(one, systems)
        waits.append(one)
    missing = set(found) - set(answers) - {wait for ranks in every for wait in ranks.told}
    if missing:
        raise Defect(f"permanent waits of {systems.label} that no rule has: {missing}", _of(systems))
    known = {name: 0 for ranks in every for name in ranks.known}
    known = {name: max(ranks.known.get(name, 0) for ranks in every) for name in known}
    figures = {
        "nodes": sum(len(ranks.graph.edges) for ranks in every),
        "steps": sum(len(ranks.graph.every) for ranks in every),
        "facts": len(every[0].graph.problem.kept),
    }
    return Hangs(systems, waits, known, tally, figures)


def _of(systems: Systems) -> dict[str, object]:
    return {"policy": asdict(systems.policy), "machine": systems.machine}


def agrees(one: Judged, systems: Systems) -> None:
    """Defect where a wait is permanent in a scenario that the answer covers."""
    for shown in (one.found, one.expected):
        if shown and not one.answer.open and not excepted(one.answer.but, shown.lasting, systems):
            raise Defect(
                f"{shown.scenario} has a permanent wait at {one.rule}, which the ranks of {systems.label} exclude",
                {**_of(systems), "scenario": shown.scenario, "reproduce": shown.command},
            )


def excepted(but: Collection[str], lasting: Collection[str], systems: Systems) -> bool:
    """Whether an exception of `but` can occur in a scenario. One that needs an actor that pins occurs only if it is in
    `lasting`."""
    return bool(set(but) - (set(WAITS[systems.design.name].pinning) - set(lasting)))


# ------------------------------------------------------------------------------------------------- scenarios
def completes(story: scenario.Scenario) -> bool:
    """Whether all I/O of a scenario completes."""
    return all(actor.get("completes", True) for _, actor in story.actors)


def refuting(systems: Systems) -> tuple[dict[Wait, Shown], dict[Wait, Shown]]:
    """For each wait that is permanent in a shipped scenario that meets the assumptions, the first such one; and the
    same of waits that are expected, or that the VMM could end."""
    found: dict[Wait, Shown] = {}
    expected: dict[Wait, Shown] = {}
    for story, stem, _ in systems.shipped():
        if not completes(story):
            continue
        for finding, wait, command in stalls(story, stem, systems):
            shown = Shown(stem, len(finding.steps), command, lasting(story))
            (expected if finding.expected or finding.kind != "permanent" else found).setdefault(wait, shown)
    return found, expected


def extent(systems: Systems, max_states: int = 0) -> Extent:
    """How far scenarios of these systems are explored."""
    if systems.machine:
        return Extent(max_states=max_states or PLAIN_STATES, machine=systems.machine)
    return Extent(max_states=max_states or MAX_STATES)


def stalls(story: scenario.Scenario, stem: str, systems: Systems) -> Iterator[tuple[Finding, Wait, str]]:
    """The waits of a scenario that are permanent, or that only the VMM could end, and what prints their story."""
    result = check(story, stem, systems.policy, systems.name, extent(systems))
    for finding in result.findings:
        if finding.kind in ("permanent", "vmm-bound"):
            for wait in permanent(finding, scenario.system(story, systems.policy)):
                yield finding, wait, result.command


def lasting(story: scenario.Scenario) -> frozenset[str]:
    """The exceptions that actors of a scenario can be."""
    kinds = {kind for kind, _ in story.actors}
    pinning = WAITS[story.design].pinning
    return frozenset(name for name, those in pinning.items() if kinds & {*those})


def permanent(finding: Finding, system: scenario.System) -> set[Wait]:
    """Returns the waits of a finding about a stall: each step of its cycle at which its actor is refused; where its
    actor takes no step of the cycle, the rule at which it stands."""
    waits = WAITS[designs.of(system.state).name]
    found = {
        (step.rule, str(name)) for step in finding.cycle
        if step.actor == finding.actor and (name := waits.awaited(step.rule, step.outcome)) in finding.obstacles
    }  # fmt: skip
    if any(step.actor == finding.actor for step in finding.cycle):
        return found
    assert finding.actor is not None
    _, state = replay(system, [step.by for step in (*finding.steps, *finding.cycle)])
    rule = waits.rule(state.task[finding.actor].pc)
    outcome = interpreted_of(state).step(copied(state), finding.actor, 0, 0)
    return {(rule.name, str(waits.awaited(rule.name, outcome)))}
