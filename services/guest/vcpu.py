"""What a vCPU does, step by step: an instruction, through as many exits to the host as it takes."""

from __future__ import annotations

from services.common import parking
from services.common.parking import Pausing, Wait
from services.guest.orders import Patience, Work, busy, pc_of, refused, stopped
from services.guest.peers import Parts
from ultrafolio.model import layout
from ultrafolio.model.layout import AGAIN, ALIVE, DEAD, NOTHING, OPS, RUN, TOUCH
from ultrafolio.model.rule import RULES
from ultrafolio.rpc.v1.common_pb2 import OUTCOME_DONE, OUTCOME_FATAL, OUTCOME_STOPPED, OUTCOME_WAITS
from ultrafolio.state.turn import Done, Group
from ultrafolio.waits.tables import BUSY

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.001, 0.5
"""Pauses of a vCPU that re-enters after "busy", each twice the one before. The kernel polls without one, and so do the
rules; here an order that ends in the same process rings, and the vCPU looks again at once."""
ENDS = {layout.DONE: OUTCOME_DONE, layout.OK: OUTCOME_STOPPED, layout.E_FATAL: OUTCOME_FATAL}
"""How an instruction ended, by the outcome of the vCPU's own step; a fault goes on at the host."""


def bell(group: str) -> tuple[str, str]:
    """The key that rings when an order to a group has ended that may let others go on."""
    return "bell", group


def of_vcpu(group: Group, actor: int) -> tuple[str, str, int]:
    """The key that a call has while it runs a vCPU."""
    return "vcpu", group.name, actor


def of_guest(pc: int) -> bool:
    """Whether the guest service runs this rule: a guest's own, or a device's."""
    return RULES[pc].actor in ("guest", "device")


class Machine:
    """The vCPUs of any group."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def touch(
        self, group: Group, actor: int, access: tuple[int, int, int, bytes], patience: Patience
    ) -> Pausing[tuple[Work, bytes]]:
        """One access (page, offset, length, data to write): the bytes read, once the hardware allows it."""
        work, page, key, waited = Work(), access[0], of_vcpu(group, actor), False
        self.enter(group, actor, TOUCH, page)
        self.take_turn(group, actor, page)
        try:
            while True:
                if (data := self._through(group, actor, access)) is not None:
                    return work.end(OUTCOME_DONE), data
                if work.outcome == OUTCOME_STOPPED:
                    return work, b""
                if parking.HERE.take(key):
                    yield from self._kept(group, actor, TOUCH, page, "", patience, work)
                else:
                    yield Wait(patience.left, behind=key)
                    waited = True
                    if patience.over:
                        work.end(OUTCOME_WAITS, self.parts.wait_of(group.name, actor))
                if work.outcome in (OUTCOME_WAITS, OUTCOME_FATAL):
                    return work, b""
                if patience.over:
                    return work.end(OUTCOME_WAITS), b""
                # who ran the vCPU knows where it is
                live = group.refresh().live if waited else group.view.live
                if waited and live.vm[int(group.view.meta.who["vm"][actor])].life != ALIVE:
                    return work.end(OUTCOME_STOPPED), b""  # by the reboot that ended the instruction it waited for
                if waited:
                    self.enter(group, actor, TOUCH, page)
        finally:
            if waited:
                parking.HERE.pass_on(key)

    def _through(self, group: Group, actor: int, access: tuple[int, int, int, bytes]) -> bytes | None:
        """The bytes of an access by a vCPU that is in the guest; None where it may not, or is not."""
        vm = int(group.view.meta.who["vm"][actor])
        if pc_of(group, actor) != RUN or group.view.live.vm[vm].life != ALIVE:
            return None
        (seen,) = self.parts.access(group.name, vm, [access])
        return None if seen.exception else seen.data

    def enter(self, group: Group, actor: int, op: int, page: int) -> None:
        """What the vCPU finds as it enters the guest: StatusError if its machine does not run, or if it is in the
        middle of another instruction. One that an earlier call left unfinished is gone on with, if it is the same."""
        live = group.refresh().live
        vm = int(group.view.meta.who["vm"][actor])
        mine, pc = live.actor[actor], pc_of(group, actor)
        if pc == RUN and live.vm[vm].life != ALIVE:
            raise stopped(group, vm)
        if pc not in (RUN, DEAD) and (mine.op, mine.page) != (op, page):
            raise busy(f"vCPU {actor}", f"{OPS[mine.op]} page {mine.page}", "to repeat that, or another vCPU")

    def take_turn(self, group: Group, actor: int, page: int) -> None:
        """Where the vCPU must start after another actor, its touch of a page begins with a step of the rules, which ask
        whether that one has finished: StatusError if it has not."""
        if group.view.meta.who["after"][actor] and pc_of(group, actor) == RUN:
            steps = group.burst(actor, TOUCH, page, most=1)
            if steps and steps[0].outcome < 0:
                raise refused(group, actor, steps[0])

    def instruct(
        self, group: Group, actor: int, op: int, page: int, request: str, patience: Patience, work: Work
    ) -> Pausing[Work]:
        """As _instruct, once no other call of this process runs the vCPU."""
        key, waited = of_vcpu(group, actor), False
        while not parking.HERE.take(key):
            yield Wait(patience.left, behind=key)
            waited = True
            if patience.over:
                parking.HERE.pass_on(key)
                return work.end(OUTCOME_WAITS, self.parts.wait_of(group.name, actor))
        if waited:
            group.refresh()
        return (yield from self._kept(group, actor, op, page, request, patience, work))

    def _kept(
        self, group: Group, actor: int, op: int, page: int, request: str, patience: Patience, work: Work
    ) -> Pausing[Work]:
        """As _instruct, by the call that has taken the vCPU, which gives it back. Out of time, it leaves the
        instruction to the next that waits; else all of them may find it done."""
        try:
            return (yield from self._instruct(group, actor, op, page, request, patience, work))
        finally:
            parking.HERE.give(of_vcpu(group, actor), everybody=work.outcome != OUTCOME_WAITS)

    def _instruct(
        self, group: Group, actor: int, op: int, page: int, request: str, patience: Patience, work: Work
    ) -> Pausing[Work]:
        """The vCPU executes one instruction on a page, or goes on with it, until patience is over. The group's view is
        fresh. `request` names its start, which happens once."""
        begun, pause = bool(request) and group.store.reply(group.name, request) is not None, FIRST_PAUSE_S
        if begun and pc_of(group, actor) == RUN:
            return work.end(OUTCOME_DONE)
        while True:
            pc, steps, wait = pc_of(group, actor), list[Done](), None
            if pc == DEAD:
                return work.end(OUTCOME_FATAL)
            if pc == RUN and begun:
                return work.end(OUTCOME_STOPPED)  # by a reboot, or ended by another call for the same instruction
            if pc in (RUN, AGAIN):
                choice = (op, page) if not begun and pc == RUN else (NOTHING, 0)
                steps = group.burst(actor, *choice, most=1, request=request if not begun else "")
                if steps and steps[0].outcome < 0:
                    if begun:
                        return work.end(OUTCOME_STOPPED)
                    if RULES[steps[0].pc].chooses:
                        raise refused(group, actor, steps[0])
                    # another process has moved the vCPU since this one looked: no start was asked for
                    steps = []
                if steps and steps[0].outcome in ENDS:
                    work.round(steps)
                    return work.end(ENDS[steps[0].outcome])
            begun = True
            if not of_guest(pc_of(group, actor)):
                more, wait = yield from self.parts.run(group.name, actor, patience.slice())
                steps = steps + more
                group.refresh()
            work.round(steps)
            if patience.over:
                return work.end(OUTCOME_WAITS, wait or self.parts.wait_of(group.name, actor))
            if wait is None and (not steps or steps[-1].outcome in BUSY):
                yield patience.pause(pause, bell(group.name))
                pause = min(2 * pause, LONGEST_PAUSE_S)
