"""What came of an order to a guest, and how long its caller waits for it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import grpc

from services.common import parking
from services.common.parking import Wait
from ultrafolio.model import layout
from ultrafolio.model.layout import INTERRUPT, RING, W_STOPPED
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.v1 import common_pb2
from ultrafolio.state.turn import Done, Group

MARGIN_S = 0.15
"""How long before its deadline a waiting order gives up at least, so that its answer still arrives."""
SLICE_S = 0.5
"""How long the host runs a thread in one call: a caller that went away is noticed after that."""
LIVES = ("alive", "rebooting", "shut down", "killed")
"""Names of layout.ALIVE and those after it."""


@dataclass
class Work:
    """What came of an order.

    steps       what was done, in order; a round of polling that repeats the round before it is left out
    exceptions  exits to the host, of all rounds
    outcome     how it ended;  wait: what it waits for, where it did not
    """

    steps: list[Done] = field(default_factory=list)
    exceptions: int = 0
    outcome: common_pb2.Outcome.ValueType = common_pb2.OUTCOME_UNSPECIFIED
    wait: common_pb2.Wait | None = None
    _round: list[Done] = field(default_factory=list)

    def round(self, steps: Sequence[Done]) -> None:
        """Enter the steps of one round: from the guest to the host and back."""
        self.exceptions += sum(done.outcome == layout.FAULT for done in steps)
        if steps and list(steps) != self._round:
            self._round = list(steps)
            self.steps += steps

    def end(self, outcome: common_pb2.Outcome.ValueType, wait: common_pb2.Wait | None = None) -> Work:
        """The work, which ended so."""
        self.outcome, self.wait = outcome, wait
        return self


class Patience(NamedTuple):
    """remaining: seconds until the deadline;  alive: whether the caller still listens;  margin: see MARGIN_S."""

    remaining: Callable[[], float]
    alive: Callable[[], bool]
    margin: float = MARGIN_S

    @classmethod
    def of(cls, context: Any) -> Patience:
        """The patience of a call; a long one ends earlier, since a machine that is busy answers later."""
        return cls(context.time_remaining, context.is_active, min(0.5, max(MARGIN_S, context.time_remaining() / 10)))

    @property
    def over(self) -> bool:
        return self.remaining() < self.margin or not self.alive()

    @property
    def left(self) -> float:
        """Seconds to wait at most."""
        return max(0.0, self.remaining() - self.margin)

    def pause(self, seconds: float, bell: Hashable | None = None) -> Wait:
        """A wait of so many seconds, or until patience is over, or a bell rings."""
        if bell is not None:
            parking.HERE.take(bell)
        return Wait(max(0.0, min(seconds, self.left)), bell)

    def slice(self, longest: float = SLICE_S) -> float:
        """Seconds for one call to the host."""
        return min(longest, max(0.05, self.remaining() - self.margin / 2))


TO_THE_END = Patience(lambda: 60.0, lambda: True)
"""For what a device completes also when nobody waits for it any more."""


def pc_of(group: Group, actor: int) -> int:
    """Which rule the actor's thread runs next, as last seen."""
    return int(group.view.live.task[actor].pc)


def refused(group: Group, actor: int, done: Done) -> StatusError:
    """An order that the rules do not allow now."""
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
    """An order to a machine that does not run."""
    return StatusError(
        grpc.StatusCode.FAILED_PRECONDITION,
        "MACHINE_STOPPED",
        f"virtual machine {vm} does not run",
        value=LIVES[group.view.live.vm[vm].life],
        cause="it reboots, was shut down, or its VMM was told -EINVAL",
    )


def busy(what: str, doing: str, allowed: str) -> StatusError:
    """An order to an actor that is in the middle of another one."""
    return StatusError(
        grpc.StatusCode.FAILED_PRECONDITION,
        "ACTOR_BUSY",
        f"{what} is in the middle of something else",
        value=doing,
        allowed=allowed,
        cause="an earlier call ended before that did",
    )
