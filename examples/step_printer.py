"""Prints a group's event stream in the form of a counterexample of `ultrafolio check`."""

from __future__ import annotations

from typing import Any

from ultrafolio.check.verdicts.replay import Step, frozen
from ultrafolio.engine.interp import to_lists
from ultrafolio.engine.load import interpreted_of
from ultrafolio.export import text_in
from ultrafolio.model import designs
from ultrafolio.model.layout import OPS
from ultrafolio.model.scenario import System
from ultrafolio.rpc.cluster import Cluster
from ultrafolio.state.events import Again, StepEvent, Steps, decode


class StepPrinter:
    """Replays a group's stream from the last call on; a repeated round is printed once."""

    def __init__(self, lab: Cluster, group: str, system: System) -> None:
        self._lab, self._group, self._state, self._after, self._told = lab, group, to_lists(system.state), "0", 0
        self._seen = {frozen(self._state)}
        self._design = designs.of(self._state)
        self.words = text_in.of(self._design.name)

    def lines(self) -> list[str]:
        """Returns the new steps, a column per role; below a step, the pages that it changed."""
        out, round_again = [self.words.HEADING], False
        for step in self._steps():
            if step is None:
                round_again = True
                continue
            known = step.after in self._seen
            self._seen.add(step.after)
            if known and round_again:
                continue
            if round_again:
                out.append("  -- and so on, until:")
            self._told += 1
            out += self.words.story([step], self._told)
            round_again = known
        return [*out, "  -- and so on"] if round_again else out

    def _steps(self) -> list[Step | None]:
        """Returns the new steps; None stands for repeated rounds."""
        made: list[Step | None] = []
        for event in self._lab.store.events(self._group, self._after) if self._lab.store else ():
            entry, self._after = decode(event.data), event.id
            made += [self._step(one) for one in entry.steps] if isinstance(entry, Steps) else []
            made += [None] if isinstance(entry, Again) else []
        return made

    def _step(self, event: StepEvent) -> Step:
        state: Any = self._state
        t, run, design = event.actor, interpreted_of(state), self._design
        pc, page, before = state.task[t].pc, run.focus(state, t, event.page), frozen(state)
        outcome = run.step(state, t, event.op, event.page)
        kind = design.kinds[state.who[t].kind]
        wish = OPS[event.op] if kind in ("vcpu", "access", "reboot") else ""
        return Step(0, t, kind, design.rules[pc].name, wish, page, outcome, 0, before, frozen(state), design.name)
