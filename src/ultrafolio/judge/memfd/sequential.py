"""One operation alone, from every start: the events, the end and the final state, in C and in the rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace

from ultrafolio.model.guest_memfd.policy import MemfdPolicy

from ..build import Program, Returned
from ..sequential import FOR_EVER, MOST_STEPS, AnyRun
from .starts import Doing, Start, build, starts
from .watch import Key, MemfdWatched, differences, events
from .ways import c_end, rule_end
from .world import Numbers, World

RunResult = AnyRun[Key]


@dataclass(frozen=True, slots=True)
class Compared:
    """One operation from one start, on both sides."""

    doing: Doing
    start: Start
    in_c: RunResult
    in_rules: RunResult

    @property
    def equal(self) -> bool:
        return self.in_c == self.in_rules

    def diff(self) -> str:
        """Both runs, in words, and where their final states differ."""
        lines = self.in_c.diff(self.in_rules)
        lines += [f" {text}" for text in differences(self.in_rules.final, self.in_c.final)]
        return "\n".join([f"{self.doing} from {self.start}", *("  " + line for line in lines)])


def world(start: Start, watched: MemfdWatched, rules: SimpleNamespace) -> World:
    """The world of a start: an invalidation of every page is going on, or none."""
    pages = len(start.pages)
    on = World(watched.state, rules, Numbers(1, 0, pages) if start.invalidated else Numbers())
    on.cleared |= {page for page, word in enumerate(start.pages) if "absent" not in word}
    return on


def run_c(program: Program, rules: SimpleNamespace, start: Start, watched: MemfdWatched, doing: Doing) -> RunResult:
    """Run the kernel's C alone to its end."""
    on = world(start, watched, rules)
    answers: tuple[int, ...] = ()
    found: list[str] = []
    end = FOR_EVER
    watched.start()
    for _ in range(MOST_STEPS):
        asked = program.next(doing.operation, doing.subject, answers)
        if isinstance(asked, Returned):
            end = c_end(doing.operation, asked.value)
            break
        answer = on.answer(0, asked)
        if answer is None:
            end = "waits"
            break
        if on.mmu == -1:  # what happens under the MMU lock is one step
            found += events(watched.stop()) + on.said
            on.said = []
            watched.start()
        answers += (answer,)
    found += events(watched.stop())
    return RunResult(tuple(found), end, watched.seen())


def run_rules(rules: SimpleNamespace, watched: MemfdWatched, doing: Doing) -> RunResult:
    """Run the rules alone to their end."""
    found: list[str] = []
    taken: set[int] = set()
    end = FOR_EVER
    for _ in range(MOST_STEPS):
        taken.add(watched.state.task[0].pc)
        watched.start()
        outcome = int(rules.step(watched.state, 0, 0, 0))
        found += events(watched.stop())
        end = "waits" if outcome < 0 else rule_end(watched.state, 0, doing.operation, outcome)
        if end:
            break
    return RunResult(tuple(found), end or FOR_EVER, watched.seen(), frozenset(taken))


@dataclass(frozen=True, slots=True)
class Sides:
    """The kernel's C of a tree, and the rules under a policy."""

    program: Program
    rules: SimpleNamespace
    policy: MemfdPolicy

    def compare(self, start: Start, doing: Doing) -> Compared:
        """Run an operation from a start on both sides."""
        self.program.start = str(start)
        in_c = run_c(self.program, self.rules, start, build(start, self.policy, [doing]), doing)
        return Compared(doing, start, in_c, run_rules(self.rules, build(start, self.policy, [doing]), doing))

    def again(self, pair: Compared) -> Compared:
        """Run the operation of a comparison once more, from its start."""
        return self.compare(pair.start, pair.doing)

    def alone(self, operation: str) -> Iterator[Compared]:
        """An operation from each start that fits it, on the first page and on all pages."""
        for start in starts():
            for pages in range(1, len(start.pages) + 1):
                if fits(operation, start, pages):
                    yield self.compare(start, Doing(operation, 0, pages))


def fits(operation: str, start: Start, pages: int) -> bool:
    """Whether an operation can begin there. A fault is of one page. Who invalidates holds the lock that a conversion
    and a hole ask for, so an invalidation that is going on is for faults."""
    return pages == 1 if operation.startswith("fault") else not start.invalidated
