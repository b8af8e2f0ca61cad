"""Load the event loop with the rules, interpreted or compiled from the same source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ultrafolio.engine import load as rules
from ultrafolio.engine.interp import to_lists, write_back
from ultrafolio.model.design import Design
from ultrafolio.model.designs import S390, PerDesign
from ultrafolio.sim import counting, designs, loop, records
from ultrafolio.waits import load as waits

Simulate = Callable[[Any, Any, int], int]


def _loaded(
    decorate: Callable[[Any], Any],
    apart: Callable[[Any], Any],
    entry: Callable[[Any], Any],
    changed: Mapping[str, str] | None,
    design: Design,
    *,
    unsigned: bool,
) -> Any:
    """Returns the event loop of a design with all functions that it calls, interpreted or compiled."""
    space = rules.functions(decorate, changed, unsigned=unsigned, design=design)
    waits.add(space, apart, design)
    space.update(rules.constants(records) | rules.constants(designs.RECORDS[design.name]))
    rules.add_functions(space, counting, decorate)
    for module in designs.MEASURES[design.name]:
        rules.add_functions(space, module, decorate)
    rules.add_functions(space, loop, lambda f: entry(f) if f.__name__ == "simulate" else decorate(f))
    return space["simulate"]


def interpreted(changed: Mapping[str, str] | None = None, design: Design = S390) -> Simulate:
    """`simulate(state, world, limit)` of a design as plain Python over lists (see `to_lists`). `changed`: see
    engine.load."""
    simulate: Simulate = _loaded(lambda f: f, lambda f: f, lambda f: f, changed, design, unsigned=False)
    return simulate


@PerDesign
def compiled(design: Design) -> Simulate:
    """`simulate(state, world, limit)` of a design compiled, over arrays. Without Numba: the interpreter over a copy as
    lists."""
    if not rules.can_compile():
        return _over_arrays(interpreted(design=design))
    rules.say_compiling("loop.simulate", "the simulator", 15, design)
    inner, entry = rules.inner_flags(), rules.entry_flags()
    import numba

    njit: Any = numba.njit
    apart = njit(**rules.apart_flags())
    simulate: Simulate = _loaded(njit(**inner), apart, njit(**entry), None, design, unsigned=True)
    return simulate


def _over_arrays(plain: Simulate) -> Simulate:
    """Returns the plain event loop as a function over arrays, which it changes as the compiled one does."""

    def simulate(state: Any, world: Any, limit: int) -> int:
        lists = to_lists(state), to_lists(world)
        done = plain(*lists, limit)
        write_back(lists[0], state)
        write_back(lists[1], world)
        return done

    return simulate
