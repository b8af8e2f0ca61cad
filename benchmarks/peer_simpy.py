"""The workload in SimPy: a process per actor, timeouts for times, events for wake-ups. The rules are ours, interpreted.

An actor's event (choice, rule, charge, measures) is loop.event of the interpreted loop, so SimPy is measured as a
scheduler of the same work, and no rule is copied. Only `schedule`, the winner tree, is replaced: if the loop sets an
actor's next key, its process waits for that time; if it sets NEVER, the process waits for an event that a later
`schedule` of the same actor, from loop.wake, triggers.

Ties. Our keys are (time, actor). SimPy orders by (time, priority, sequence), so an actor's index as the priority of
everything it waits for gives the same order. env.schedule takes any priority; Timeout and succeed do not offer it,
hence ActorEvent.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Generator
from typing import Any

import simpy
from workloads import End, Fresh, digests

from ultrafolio.engine.interp import to_lists, write_back
from ultrafolio.sim import load
from ultrafolio.sim.records import ACTOR_BITS, NEVER


class ActorEvent(simpy.Event):
    """An actor's next event: at a time with its index as priority, or later, when `at` is called."""

    __slots__ = ()

    def at(self, delay: int, actor: int) -> None:
        self._ok = True
        self._value = None
        self.env.schedule(self, actor, delay)


class Model:
    """One run: the interpreted state and world, and the processes that work on them."""

    def __init__(self, fresh: Fresh, events: int) -> None:
        self.left = events
        self.arrays = fresh.copy()
        self.state, self.world = (to_lists(a) for a in self.arrays)
        self.env = simpy.Environment()
        self.over = self.env.event()
        self.loop: dict[str, Any] = load.interpreted().__globals__  # this loader's own namespace, made anew
        self.loop["schedule"] = self.schedule
        actors = len(self.state.who)
        leaves = self.world.clock[0].leaves
        self.keys = self.world.tree[leaves : leaves + actors]
        self.waiting: list[ActorEvent | None] = [None] * actors
        for t in range(actors):
            self.env.process(self.actor(t))

    def schedule(self, world: Any, t: int, key: int) -> None:
        """Replaces `schedule` of the loop: record the key, and wake the actor's process if it waits."""
        self.keys[t] = key
        turn = self.waiting[t]
        if turn is not None and key < NEVER:
            self.waiting[t] = None
            turn.at((key >> ACTOR_BITS) - self.env.now, t)

    def actor(self, t: int) -> Generator[simpy.Event, None, None]:
        """The process of one actor: wait for its next event, run it."""
        env, state, world, keys = self.env, self.state, self.world, self.keys
        clock, event = world.clock[0], self.loop["event"]
        while True:
            turn = ActorEvent(env)
            key = keys[t]
            if key < NEVER:
                turn.at((key >> ACTOR_BITS) - env.now, t)
            else:
                self.waiting[t] = turn
            yield turn
            clock.now = now = env.now
            event(state, world, t, now)
            self.left -= 1
            if not self.left:
                self.over._ok, self.over._value = True, None
                env.schedule(self.over, -1)  # before any actor's turn of the same time

    def run(self) -> End:
        gc.collect()
        gc.disable()
        start = time.thread_time_ns()
        self.env.run(self.over)
        ns = time.thread_time_ns() - start
        gc.enable()
        state, world = (write_back(lists, a) for lists, a in zip((self.state, self.world), self.arrays, strict=True))
        leaves = int(world.clock["leaves"][0])
        world.tree[leaves : leaves + len(self.keys)] = self.keys
        return End(ns, digests(state, world))


def simpy_model(fresh: Fresh, events: int) -> End:
    """An Implementation. The garbage collector is off, as for the interpreter."""
    return Model(fresh, events).run()
