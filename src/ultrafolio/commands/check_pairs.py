"""The results of many pairs of a scenario and a policy, by several processes: each core has a pair of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from ultrafolio import api
from ultrafolio.check.search import graph
from ultrafolio.check.verdicts.verdict import Extent, Result
from ultrafolio.commands import check_output as output
from ultrafolio.commands import progress
from ultrafolio.engine import load as rules
from ultrafolio.forked import cores, in_order
from ultrafolio.model.design import Design
from ultrafolio.model.designs import DESIGNS

SOME, MANY = 8, 64
"""Pairs from which several processes do them: SOME if the compiled functions are in the cache, MANY if they must be
compiled first, which takes longer than a few pairs do with the plain ones."""


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
    """Yields the result of each pair, in their order. They do not depend on the workers.

    workers  processes; None: one for each core, or only this one if --threads asks for several threads of it
    alone    what to type if the system ends a process
    """
    used = tuple({DESIGNS[pair.story.story.design]: None for pair in pairs})
    processes = workers or (1 if extent.threads > 1 else cores())
    if min(processes, len(pairs)) == 1 or not _is_worth(len(pairs), used):
        return (_result(pair, extent, progress.shown) for pair in pairs)
    for design in used if rules.can_compile() else ():
        graph.compiled(design)
    # the first pair is checked here, so that the processes inherit what it loads
    rest = in_order(lambda number: _result(pairs[number + 1], extent, None), len(pairs) - 1, processes, alone)
    return chain([_result(pairs[0], extent, progress.shown)], progress.counted(rest, len(pairs)))


def _is_worth(pairs: int, used: Sequence[Design]) -> bool:
    """Whether several processes are worth it for so many pairs."""
    kept = not rules.can_compile() or all(rules.is_kept("bfs.explore", design) for design in used)
    return pairs >= (SOME if kept else MANY)


def _result(pair: Pair, extent: Extent, watch: Any) -> Result:
    """Check a pair."""
    result = api.check(
        pair.story, policy=pair.policy, machine=pair.machine, watch=watch, safety=extent.safety,
        symmetry=extent.symmetry, max_states=extent.max_states, memory_mib=extent.max_mib, threads=extent.threads,
    )  # fmt: skip
    return replace(result, command=pair.command) if pair.command else result
