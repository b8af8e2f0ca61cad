"""The line that decides, of one simulation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ultrafolio.check.verdicts.verdict import KINDS
from ultrafolio.engine.interp import records
from ultrafolio.model import designs
from ultrafolio.sim.designs import RECORDS
from ultrafolio.sim.once import Once
from ultrafolio.waits import telling

from .observation import NO_FACTS, observation_line, waiting, word_of


def of_run(made: Once, result: Mapping[str, Any], name: str, policy: str, hashed: str, by: str = "run") -> str:
    """The line of a simulation that is over: one run of one. The worst that was met decides, in the order of KINDS, an
    expected wait after those that count; a stall that ended is a wait.

    made, result  what simulated, at its end, and its measures;  hashed: observation.hash_of, or hash_of_cell
    by            who took the steps
    """
    verdict, kind, expected, facts = "holds", None, False, NO_FACTS
    broken = [number for number, times in enumerate(result["broken"], 1) if times]
    hangs = made.world.hang[: min(int(made.world.clock[0]["hangs"]), len(made.world.hang))]
    design = designs.of(made.state)
    classes = RECORDS[design.name].HANG_CLASSES
    kinds = [classes[number] for number in hangs["kind"].tolist()]
    met = [found for found in (*KINDS, "expected") if found in kinds]
    if broken:
        verdict, kind, facts = "violated", "safety", f"property{design.first + broken[0]}"
    elif met:
        verdict, expected = "violated", met[0] == "expected"
        kind = "permanent" if expected else met[0]
        facts = _facts(made, int(hangs["waiter"][kinds.index(met[0])]))
    elif result["stalls"] or result["open_stalls"]:
        kind = "transient"
    return observation_line(name, policy, word_of(verdict, kind, expected), 1, 1, facts, hashed, by)


def _facts(made: Once, waiter: int) -> str:
    """Who holds what the waiter waits for, as the last state tells it."""
    state, words = records(made.state), telling.of(made.state)
    told = words.stall(state, waiter)
    return waiting(words.name(state, waiter), told.wait.brief if told else "")
