"""From a graph to verdicts: which property fails, of which kind, who waits for whom, and a certified story."""

from __future__ import annotations

import itertools
import json
import shlex
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from ultrafolio.check.kinds import DEVICES
from ultrafolio.check.search.first import explore
from ultrafolio.check.search.graph import Graph, Watch, unwatched
from ultrafolio.check.search.packing import OBSTACLES_END, REFUSALS
from ultrafolio.check.verdicts import concrete
from ultrafolio.check.verdicts.certificate import certify_component, certify_words, claim_of
from ultrafolio.check.verdicts.claim import Claim
from ultrafolio.check.verdicts.components import Judged, Lookup, judge
from ultrafolio.check.verdicts.liveness import can_end, components_of
from ultrafolio.check.verdicts.minimise import fewest_switches
from ultrafolio.check.verdicts.replay import NotCertified, Step, certify_lasso, certify_violation, replay
from ultrafolio.check.verdicts.scope import scope_of
from ultrafolio.check.verdicts.stories import fair_cycle, wait_of
from ultrafolio.engine.load import digest
from ultrafolio.errors import Defect
from ultrafolio.model import designs
from ultrafolio.model.layout import *
from ultrafolio.model.policies import AnyPolicy
from ultrafolio.model.scenario import Scenario, document, system
from ultrafolio.nouns import plural
from ultrafolio.tabular import Tabular
from ultrafolio.version import __version__
from ultrafolio.waits import load as waits
from ultrafolio.waits import telling
from ultrafolio.waits.tables import OBSTACLE_OF, OBSTACLES, PAGE
from ultrafolio.waits.words import EVERY_LEADS_TO, NO_WAIT, Wait, obstacle_names

Verdict = Literal["holds", "violated", "unknown"]
Kind = Literal["safety", "fatal", "permanent", "livelock", "vmm-bound", "transient"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Ways to fail, the worst first."""
WAITERS = (*(ACTOR_KINDS[kind] for kind in (VCPU, *DEVICES)), "user", "vmm", "vmsplice")
"""Kinds of actors that owe something in every design."""
MAX_STATES, MAX_MIB = 20_000_000, 8192
"""Default limits of an exploration."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One property's verdict. verdict: holds, violated or unknown; kind: one of KINDS, or None.

    expected  the failure is the purpose of pin shared (model.md §8.8) and not counted against the policy
    steps, cycle  the certified story; cycle repeats for ever, and is empty if no step follows
    trivial   a leads-to that holds vacuously: no state has anything of the kind begun and not ended
    wait, actor   the wait in words, and the number of the waiting actor; None for a safety property
    waiter        that actor's name
    entry         number of the first state of the wait
    claim         the certified claim of a wait that never ends
    adverse       a livelock that only an adverse schedule sustains; told for designs but s390
    obstacles     obstacles that the wait is named after, of waits.tables.OBSTACLES; or `page` if that is taken away
    """

    name: str
    verdict: Verdict
    kind: Kind | None = None
    expected: bool = False
    steps: list[Step] = field(default_factory=list)
    cycle: list[Step] = field(default_factory=list)
    wait: Wait | None = None
    actor: int | None = None
    trivial: bool = False
    waiter: str = ""
    entry: int = 0
    obstacles: tuple[str, ...] = ()
    claim: Claim | None = None
    adverse: bool = False

    @property
    def rank(self) -> tuple[int, int, int]:
        """Sort key: the worst kind first, then the lower entry, then the lower actor."""
        return KINDS.index(self.kind) if self.kind else len(KINDS), self.entry, self.actor or 0

    @property
    def fails(self) -> bool:
        """Whether it is counted against the policy."""
        return self.verdict == "violated" and not self.expected

    def record(self) -> dict[str, Any]:
        wait = self.wait.record() if self.wait else NO_WAIT
        adverse = {"adverse": True} if self.adverse else {}
        return {
            **adverse,
            "name": self.name,
            "verdict": self.verdict,
            "kind": self.kind,
            "expected": self.expected,
            "depth": len(self.steps) or None,
            "trivial": self.trivial,
            **wait,
            "obstacles": list(self.obstacles),
            "trace": [s.record() for s in self.steps],
            "cycle": [s.record() for s in self.cycle],
        }

    def brief(self) -> dict[str, Any]:
        """Returns the finding as one entry of `waits`; an expected wait has kind permanent."""
        assert self.wait is not None
        return {
            "actor": self.waiter,
            "property": self.name,
            "kind": "permanent" if self.expected else self.kind,
            "expected": self.expected,
            **self.wait.record(),
        }


@dataclass(frozen=True, slots=True)
class Result(Tabular):
    """The verdict of one scenario under one policy.

    findings  one or more per property;  worst: the worst of them
    states, edges, depth  of the explored graph
    complete, reason  False, and the limit, if a limit stopped the exploration
    fired     steps taken per rule, of the rules that an actor of the scenario may take
    command   the command that reproduces it; "" if none can
    scope     scope.scope_of()
    """

    scenario: str
    policy: str
    findings: list[Finding]
    states: int
    edges: int
    depth: int
    complete: bool
    reason: str
    fired: dict[str, int]
    command: str
    scope: dict[str, Any] = field(default_factory=dict)

    @property
    def never_fired(self) -> list[str]:
        """Returns the rules that an actor of the scenario may take and none took."""
        return [name for name, n in self.fired.items() if not n]

    @property
    def leads_to(self) -> bool:
        """Whether the leads-to properties were judged."""
        return any(f.name in EVERY_LEADS_TO for f in self.findings)

    @property
    def worst(self) -> Finding:
        """Returns the worst finding: violated and unexpected first, then other failures, then unknown."""
        failed = [f for f in self.findings if f.fails]
        stalls = [f for f in self.findings if f.kind is not None]
        ranked = failed or stalls or [f for f in self.findings if f.verdict == "unknown"] or self.findings
        return min(ranked, key=lambda f: f.rank)

    @property
    def waits(self) -> list[Finding]:
        """Returns per waiting actor its worst finding, by actor: transient after others, expected after unexpected."""
        mine: dict[int, list[Finding]] = {}
        for finding in self.findings:
            if finding.wait and finding.actor is not None:
                mine.setdefault(finding.actor, []).append(finding)

        def rank(finding: Finding) -> Any:
            return finding.kind == "transient", finding.expected, finding.rank

        return [min(some, key=rank) for _, some in sorted(mine.items())]

    @property
    def never_waits(self) -> list[str]:
        """Returns the names of vCPUs and devices without a wait; transient waits are searched for vCPUs only. Empty for
        an incomplete graph, or without leads-to."""
        if not (self.complete and self.leads_to):
            return []
        kinds = [kind for kind, starts in self.scope.get("actors", {}).items() for _ in starts]  # in the actors' order
        waiting = {finding.actor for finding in self.waits}
        return [f"{kind} {number}" for number, kind in enumerate(kinds) if number not in waiting and kind in WAITERS]

    @property
    def verdict(self) -> Verdict:
        if any(f.fails for f in self.findings):
            return "violated"
        return "holds" if self.complete else "unknown"

    def record(self) -> dict[str, Any]:
        """The JSON object of formats.md §3."""
        worst = self.worst
        return {
            "scenario": self.scenario,
            "policy": self.policy,
            "verdict": self.verdict,
            "kind": worst.kind,
            "expected": worst.expected,
            "depth": len(worst.steps) or self.depth,
            "states": self.states,
            "edges": self.edges,
            "levels": self.depth,
            "leads_to": self.leads_to,
            **(worst.wait.record() if worst.wait else NO_WAIT),
            "trace": [s.record() for s in worst.steps],
            "cycle": [s.record() for s in worst.cycle],
            "properties": [f.record() for f in self.findings],
            "waits": [f.brief() for f in self.waits],
            "never_waits": self.never_waits,
            "scope": self.scope,
            "never_fired": self.never_fired,
            "reason": self.reason or None,
            "reproduce": f"{self.command} --json" if self.command else None,
        }

    def json(self) -> str:
        return json.dumps(self.record(), ensure_ascii=False)

    def rows(self) -> list[dict[str, Any]]:
        """Returns one row per finding: the property, its verdict, and who waits for what."""
        common = {"scenario": self.scenario, "policy": self.policy}
        fields = ("name", "verdict", "kind", "expected", "depth", *NO_WAIT)
        return [common | {field: finding.record()[field] for field in fields} for finding in self.findings]

    def heading(self) -> str:
        """Returns the verdict as one line."""
        kind = f", {self.worst.kind}" if self.worst.kind else ""
        size = f"{plural(self.states, 'state')}, {plural(self.edges, 'edge')}"
        return f"{self.scenario} under {self.policy}: {self.verdict}{kind}, {size}"


@dataclass(frozen=True, slots=True)
class Extent:
    """Limits and modes of a check.

    max_states, max_mib  limits: states; MiB of arrays
    safety    only the safety properties: a third of the memory, no leads-to
    symmetry  symmetry reduction; implies safety; InputError if no pages or guests are interchangeable
    threads   threads of the exploration; the result does not depend on it
    machine   another machine than the scenario's own, which it is on already; for the command alone
    """

    max_states: int = MAX_STATES
    max_mib: int = MAX_MIB
    safety: bool = False
    symmetry: bool = False
    threads: int = 1
    machine: str = ""

    def words(self) -> list[str]:
        """Returns the CLI flags of this extent, without defaults and without those that do not change the result."""
        numbers = {"--max-states": (self.max_states, MAX_STATES), "--memory": (self.max_mib, MAX_MIB)}
        given = [word for flag, (n, usual) in numbers.items() if n != usual for word in (flag, str(n))]
        given += ["--machine", self.machine] if self.machine else []
        return given + (["--symmetry"] if self.symmetry else ["--safety"] if self.safety else [])


WHOLE = Extent()


def check(
    story: Scenario, name: str, policy: AnyPolicy, policy_name: str, extent: Extent = WHOLE, watch: Watch = unwatched
) -> Result:
    """Explore the scenario under the policy and judge its properties. Every story in the result is certified.

    Raises Defect if the certificate contradicts a verdict; InputError as graph.explore().
    """
    safety = extent.safety or extent.symmetry
    made = system(story, policy)
    graph = explore(
        made,
        max_states=extent.max_states,
        max_mib=extent.max_mib,
        edges=not safety,
        threads=extent.threads,
        fold=extent.symmetry,
        watch=watch,
    )
    typed = ["ultrafolio", "check", name, "--policy", policy_name, *extent.words()]
    design = designs.of(made.state)
    kinds = {design.kinds[kind] for kind, _ in story.actors}
    fired = {
        design.rules[pc].name: int(n)
        for pc, n in enumerate(graph.space.fired)
        if pc in design.rules and kinds.intersection(design.rules[pc].takers)
    }
    try:
        findings = _safety(graph) + ([] if safety else _liveness(graph))
    except NotCertified as error:
        raise Defect(
            f"{name} under {policy_name}: the certificate contradicts a verdict: {error}",
            _report(story, policy, shlex.join(typed), error),
        ) from error
    return Result(
        name,
        policy_name,
        findings,
        graph.states,
        graph.edges,
        graph.depth,
        graph.complete,
        graph.reason,
        fired,
        shlex.join(typed),
        scope_of(story, made, policy),
    )


def _report(story: Scenario, policy: AnyPolicy, command: str, error: NotCertified) -> dict[str, Any]:
    """Returns the contents of a defect's file: the system, the story that was not certified, the command."""
    return {
        "format": "ultrafolio-defect",
        "version": 1,
        "made_by": f"ultrafolio {__version__}",
        "rules": digest(),
        "reproduce": command,
        "why": str(error),
        "path": list(error.path),
        "policy": asdict(policy),
        "scenario": document(story),
    }


def _safety(graph: Graph) -> list[Finding]:
    """Returns one finding per safety property."""
    made = []
    names = designs.of(graph.system.state).properties
    for number in range(1, len(names)):
        found = graph.space.found[number]
        if found["state"] < 0:
            made.append(Finding(names[number], "holds" if graph.complete else "unknown"))
            continue
        by = int(found["by"])
        steps = certify_violation(graph.system, _path_to(graph, int(found["state"]), by, number), number)
        made.append(Finding(names[number], "violated", "safety", steps=steps))
    return made


def _path_to(graph: Graph, state: int, by: int, number: int) -> list[int]:
    """Returns a shortest path that ends with the step `by` from `state`, which breaks property `number`; with the
    fewest switches if the graph has edges."""
    if graph.folded:
        return concrete.concrete_path(graph, state, number)
    return [*(fewest_switches(graph, state, by >> 16) if graph.edged else graph.path(state)), by]


def _liveness(graph: Graph) -> list[Finding]:
    """Returns the findings of each leads-to: one per waiter, class and mark expected, or one that it holds."""
    every = designs.of(graph.system.state).leads_to
    if not graph.complete:
        return [Finding(name, "unknown") for name in every]
    lookup, first = Lookup(graph), dict[tuple[str, int, str, bool], Judged]()
    stuck = set[tuple[str, int, int]]()
    for component in components_of(graph):
        judged = judge(lookup, component)
        name = _owed(lookup.state(component.entry), component.waiter)
        first.setdefault((name, component.waiter, judged.kind, judged.expected), judged)
        stuck.add((name, component.waiter, judged.page))
    begun, transient, made = _begun(graph), _transients(lookup, stuck), []
    for name in every:
        mine = [_story(lookup, name, judged) for (owed, *_), judged in first.items() if owed == name]
        mine += [f for f in transient if f.name == name]
        made += sorted(mine, key=lambda f: (f.expected, f.rank)) or [Finding(name, "holds", trivial=name not in begun)]
    return made


def _story(lookup: Lookup, name: str, judged: Judged) -> Finding:
    """Returns the finding of a component with its certified story: a shortest path to it, and a fair cycle in it."""
    graph, t, entry = lookup.graph, judged.component.waiter, judged.component.entry
    around = fair_cycle(graph, judged)
    stem = fewest_switches(graph, entry, around[0] >> 16 if around else None)
    try:
        steps, cycle = certify_lasso(graph.system, stem, around, t)
        certify_component(lookup, judged, cycle)
        wait = wait_of(lookup, judged)
        certify_words(lookup, judged, wait)
    except NotCertified as error:
        error.path = [*stem, *around]
        raise
    named = (PAGE,) if judged.taken else obstacle_names(judged.named)
    waiter = telling.of(lookup.state(entry)).name(lookup.state(entry), t)
    return Finding(
        name,
        "violated",
        judged.kind,
        judged.expected,
        steps,
        cycle,
        wait,
        t,
        False,
        waiter,
        entry,
        named,
        claim_of(judged),
        judged.kind == "livelock"
        and designs.of(graph.system.state) is not designs.S390
        and can_end(graph, judged.component),
    )


def _begun(graph: Graph) -> set[str]:
    """Returns the leads-to properties of which something is pending in some state.

    The step of the breadth-first tree to the first state in which it is pending began it.
    """
    space, n = graph.space, graph.states
    pending, by = space.pending[:n], space.by[1:n].astype(np.int64)
    new = (pending[1:] & ~pending[space.parent[1:n]]) >> (by >> 16) & 1
    kinds, made = graph.system.state.who["kind"].tolist(), set()
    leads_to = telling.of(graph.system.state).leads_to
    for step in np.unique(by[new == 1]).tolist():
        t, choice = step >> 16, step & 0xFFFF
        made.add(leads_to(kinds[t], graph.system.choices[t][choice][0]))
    return made


def _owed(state: State, t: int) -> str:
    """Returns the leads-to property that actor `t` must satisfy."""
    return str(telling.of(state).owed(state, t))


def _transients(lookup: Lookup, stuck: set[tuple[str, int, int]]) -> list[Finding]:
    """Returns per vCPU the first stall of its accesses, and of its unshares: an obstacle that another actor or an LRU
    batch holds refused an import. stuck: (property, actor, page) of waits that may never end, which are excluded."""
    graph, made = lookup.graph, []
    met = graph.space.met["state"].reshape(len(graph.system.choices), 2, OBSTACLES_END, -1)
    for t, unshares in itertools.product(range(len(graph.system.choices)), (0, 1)):
        name = designs.of(graph.system.state).leads_to[unshares]
        mine = met[t, unshares]
        stalls = [
            (int(mine[code, page]), code)
            for code, page in np.argwhere(mine >= 0).tolist()
            if _is_stall(code) and (name, t, page) not in stuck
        ]
        made += [_transient(lookup, t, *min(stalls))] if stalls else []
    return made


def _outcome(code: int) -> int:
    """Returns the outcome, or the negative reason, of an obstacle number of Space.met."""
    return code if code <= REFUSALS else REFUSALS - code


def _is_stall(code: int) -> bool:
    """Whether an obstacle number is of an obstacle that another holds, not of a fault that the import itself
    resolves."""
    return OBSTACLE_OF.get(_outcome(code), 0) > 1


def _transient(lookup: Lookup, t: int, number: int, code: int) -> Finding:
    """Returns the finding of a transient wait: vCPU `t` met obstacle number `code` in state `number`."""
    path = fewest_switches(lookup.graph, number, t)
    steps, state = replay(lookup.graph.system, path)
    obstacle, page = OBSTACLE_OF[_outcome(code)], int(waits.of(state).waited_page(state, t))
    whole, words = state.task[t].pc == SPLIT, telling.of(state)
    wait = words.in_words(state, t, obstacle, page, whole)
    return Finding(
        words.owed(state, t),
        "holds",
        "transient",
        False,
        steps,
        [],
        wait,
        t,
        False,
        words.name(state, t),
        number,
        (OBSTACLES[obstacle.bit_length() - 1],),
    )
