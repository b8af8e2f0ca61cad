"""Our two engines over the same rules, as Implementations of the fixed workload."""

from __future__ import annotations

import gc
import time

from workloads import End, Fresh, digests

from ultrafolio.engine.interp import to_lists, write_back
from ultrafolio.sim import load


def jitted(fresh: Fresh, events: int) -> End:
    """The compiled event loop."""
    simulate = load.compiled()
    state, world = fresh.copy()
    start = time.thread_time_ns()
    done = simulate(state, world, events)
    ns = time.thread_time_ns() - start
    assert done == events
    return End(ns, digests(state, world))


def interpreted(fresh: Fresh, events: int) -> End:
    """The same source as plain Python. The garbage collector is off: millions of live records only slow it down."""
    simulate = load.interpreted()
    state, world = fresh.copy()
    lists = to_lists(state), to_lists(world)
    gc.collect()
    gc.disable()
    start = time.thread_time_ns()
    done = simulate(*lists, events)
    ns = time.thread_time_ns() - start
    gc.enable()
    assert done == events
    return End(ns, digests(write_back(lists[0], state), write_back(lists[1], world)))
