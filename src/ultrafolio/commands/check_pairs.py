"""The results of many scenarios and policies, by several processes: each core has a pair of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, TypeVar

from ultrafolio import api
from ultrafolio.check.search import graph
from ultrafolio.check.verdicts.verdict import Extent, Result
from ultrafolio.commands import check_output as output
from ultrafolio.commands import progress
from ultrafolio.engine import load as rules
from ultrafolio.forked import cores, in_order
from ultrafolio.model.design import Design
from ultrafolio.model.designs import DESIGNS

T = TypeVar("T")
SOME, MANY = 8, 64
"""Explorations from which several processes do them: SOME if the compiled functions are in the cache, MANY if they must
be compiled first, which takes longer than a few pairs do with the plain ones."""


@dataclass(frozen=True)
class Pair:
    """A scenario under a policy.

    machine  another machine than the scenario names, or ""
    made     the scenario on that machine, and the choices of the policy
    command  what to type for the result, where it is not the result's own command; or ""
    """

    story: api.Scenario
    policy: api.Policy
    machine: str
    made: output.Made
    command: str = ""


def results(pairs: Sequence[Pair], workers: int | None, extent: Extent, alone: str) -> Iterator[Result]:
    """Yields the result of each pair, in their order. They do not depend on the workers. alone: see side_by_side()."""

    def task(number: int, watch: Any) -> Result:
        return _result(pairs[number], extent, watch)

    processes = processes_for(len(pairs), {pair.story.story.design for pair in pairs}, workers, extent.threads)
    return side_by_side(task, len(pairs), processes, alone)


def processes_for(explorations: int, used: Iterable[str], workers: int | None, threads: int) -> int:
    """Returns how many processes do so many explorations of these designs; compiles for more than one.

    workers  what --workers says; None: one process a core, or only this one if --threads asks for several threads of it
    """
    made = [DESIGNS[name] for name in sorted(used)]
    processes = workers or (1 if threads > 1 else cores())
    if processes == 1 or not _is_worth(explorations, made):
        return 1
    for design in made if rules.can_compile() else ():
        graph.compiled(design)
    return processes


def side_by_side(task: Callable[[int, Any], T], n: int, processes: int, alone: str) -> Iterator[T]:
    """Yields what each task returns, in their order. A task is given its number, and what watches its exploration.
    alone: what to type if the system ends a process."""
    if min(processes, n) == 1:
        return (task(number, progress.shown) for number in range(n))
    # the first task is done here, so that the processes inherit what it loads
    rest = in_order(lambda number: task(number + 1, None), n - 1, processes, alone)
    return chain([task(0, progress.shown)], progress.counted(rest, n))


def _is_worth(explorations: int, used: Sequence[Design]) -> bool:
    """Whether several processes are worth it for so many explorations."""
    kept = not rules.can_compile() or all(rules.is_kept("bfs.explore", design) for design in used)
    return explorations >= (SOME if kept else MANY)


def _result(pair: Pair, extent: Extent, watch: Any) -> Result:
    """Check a pair."""
    result = api.check(
        pair.story, policy=pair.policy, machine=pair.machine, watch=watch, safety=extent.safety,
        symmetry=extent.symmetry, max_states=extent.max_states, memory_mib=extent.max_mib, threads=extent.threads,
    )  # fmt: skip
    return replace(result, command=pair.command) if pair.command else result
