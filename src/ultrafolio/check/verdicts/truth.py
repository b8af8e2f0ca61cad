"""The truth of each property in each state of a story, a letter a state."""

from __future__ import annotations

from collections.abc import Sequence

from ultrafolio.check.verdicts.replay import is_pending, take
from ultrafolio.engine.interp import to_lists
from ultrafolio.engine.load import interpreted_of
from ultrafolio.model import designs
from ultrafolio.model.layout import State
from ultrafolio.model.scenario import System
from ultrafolio.waits import telling

HOLDS, WAITS, BROKEN = ".", "w", "X"
LEGEND = f"{HOLDS} holds, {WAITS} begun and not ended, {BROKEN} broken by this step or in this state"


def truth_along(system: System, path: Sequence[int]) -> dict[str, str]:
    """Returns for each property its truth in the initial state and after each step of `path` (actor << 16 | choice).
    Raises NotCertified if a step is not possible."""
    state, design = to_lists(system.state), designs.of(system.state)
    letters = [_letters(state, 0)]
    for by in path:
        step = take(system, state, by)
        letters.append(_letters(state, step.broke))
    names = (*design.properties[1:], *design.leads_to)
    return {name: "".join(some[n] for some in letters) for n, name in enumerate(names)}


def broken_pages(state: State) -> list[tuple[int, int]]:
    """Returns (number of a property, page) for each page with which a state, as lists, breaks one by itself."""
    run, pages = interpreted_of(state), range(len(state.mm))
    tests = [(number, getattr(run, test)) for number, test in designs.of(state).in_state]
    return [(number, page) for number, test in tests for page in pages if test(state, page)]


def _letters(state: State, broke: int) -> list[str]:
    """Returns a letter for each property, in a state that a step led to which broke property `broke`, or none."""
    broken = {broke} | {number for number, _ in broken_pages(state)}
    design, told = designs.of(state), telling.of(state)
    begun = {told.owed(state, t) for t in range(len(state.task)) if is_pending(state, t)}
    always = [BROKEN if number in broken else HOLDS for number in range(1, len(design.properties))]
    return always + [WAITS if name in begun else HOLDS for name in design.leads_to]
