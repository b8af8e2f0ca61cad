"""A timeline in the Trace Event Format, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

Source: "Trace Event Format" of the Chromium project. Actors are threads, of a process for each guest and one for the
host; steps are complete events (X); waits are flow events (s, t, f), each bound to the slice that encloses it. Times
are microseconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ultrafolio.check.verdicts.verdict import Result
from ultrafolio.engine.tables import guest_kinds
from ultrafolio.model.layout import ACTOR_KINDS
from ultrafolio.model.scenario import System

from .timeline import Timeline, of_story

HOST = 1
"""Number of the host's process; guest N has HOST + 1 + N."""
FIRST_THREAD = 1000
"""Thread number of actor 0, which is no process number."""
GUESTS = frozenset(ACTOR_KINDS[kind] for kind in guest_kinds())
"""Names of the kinds of actors that belong to a guest, in any design."""
CATEGORY = "wait"


def chrome(timeline: Timeline, about: Mapping[str, Any]) -> str:
    """Returns the document. about: facts about the execution, for people; JSON values."""
    lines = ",\n".join(json.dumps(event, ensure_ascii=False) for event in _events(timeline))
    other = json.dumps(dict(about), ensure_ascii=False)
    return f'{{"traceEvents": [\n{lines}\n],\n"displayTimeUnit": "ns",\n"otherData": {other}}}\n'


def of_finding(result: Result, system: System) -> str:
    """Returns the document of a result's worst finding, which must have a story."""
    worst = result.worst
    path = [step.by for step in (*worst.steps, *worst.cycle)]
    about = {
        "scenario": result.scenario, "policy": result.policy, "verdict": worst.verdict, "kind": worst.kind,
        "property": worst.name, "wait": worst.wait.line() if worst.wait else None,
        "reproduce": f"{result.command} --format chrome",
    }  # fmt: skip
    return chrome(of_story(system, path, len(worst.steps) if worst.cycle else None), about)


def process_of(kind: str, guest: int) -> int:
    """Returns the process of an actor: the host's for threads of the host."""
    return HOST + 1 + guest if kind in GUESTS else HOST


def _events(timeline: Timeline) -> Iterator[dict[str, Any]]:
    where = [(process_of(*actor), FIRST_THREAD + t) for t, actor in enumerate(timeline.actors)]
    for pid in sorted({pid for pid, _ in where}):
        yield _named("process", pid, 0, "host MM" if pid == HOST else f"guest {pid - HOST - 1}")
    for t, (pid, tid) in enumerate(where):
        yield _named("thread", pid, tid, f"{timeline.actors[t][0]} {t}")
        yield {"ph": "M", "name": "thread_sort_index", "pid": pid, "tid": tid, "args": {"sort_index": t}}
    for one in timeline.slices:
        pid, tid = where[one.actor]
        yield {
            "ph": "X", "name": one.name, "cat": "step", "pid": pid, "tid": tid, "ts": one.begin / 1000,
            "dur": (one.end - one.begin) / 1000, "args": dict(one.about),
        }  # fmt: skip
    for number, flow in enumerate(timeline.flows, 1):
        last = len(flow.points) - 1
        if not last:
            continue
        for n, (actor, at) in enumerate(flow.points):
            pid, tid = where[actor]
            phase = "f" if n == last else "t" if n else "s"
            yield {
                "ph": phase, "id": number, "name": flow.name, "cat": CATEGORY, "pid": pid, "tid": tid,
                "ts": at / 1000, "bp": "e",
            }  # fmt: skip


def _named(what: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": f"{what}_name", "pid": pid, "tid": tid, "args": {"name": name}}
