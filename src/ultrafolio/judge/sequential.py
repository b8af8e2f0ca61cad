"""One operation alone, from every start: the events, the end and the final state, in C and in the rules."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Generic, TypeVar

from ultrafolio.model.policy import Policy

from ..model.fixes import order
from ..model.layout import ANON, MAPPED, WAITS
from .build import Program, Returned
from .pieces import MOVES_OWNERSHIP
from .runs import c_end, rule_end, rule_step
from .starts import Doing, Start, build, busy_starts, starts
from .watch import WATCHED, Watched, events, joined
from .world import World

MOST_STEPS = 200
FOR_EVER = "goes on for ever"
BUSY = {
    "        return UV_ERROR\n    if uv.state == NON_SECURE or (uv.state == EXPORTED and uv.owner != vm):\n":
    "        return UV_BUSY\n    if uv.state == NON_SECURE or (uv.state == EXPORTED and uv.owner != vm):\n",
    "    if uv.refuses or uv.state == NON_SECURE or uv.owner != vm:\n":
    "    if uv.refuses:\n        return UV_BUSY\n    if uv.state == NON_SECURE or uv.owner != vm:\n",
}  # fmt: skip
"""A change of the rules that makes the ultravisor busy instead of refusing; that of the model is never busy."""
WAITS_IN_C = {"lock": "waits for the folio lock", "wait_writeback": "waits for writeback"}
WAITS_IN_RULES = {"the folio lock": "waits for the folio lock", "the end of writeback": "waits for writeback"}


K = TypeVar("K")


@dataclass(frozen=True)
class AnyRun(Generic[K]):
    """One run: its events, the word of its end, the final shared state, and the rules that it took, if any."""

    events: tuple[str, ...]
    end: str
    final: K
    rules: frozenset[int] = field(default=frozenset(), compare=False)

    def diff(self, of_rules: AnyRun[K]) -> list[str]:
        """The events of this run of the C and of one of the rules as a diff: lines of the C with -, of the rules with
        +."""
        c, rules = ([*run.events, f"end: {run.end}"] for run in (self, of_rules))
        return list(difflib.unified_diff(c, rules, "C", "rules", lineterm="", n=99))[3:]


RunResult = AnyRun[tuple[tuple[int, ...], ...]]


@dataclass(frozen=True, slots=True)
class Compared:
    """One operation from one start, on both sides."""

    operation: str
    start: Start
    in_c: RunResult
    in_rules: RunResult

    @property
    def equal(self) -> bool:
        return self.in_c == self.in_rules

    def diff(self) -> str:
        """Both runs, in words."""
        lines = self.in_c.diff(self.in_rules) or ["  the same events, another final state"]
        return "\n".join([f"{self.operation} from {self.start}", *("  " + line for line in lines)])


def run_c(program: Program, rules: SimpleNamespace, watched: Watched, doing: Doing, page: int) -> RunResult:
    """Run the kernel's C alone to its end."""
    world = World(watched.state, rules)
    answers: tuple[int, ...] = ()
    found: list[str] = []
    for _ in range(MOST_STEPS):
        asked = program.next(doing.operation, page, answers)
        if isinstance(asked, Returned):
            return RunResult(joined(found), c_end(world, 0, doing.operation, asked.value), watched.key(*WATCHED))
        watched.start()
        answer = world.answer(0, asked)
        found += events(watched.stop())
        if answer is None:
            return RunResult(joined(found), WAITS_IN_C.get(asked.question, "waits"), watched.key(*WATCHED))
        answers += (answer,)
    return RunResult(joined(found), "goes on for ever", watched.key(*WATCHED))


def run_rules(rules: SimpleNamespace, watched: Watched, doing: Doing) -> RunResult:
    """Run the rules alone to their end."""
    found: list[str] = []
    taken: set[int] = set()

    def told(end: str) -> RunResult:
        return RunResult(joined(found), end, watched.key(*WATCHED), frozenset(taken))

    for _ in range(MOST_STEPS):
        taken.add(watched.state.task[0].pc)
        watched.start()
        outcome = rule_step(watched, rules, 0)
        looks = watched.stop()
        if outcome < 0:
            found += events(looks)
            return told(WAITS_IN_RULES.get(WAITS[-outcome], WAITS[-outcome]))
        found += events(looks)
        end = rule_end(watched.state, 0, doing.operation, outcome)
        if end:
            return told(end)
    return told(FOR_EVER)


def compare(
    program: Program,
    rules: SimpleNamespace,
    policy: Policy,
    operations: list[str],
    whole: bool = True,
    busy: SimpleNamespace | None = None,
) -> Iterator[Compared]:
    """Compare each operation from each start that fits it; with `busy` (the rules changed by BUSY) also imports with a
    busy ultravisor."""
    for operation in operations:
        wanted = [
            (start, rules)
            for start in fitting(program.base, starts(whole))
            if fits(operation, start) and (operation != "reclaim" or start.present == MAPPED)
        ]
        if busy and operation in ("import", "unshare"):
            wanted += [(start, busy) for start in busy_starts()]
        for start, by in wanted:
            doing = Doing(operation, start.page)
            program.start = str(start)
            told = run_c(program, by, build(start, policy, [doing]), doing, start.page)
            yield Compared(operation, start, told, run_rules(by, build(start, policy, [doing]), doing))


def fitting(base: str, wanted: Iterable[Start]) -> Iterator[Start]:
    """Those starts that a version knows: one that does not ask whether the machine moves a page's ownership is judged
    without such a machine."""
    asks = order(base) >= order(MOVES_OWNERSHIP)
    return (start for start in wanted if asks or not start.misc)


def fits(operation: str, start: Start) -> bool:
    """Whether an operation can begin there: reclaim and unmap are judged on small folios, an unmap only of a page that
    is mapped, and not of anon memory, where reclaim's driver asks for pins once more."""
    if operation == "reclaim":
        return start.order == 0
    if operation.startswith("unmap"):
        return start.order == 0 and start.present == MAPPED and start.backing != ANON
    return True
