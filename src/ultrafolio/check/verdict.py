"""From a graph to verdicts: which property fails, how, who waits for whom, and the story of it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ultrafolio.engine.load import interpreted
from ultrafolio.model.layout import *
from ultrafolio.model.policies import Policy
from ultrafolio.model.properties import PROPERTIES
from ultrafolio.model.rule import RULES
from ultrafolio.model.scenario import Scenario, system

from . import symmetry
from .explain import Wait, explain
from .explore import Graph, explore
from .layout import REFUSALS
from .liveness import Lasso, lassos
from .minimise import calmest_path
from .replay import Step, certify_lasso, certify_violation, copied, replay

KINDS = ("safety", "fatal", "permanent", "livelock", "transient")
"""Ways to fail, the worst first."""
LEADS_TO = ("touch leads to access", "unshare leads to secure", "pin leads to granted or refused",
            "writeback leads to ended")  # fmt: skip
MAX_STATES, MAX_MIB = 20_000_000, 8192
"""Limits of an exploration where none are given."""
_RELEASES = {E_REFS: "refs", E_LOCKED: "lock", E_WRITEBACK: "writeback", W_REFS: "refs", W_LOCK: "lock",
             W_WRITEBACK: "writeback", W_MUTEX: "mutex", W_FROZEN: "frozen"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """One property's verdict. verdict: holds, violated or unknown; kind: one of KINDS, or None.

    expected  the failure is the purpose of pin shared (MODEL 6.8) and not counted against the policy
    steps, cycle  the certified story; cycle is what repeats for ever, empty where everything rests
    trivial   a leads-to that holds of nothing: in no state was anything of the kind begun and not yet ended
    wait, actor   who waits, in words, and the number of that actor; None for a safety property
    """

    name: str
    verdict: str
    kind: str | None = None
    expected: bool = False
    steps: list[Step] = field(default_factory=list)
    cycle: list[Step] = field(default_factory=list)
    wait: Wait | None = None
    actor: int | None = None
    trivial: bool = False

    def record(self) -> dict[str, Any]:
        return {"name": self.name, "verdict": self.verdict, "kind": self.kind, "expected": self.expected,
                "depth": len(self.steps) or None, "trivial": self.trivial}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Result:
    """The verdict of one scenario under one policy: all findings, and the worst of them first in `worst`.

    fired    steps taken per rule, of the rules that an actor of the scenario may take
    command  what to type to get it again
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

    @property
    def never_fired(self) -> list[str]:
        return [name for name, n in self.fired.items() if not n]

    @property
    def leads_to(self) -> bool:
        """Whether the leads-to properties were judged, too."""
        return any(f.name in LEADS_TO for f in self.findings)

    @property
    def worst(self) -> Finding:
        failed = [f for f in self.findings if f.verdict == "violated" and not f.expected]
        stalls = [f for f in self.findings if f.kind is not None]
        ranked = failed or stalls or [f for f in self.findings if f.verdict == "unknown"] or self.findings
        return min(ranked, key=lambda f: KINDS.index(f.kind) if f.kind else len(KINDS))

    @property
    def verdict(self) -> str:
        if any(f.verdict == "violated" and not f.expected for f in self.findings):
            return "violated"
        return "holds" if self.complete else "unknown"

    def record(self) -> dict[str, Any]:
        """The JSON object of DESIGN section 4."""
        worst, wait = self.worst, self.worst.wait
        return {
            "scenario": self.scenario, "policy": self.policy, "verdict": self.verdict, "kind": worst.kind,
            "expected": worst.expected, "depth": len(worst.steps) or self.depth, "states": self.states,
            "edges": self.edges, "levels": self.depth, "leads_to": self.leads_to,
            "waiter": wait.waiter if wait else None,
            "waits_for": wait.waits_for if wait else None, "held_by": wait.held_by if wait else None,
            "released_by": wait.released_by if wait else None, "trace": [s.record() for s in worst.steps],
            "cycle": [s.record() for s in worst.cycle], "properties": [f.record() for f in self.findings],
            "never_fired": self.never_fired, "reason": self.reason or None, "reproduce": f"{self.command} --json",
        }  # fmt: skip

    def json(self) -> str:
        return json.dumps(self.record(), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Extent:
    """How far to look, and at what.

    safety    only the properties that hold always: a third of the memory, and nothing is told of leads-to
    symmetry  one state for all in which like pages or guests have changed places; only safety, InputError where
              none are alike
    threads   the result does not depend on it
    """

    max_states: int = MAX_STATES
    max_mib: int = MAX_MIB
    safety: bool = False
    symmetry: bool = False
    threads: int = 1

    def words(self) -> list[str]:
        """The flags that say this, without those whose value is the usual one or changes nothing."""
        numbers = {"--max-states": (self.max_states, MAX_STATES), "--memory": (self.max_mib, MAX_MIB)}
        given = [word for flag, (n, usual) in numbers.items() if n != usual for word in (flag, str(n))]
        return given + (["--symmetry"] if self.symmetry else ["--safety"] if self.safety else [])


WHOLE = Extent()


def check(story: Scenario, name: str, policy: Policy, policy_name: str, extent: Extent = WHOLE) -> Result:
    """Explore the scenario under the policy and judge its properties. Every story in the result is certified."""
    safety = extent.safety or extent.symmetry
    graph = explore(system(story, policy), max_states=extent.max_states, max_mib=extent.max_mib, edges=not safety,
                    threads=extent.threads, fold=extent.symmetry)  # fmt: skip
    words = ["ultrafolio", "check", name, "--policy", policy_name, *extent.words()]
    kinds = {kind for kind, _ in story.actors}
    fired = {RULES[pc].name: int(n) for pc, n in enumerate(graph.space.fired) if pc in RULES and _takes(kinds, pc)}
    findings = _safety(graph) + ([] if safety else _liveness(graph))
    return Result(name, policy_name, findings, graph.states, graph.edges, graph.depth,
                  graph.complete, graph.reason, fired, shlex.join(words))  # fmt: skip


def _takes(kinds: set[int], pc: int) -> bool:
    """Whether an actor of one of these kinds may come to the rule: as where it idles, or as the rule's name says."""
    if pc in IDLE_PC:
        return pc in {IDLE_PC[kind] for kind in kinds}
    owner = {"ring": RING, "import": VCPU, "split": VCPU, "vcpu": VCPU, "reclaim": RECLAIM, "reboot": REBOOT}
    return owner.get(RULES[pc].name.split("-")[0]) in {None, *kinds}


def _safety(graph: Graph) -> list[Finding]:
    made = []
    for number in range(1, len(PROPERTIES)):
        found = graph.space.found[number]
        if found["state"] < 0:
            made.append(Finding(PROPERTIES[number], "holds" if graph.complete else "unknown"))
            continue
        by = int(found["by"])
        steps = certify_violation(graph.system, _way(graph, int(found["state"]), by, number), number)
        made.append(Finding(PROPERTIES[number], "violated", "safety", steps=steps))
    return made


def _way(graph: Graph, state: int, by: int, number: int) -> list[int]:
    """A shortest way to the step `by` from `state`, which breaks property `number`: the calmest where edges tell."""
    if graph.folded:
        return symmetry.concrete(graph, state, number)
    return [*(calmest_path(graph, state, by >> 16) if graph.edged else graph.path(state)), by]


def _liveness(graph: Graph) -> list[Finding]:
    if not graph.complete:
        return [Finding(name, "unknown") for name in LEADS_TO]
    stories: dict[str, list[tuple[Finding, Lasso]]] = {name: [] for name in LEADS_TO}
    for lasso in lassos(graph):
        finding = _judge(graph, lasso)
        known = {(f.kind, f.expected) for f, _ in stories[finding.name]}
        if (finding.kind, finding.expected) not in known:
            stories[finding.name].append((finding, lasso))
    stall, begun = _transient(graph), _begun(graph)
    made = []
    for name in LEADS_TO:
        ranked = sorted(stories[name], key=lambda f: (f[0].expected, KINDS.index(f[0].kind or "transient")))
        if ranked:
            made.append(_calm(graph, *ranked[0]))
        elif stall and stall.name == name:
            made.append(stall)
        else:
            made.append(Finding(name, "holds", trivial=name not in begun))
    return made


def _begun(graph: Graph) -> set[str]:
    """The leads-to properties of which something is pending in some state.

    A step of the breadth-first tree shows it: where it is pending first, the step to that state began it.
    """
    space, n = graph.space, graph.states
    pending, by = space.pending[:n], space.by[1:n].astype(np.int64)
    new = (pending[1:] & ~pending[space.parent[1:n]]) >> (by >> 16) & 1
    kinds, made = graph.system.state.who["kind"].tolist(), set()
    for step in np.unique(by[new == 1]).tolist():
        t, choice = step >> 16, step & 0xFFFF
        made.add(_leads_to(kinds[t], graph.system.choices[t][choice][0]))
    return made


def _calm(graph: Graph, finding: Finding, lasso: Lasso) -> Finding:
    """The finding with the calmest of the shortest stems; only what is published is worth the search."""
    stem = calmest_path(graph, lasso.entry, lasso.cycle[0] >> 16 if lasso.cycle else None)
    steps, cycle = certify_lasso(graph.system, stem, lasso.cycle, lasso.waiter)
    return replace(finding, steps=steps, cycle=cycle)


def _property(state: Any, t: int) -> str:
    return _leads_to(int(state.who[t]["kind"]), int(state.actor[t]["op"]))


def _leads_to(kind: int, op: int) -> str:
    """The property about what an actor of this kind has begun; `op` is a vCPU's."""
    if kind == VCPU:
        return LEADS_TO[1] if op == UNSHARE else LEADS_TO[0]
    return LEADS_TO[2] if kind in (DISK, RING) else LEADS_TO[3]


def _judge(graph: Graph, lasso: Lasso) -> Finding:
    steps, cycle = certify_lasso(graph.system, lasso.stem, lasso.cycle, lasso.waiter)
    name = _property(graph.unpack(lasso.entry), lasso.waiter)
    _, state = replay(graph.system, lasso.stem)
    dead = state.task[lasso.waiter].pc == DEAD or state.vm[state.who[lasso.waiter].vm].life == KILLED
    obstacle, whole, state = _obstacle(graph, lasso, cycle)
    wait = explain(state, lasso.waiter, E_FATAL if dead else obstacle, whole)
    kind = "fatal" if dead else "livelock" if _is_released(graph, lasso, obstacle) else "permanent"
    return Finding(name, "violated", kind, wait.expected, steps, cycle, wait, lasso.waiter)


def _obstacle(graph: Graph, lasso: Lasso, cycle: Sequence[Step]) -> tuple[int, bool, Any]:
    """(outcome, counted over the whole folio, state) of the obstacle the waiter meets in the cycle, or rests at."""
    path = list(lasso.stem)
    weaker: tuple[int, bool, Any] | None = None
    for step in cycle:
        if step.actor == lasso.waiter and (E_LOCKED <= step.outcome <= E_UV or step.outcome == E_NXIO):
            _, state = replay(graph.system, path)
            met = step.outcome, step.rule == RULES[SPLIT].name, state
            if step.outcome != E_NXIO:
                return met
            weaker = weaker or met
        path.append(step.by)
    return weaker or _refusal(graph, lasso, cycle)


def _refusal(graph: Graph, lasso: Lasso, cycle: Sequence[Step]) -> tuple[int, bool, Any]:
    """The first refusal of the waiter's own step along the cycle, or where all rests."""
    path = list(lasso.stem)
    for by in [None, *(step.by for step in cycle)]:
        path += [] if by is None else [by]
        _, state = replay(graph.system, path)
        outcome = interpreted().step(copied(state), lasso.waiter, 0, 0)
        if outcome < 0:
            break
    return outcome, False, state


def _is_released(graph: Graph, lasso: Lasso, obstacle: int) -> bool:
    """Whether a step within the component releases the obstacle, so that it is taken again for ever."""
    space, inside = graph.space, np.zeros(graph.states, bool)
    inside[lasso.members] = True
    word = _RELEASES.get(obstacle)
    if obstacle == E_NXIO:
        return True
    for v in lasso.members:
        pcs = None
        for e in range(int(space.first[v]), int(space.first[v + 1])):
            if not inside[space.to[e]]:
                continue
            pcs = pcs if pcs is not None else graph.unpack(int(v)).task["pc"]
            pc = int(pcs[int(space.via[e]) >> 16])
            if obstacle == E_DIRTY and pc == WB_START:
                return True
            if word == "refs" and pc in (UNPIN, PUT):
                return True
            if word and word != "refs" and word in RULES[pc].releases and int(space.via[e]) >> 16 != lasso.waiter:
                return True
    return False


def _transient(graph: Graph) -> Finding | None:
    """The first stall, where no wait lasts for ever: it met an obstacle, and a fair step releases it."""
    met = [(int(f["state"]), code, int(f["by"])) for code, f in enumerate(graph.space.met) if f["state"] >= 0]
    if not met:
        return None
    number, code, by = min(met)
    t = by >> 16
    path = calmest_path(graph, number, t)
    steps, state = replay(graph.system, path)
    outcome = code if code <= REFUSALS else REFUSALS - code
    whole = int(graph.unpack(number).task["pc"][t]) == SPLIT
    wait = explain(state, t, outcome, whole)
    return Finding(_property(graph.unpack(number), t), "holds", "transient", wait.expected, steps, [], wait, t)
