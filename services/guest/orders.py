"""Result of an order to a guest, the deadline of its call, and its refusals."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import grpc
from grpc import ServicerContext as Context

from services.common import scheduler
from services.common.scheduler import Wait
from ultrafolio.model import layout
from ultrafolio.model.layout import INTERRUPT, RING, W_STOPPED
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.v1 import common_pb2
from ultrafolio.state.turn import Done, Group

MARGIN_S = 0.15
"""Seconds before its deadline at which a waiting order ends at the latest, so that its answer still arrives."""
SLICE_S = 0.5
"""Seconds that the host runs a thread in one call. A caller that disconnected is noticed after that."""
LIVES = ("alive", "rebooting", "shut down", "killed")
"""Names of layout.ALIVE and those after it."""


@dataclass
class OrderResult:
    """Result of an order.

    steps       steps in order, without a round of polling that equals the round before it
    exceptions  exits to the host, in all rounds
    outcome     how it ended;  wait: its wait, if it did not end
    """

    steps: list[Done] = field(default_factory=list)
    exceptions: int = 0
    outcome: common_pb2.Outcome.ValueType = common_pb2.OUTCOME_UNSPECIFIED
    wait: common_pb2.Wait | None = None
    _round: list[Done] = field(default_factory=list)

    def round(self, steps: Sequence[Done]) -> None:
        """Add the steps of one round: guest to host and back."""
        self.exceptions += sum(done.outcome == layout.FAULT for done in steps)
        if steps and list(steps) != self._round:
            self._round = list(steps)
            self.steps += steps

    def end(self, outcome: common_pb2.Outcome.ValueType, wait: common_pb2.Wait | None = None) -> OrderResult:
        """Set the outcome. Returns self."""
        self.outcome, self.wait = outcome, wait
        return self


class Deadline(NamedTuple):
    """remaining: seconds until the deadline;  alive: whether the caller still listens;  margin: see MARGIN_S."""

    remaining: Callable[[], float]
    alive: Callable[[], bool]
    margin: float = MARGIN_S

    @classmethod
    def of(cls, context: Context) -> Deadline:
        """Returns the deadline of a call, earlier by a fifth of its time (0.15 to 0.5 s): a busy machine sends late."""
        return cls(context.time_remaining, context.is_active, min(0.5, max(MARGIN_S, context.time_remaining() / 5)))

    @property
    def over(self) -> bool:
        """Whether there is no time for another step, or nobody listens."""
        return self.remaining() < self.margin or not self.alive()

    @property
    def left(self) -> float:
        """Seconds until the deadline, 0 after it."""
        return max(0.0, self.remaining() - self.margin)

    def pause(self, seconds: float, key: Hashable | None = None) -> Wait:
        """Returns a wait of `seconds`, shorter if the deadline is earlier or `key` is woken."""
        if key is not None:
            scheduler.DEFAULT.hold(key)
        return Wait(max(0.0, min(seconds, self.left)), key)

    def slice(self, longest: float = SLICE_S) -> float:
        """Seconds for one call to the host, `longest` at most."""
        return min(longest, max(0.05, self.remaining() - self.margin / 2))


NO_DEADLINE = Deadline(lambda: 60.0, lambda: True)
"""For I/O that a device completes after its caller has gone."""


def pc_of(group: Group, actor: int) -> int:
    """Returns the rule that the actor's thread runs next, in the view as last refreshed."""
    return int(group.view.live.task[actor].pc)


def refused(group: Group, actor: int, done: Done) -> StatusError:
    """Returns the error of an order that the rules do not allow now."""
    who = group.view.meta.who[actor]
    if done.outcome == W_STOPPED:
        return stopped(group, int(who["vm"]))
    if group.view.live.actor[actor].budget:
        early = f"once actor {int(who['after']) - 1} has finished" if who["after"] else ""
        shared = "pages that the guest shares" if who["kind"] in (RING, INTERRUPT) else ""
        return StatusError(
            grpc.StatusCode.FAILED_PRECONDITION,
            "NOT_ENABLED",
            f"actor {actor} may not do that now",
            value=done.name,
            allowed=", ".join(filter(None, (early, shared))),
        )
    return StatusError(
        grpc.StatusCode.FAILED_PRECONDITION,
        "NO_STARTS_LEFT",
        f"actor {actor} may not do that any more",
        value=done.name,
        allowed="as many starts as its scenario gave it, `starts`; touches are not counted",
    )


def stopped(group: Group, vm: int) -> StatusError:
    """Returns the error of an order to a machine that does not run."""
    return StatusError(
        grpc.StatusCode.FAILED_PRECONDITION,
        "MACHINE_STOPPED",
        f"virtual machine {vm} does not run",
        value=LIVES[group.view.live.vm[vm].life],
        cause="it reboots, was shut down, or its VMM was told -EINVAL",
    )


def busy(what: str, doing: str, allowed: str) -> StatusError:
    """Returns the error of an order to an actor that has not finished another one."""
    return StatusError(
        grpc.StatusCode.FAILED_PRECONDITION,
        "ACTOR_BUSY",
        f"{what} is in the middle of something else",
        value=doing,
        allowed=allowed,
        cause="an earlier call ended before that did",
    )
