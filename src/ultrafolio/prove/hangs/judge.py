"""The verdict on each wait of a policy: proved, refuted by a scenario, or open."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from ultrafolio import shipped
from ultrafolio.check.verdicts.replay import copied, replay
from ultrafolio.check.verdicts.verdict import Extent, Finding, check
from ultrafolio.engine.load import interpreted
from ultrafolio.errors import Defect
from ultrafolio.model import scenario
from ultrafolio.model.layout import PIN, RING, VCPU
from ultrafolio.model.policy import Policy
from ultrafolio.model.rule import RULES
from ultrafolio.prove.before import Problem
from ultrafolio.prove.facts import PAGES, THREAD
from ultrafolio.prove.houdini import Houdini, Tally, Told
from ultrafolio.prove.paths import reached
from ultrafolio.prove.refuted import MAX_STATES
from ultrafolio.prove.rules import Rules, unchanged
from ultrafolio.prove.systems import meets

from .nodes import Edge, Graph
from .ranks import LONG_TERM, Answer, Ranks
from .resources import awaited

Verdict = Literal["proved", "refuted", "open"]
VERDICTS: tuple[Verdict, ...] = ("proved", "refuted", "open")
Wait = tuple[str, str]
"""A rule by name, and what a thread waits for there: a name of tables.OBSTACLES, or of resources.py."""
THREADS = (
    "its device has at least one page", "it uses at least one page", "it uses as many pages as its device has",
    "it holds at most one reference of its own", "it holds no reference of its own", "it has pinned no page",
    "it has pinned a page", "its number of pinned pages is not negative", "it has pinned at most all pages",
    "its range is the folio of its page", "it is in its range", "it is in its range or at the end",
    "its folio is in no writeback", "no I/O of writeback is in flight on its folio", "nobody pins its page",
    "it is not in the second of the posted loops",
)  # fmt: skip
OF_PAGES = (
    "the folio lock is taken or free", "a count is frozen or not", "a page walked is walked once",
    "no lock is taken on another page of a folio than the first",
    "no other page of a folio than the first is in writeback",
    "no other page of a folio than the first has a count of the folio",
    "no other page of a folio than the first is frozen", "the ultravisor refuses no call",
)  # fmt: skip
"""The templates that these proofs need; with all of them a proof takes twice as long."""
assert not {*THREADS} - {*THREAD} and not {*OF_PAGES} - {*PAGES}


@dataclass(frozen=True, slots=True)
class Shown:
    """A scenario in which a wait is permanent: its name, how many steps its story has, what prints it, and whether an
    actor of it pins for long."""

    scenario: str
    steps: int
    command: str
    long_term: bool


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict on one wait. answer: what the ranks say, of all that is waited for; found: a scenario in which the
    wait is permanent; expected: one in which it is, and as pin shared intends it."""

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
    """The outcome for one policy. ranks: of the resources whose holds end."""

    policy: str
    without: Collection[int]
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
    policy: Policy,
    *,
    without: frozenset[int],
    rules: Rules | None = None,
    tally: Tally | None = None,
    told: Told = lambda line: None,
) -> tuple[Ranks, dict[Wait, Answer]]:
    """What the ranks say of each wait of a policy, with no actor of the kinds `without`."""
    rules = rules or unchanged()
    problem = Problem(rules, policy.codes(), reached(rules, policy.codes(), without))
    counted = {fact for fact in problem.tried if fact[0] in ("count", "sum")}
    problem.keep(counted | {fact for fact in problem.tried if fact[2] in (*THREADS, *OF_PAGES)})
    run = Houdini(problem, tally or Tally(), told)
    run.run()
    ranks = Ranks(Graph(problem, run))
    made: dict[Wait, Answer] = {}
    for edge in ranks.graph.every:
        wait = wait_of(edge)
        if wait and ranks.told_elsewhere(edge):
            ranks.told.add(wait)
        elif wait:
            for _, answer in ranks.permanent(edge):
                made[wait] = _both(made.get(wait, Answer()), answer)
    return ranks, made


def wait_of(edge: Edge) -> Wait | None:
    """The wait that a step is: of a fair rule, for something that is named; None where it gives up, or goes on."""
    rule, name = RULES[edge.node.place.pc], awaited(edge.path.outcome)
    if name is None or not rule.fair:
        return None
    return (rule.name, name) if edge.waits or edge.node.place.kind == VCPU else None


def _both(one: Answer, other: Answer) -> Answer:
    return Answer(max(one.rank, other.rank), tuple(dict.fromkeys((*one.open, *other.open))), one.but | other.but)


def hangs(
    policy: Policy, name: str, *, without: frozenset[int], tally: Tally | None = None, told: Told = lambda line: None
) -> Hangs:
    """The outcome for one policy, with the scenarios that refute. Defect where a scenario contradicts the ranks."""
    tally = tally or Tally()
    ranks, answers = ranked(policy, without=without, tally=tally, told=told)
    found, expected = refuting(policy, name, without)
    waits = []
    for (rule, resource), answer in sorted(answers.items()):
        one = Judged(rule, resource, answer, found.get((rule, resource)), expected.get((rule, resource)))
        _agrees(one, policy, name)
        waits.append(one)
    missing = set(found) - set(answers) - ranks.told
    if missing:
        raise Defect(f"permanent waits of {name} that no rule has: {missing}", {"policy": asdict(policy)})
    graph = ranks.graph
    figures = {"nodes": len(graph.edges), "steps": len(graph.every), "facts": len(graph.problem.kept)}
    return Hangs(name, without, waits, ranks.known, tally, figures)


def _agrees(one: Judged, policy: Policy, name: str) -> None:
    """Defect where a wait is permanent in a scenario that the answer covers."""
    for shown in (one.found, one.expected):
        if shown and not one.answer.open and not one.answer.but - ({LONG_TERM} if not shown.long_term else set()):
            raise Defect(
                f"{shown.scenario} has a permanent wait at {one.rule}, which the ranks of {name} exclude",
                {"policy": asdict(policy), "scenario": shown.scenario, "reproduce": shown.command},
            )


# ------------------------------------------------------------------------------------------------- scenarios
def completes(story: scenario.Scenario) -> bool:
    """Whether all I/O of a scenario completes."""
    return all(actor.get("completes", True) for _, actor in story.actors)


def refuting(policy: Policy, name: str, without: Collection[int]) -> tuple[dict[Wait, Shown], dict[Wait, Shown]]:
    """For each wait that is permanent in a shipped scenario that meets the assumptions, the first such one; and the
    same of waits that are expected."""
    found: dict[Wait, Shown] = {}
    expected: dict[Wait, Shown] = {}
    for file in shipped.shipped("scenarios"):
        story = scenario.read(file)
        if not meets(story, without) or not completes(story):
            continue
        result = check(story, file.stem, policy, name, Extent(max_states=MAX_STATES))
        for finding in result.findings:
            if finding.kind == "permanent":
                shown = Shown(file.stem, len(finding.steps), result.command, pins_long(story))
                for wait in permanent(finding, scenario.system(story, policy)):
                    (expected if finding.expected else found).setdefault(wait, shown)
    return found, expected


def pins_long(story: scenario.Scenario) -> bool:
    """Whether an actor of a scenario pins for long."""
    return any(kind in (RING, PIN) for kind, _ in story.actors)


def permanent(finding: Finding, system: scenario.System) -> set[Wait]:
    """The waits that a permanent finding is: where its actor is refused on the way around, or where it stands."""
    found = {
        (step.rule, str(awaited(step.outcome))) for step in finding.cycle
        if step.actor == finding.actor and awaited(step.outcome) in finding.obstacles
    }  # fmt: skip
    if any(step.actor == finding.actor for step in finding.cycle):
        return found
    assert finding.actor is not None
    _, state = replay(system, [step.by for step in (*finding.steps, *finding.cycle)])
    pc = state.task[finding.actor].pc
    outcome = interpreted().step(copied(state), finding.actor, 0, 0)
    return {(RULES[pc].name, str(awaited(outcome)))}
