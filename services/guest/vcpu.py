"""vCPUs: executes an instruction, with all its exits to the host."""

from __future__ import annotations

from services.common import scheduler
from services.common.scheduler import Suspending, Wait
from services.guest.orders import Deadline, OrderResult, busy, pc_of, refused, stopped
from services.guest.peers import Parts, Seen, Wanted
from ultrafolio.model import layout
from ultrafolio.model.layout import AGAIN, ALIVE, DEAD, NOTHING, OPS, RUN, TOUCH
from ultrafolio.model.rule import RULES
from ultrafolio.rpc.messages import Access, offer_to
from ultrafolio.rpc.v1.common_pb2 import OUTCOME_DONE, OUTCOME_FATAL, OUTCOME_STOPPED, OUTCOME_WAITS
from ultrafolio.state.crossing import Begun, NotTaken, Result
from ultrafolio.state.turn import Done, Group
from ultrafolio.state.view import View
from ultrafolio.waits.tables import BUSY

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.001, 0.5
"""Pauses of a vCPU that re-enters after "busy", each twice the one before. The kernel and the rules poll without a
pause; here the end of an order in the same process wakes the vCPU at once."""
ENDS = {layout.DONE: OUTCOME_DONE, layout.OK: OUTCOME_STOPPED, layout.E_FATAL: OUTCOME_FATAL}
"""Outcome of the vCPU's step -> outcome of its instruction. A fault continues in the host."""


def bell(group: str) -> tuple[str, str]:
    """Returns the key that is woken when an order to the group ends."""
    return "bell", group


def of_vcpu(group: Group, actor: int) -> tuple[str, str, int]:
    """Returns the key that a call holds while it runs the vCPU."""
    return "vcpu", group.name, actor


def _in_guest(view: View, actor: int, vm: int) -> bool:
    """Whether the vCPU is in the guest, and its machine runs."""
    return bool(view.live.task[actor].pc == RUN and view.live.vm[vm].life == ALIVE)


class Machine:
    """The vCPUs of any group."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def touch(
        self, group: Group, actor: int, access: Access, deadline: Deadline
    ) -> Suspending[tuple[OrderResult, bytes]]:
        """Do one access once the hardware allows it. Returns the bytes read."""
        work, page, key, waited = OrderResult(), access[0], of_vcpu(group, actor), False
        begun = None if group.view.meta.who["after"][actor] else self._at_once(group, actor, access)
        if begun is None:
            self.enter(group, actor, TOUCH, page)
            self.take_turn(group, actor, page)
        try:
            while True:
                begun = begun or self._at_once(group, actor, access, begins=work.outcome != OUTCOME_STOPPED)
                if isinstance(begun, Seen):
                    return work.end(OUTCOME_DONE), begun.data
                if work.outcome == OUTCOME_STOPPED:
                    return work, b""
                if begun or scheduler.DEFAULT.hold(key):
                    read = yield from self._wanted(group, actor, access, deadline, work, begun)
                    if read is not None:
                        return work.end(OUTCOME_DONE), read
                else:
                    yield Wait(deadline.left, behind=key)
                    waited = True
                    if deadline.over:
                        work.end(OUTCOME_WAITS, self.parts.wait_of(group.name, actor))
                begun = None
                if work.outcome in (OUTCOME_WAITS, OUTCOME_FATAL):
                    return work, b""
                if deadline.over:
                    return work.end(OUTCOME_WAITS), b""
                # the call that ran the vCPU has its state
                live = group.refresh().live if waited else group.view.live
                if waited and live.vm[int(group.view.meta.who["vm"][actor])].life != ALIVE:
                    return work.end(OUTCOME_STOPPED), b""  # by the reboot that ended the instruction it waited for
                if waited:
                    self.enter(group, actor, TOUCH, page)
        finally:
            if waited:
                scheduler.DEFAULT.wake_next(key)

    def _at_once(self, group: Group, actor: int, access: Access, *, begins: bool = True) -> Seen | Begun | None:
        """The access, or the exit that it leads to, by a vCPU which is in the guest as last seen. One call asks whether
        that stands, too. begins: whether an exit may be begun; else it is None.

        Returns what the hardware allowed; or the step of the exit, begun, with the vCPU taken; None where neither
        happened: what was last seen does not stand, the vCPU or the group is at something else.
        """
        vm, key = int(group.view.meta.who["vm"][actor]), of_vcpu(group, actor)
        mine, begun = begins and scheduler.DEFAULT.hold(key), None
        try:
            offer = group.begin(actor, TOUCH, access[0], lambda view: _in_guest(view, actor, vm))
            if offer is None:
                return None
            turn = offer_to(offer)
            turn.token = turn.token if mine else ""
            (seen,) = self.parts.access(group.name, vm, [access], begins=turn)
            if not seen.exception:
                return seen
            begun = Begun(offer.turn, Result(seen.exception)) if mine else None
            return begun
        except NotTaken:
            return None
        finally:
            if mine and begun is None:
                scheduler.DEFAULT.release(key)

    def _wanted(
        self, group: Group, actor: int, access: Access, deadline: Deadline, work: OrderResult, begun: Begun | None
    ) -> Suspending[bytes | None]:
        """Run a touch for the call that holds the vCPU's key. Returns the bytes read, None if there was no access."""
        wanted = self.parts.wanted[group.name, actor] = Wanted(access)
        try:
            instruction = self._instruct(group, actor, TOUCH, access[0], "", deadline, work, begun)
            yield from self._released(group, actor, work, instruction)
        finally:
            self.parts.wanted.pop((group.name, actor), None)
        return wanted.read

    def enter(self, group: Group, actor: int, op: int, page: int) -> None:
        """Raises StatusError if the vCPU's machine does not run, or the vCPU has not finished another instruction. The
        same instruction, which an earlier call left unfinished, continues."""
        live = group.refresh().live
        vm = int(group.view.meta.who["vm"][actor])
        mine, pc = live.actor[actor], pc_of(group, actor)
        if pc == RUN and live.vm[vm].life != ALIVE:
            raise stopped(group, vm)
        if pc not in (RUN, DEAD) and (mine.op, mine.page) != (op, page):
            raise busy(f"vCPU {actor}", f"{OPS[mine.op]} page {mine.page}", "to repeat that, or another vCPU")

    def take_turn(self, group: Group, actor: int, page: int) -> None:
        """If the vCPU must start after another actor, take the first step of its touch, in which the rules check that
        the other has finished. Raises StatusError if it has not."""
        if group.view.meta.who["after"][actor] and pc_of(group, actor) == RUN:
            steps = group.burst(actor, TOUCH, page, most=1)
            if steps and steps[0].outcome < 0:
                raise refused(group, actor, steps[0])

    def instruct(
        self, group: Group, actor: int, op: int, page: int, request: str, deadline: Deadline, work: OrderResult
    ) -> Suspending[OrderResult]:
        """As _instruct, once no other call of this process runs the vCPU."""
        key, waited = of_vcpu(group, actor), False
        while not scheduler.DEFAULT.hold(key):
            yield Wait(deadline.left, behind=key)
            waited = True
            if deadline.over:
                scheduler.DEFAULT.wake_next(key)
                return work.end(OUTCOME_WAITS, self.parts.wait_of(group.name, actor))
        if waited:
            group.refresh()
        instruction = self._instruct(group, actor, op, page, request, deadline, work)
        return (yield from self._released(group, actor, work, instruction))

    def _released(
        self, group: Group, actor: int, work: OrderResult, instruction: Suspending[OrderResult]
    ) -> Suspending[OrderResult]:
        """Run an instruction for the call that holds the vCPU's key, and release the key. Wakes the next waiting call
        at the deadline, which continues the instruction; otherwise it wakes all."""
        try:
            return (yield from instruction)
        finally:
            scheduler.DEFAULT.release(of_vcpu(group, actor), wake_all=work.outcome != OUTCOME_WAITS)

    def _instruct(
        self,
        group: Group,
        actor: int,
        op: int,
        page: int,
        request: str,
        deadline: Deadline,
        work: OrderResult,
        first: Begun | None = None,
    ) -> Suspending[OrderResult]:
        """Execute or continue one instruction of the vCPU on a page, until the deadline. `request`: id of its start,
        which happens once. The group's view is up to date afterwards. `first`: its first step, if begun."""
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
                steps = group.burst(actor, *choice, most=1, request=request if not begun else "", begun=first)
                first = None
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
            if not group.runs(pc_of(group, actor)):
                more, wait = yield from self.parts.run(group, actor, deadline.slice())
                steps = steps + more
            work.round(steps)
            if deadline.over:
                return work.end(OUTCOME_WAITS, wait or self.parts.wait_of(group.name, actor))
            if wait is None and (not steps or steps[-1].outcome in BUSY):
                yield deadline.pause(pause, bell(group.name))
                pause = min(2 * pause, LONGEST_PAUSE_S)
