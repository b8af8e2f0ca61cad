"""The host MM over gRPC: threads to run, work to start, the wait-for graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import grpc
from grpc import ServicerContext as Context

from services.common import identity
from services.common.groups import (
    Groups,
    Held,
    actor_of,
    any_actor_of,
    bounded,
    check_sections,
    constants,
    exists,
    machine_of,
    of_design,
    operation_of,
    page_of,
)
from services.common.scheduler import Suspending, suspends
from services.host_mm.boot import MOST_CPUS, Boot
from services.host_mm.swap import Swap
from services.host_mm.threads import Drive, HostGroup, Threads, part_of
from services.host_mm.ultravisor_client import Firmware
from ultrafolio.engine.load import interpreted
from ultrafolio.model.design import Design
from ultrafolio.model.designs import GUEST_MEMFD, S390
from ultrafolio.model.layout import (
    ACCESS,
    LRU,
    NOTHING,
    OPS,
    PAGE_SIZE,
    READ,
    TAMPER,
    TOUCH,
    VCPU,
    W_FROZEN,
    WRITE,
)
from ultrafolio.nouns import plural
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.messages import sections_from, sections_to, step_to
from ultrafolio.rpc.v1 import host_mm_pb2 as pb
from ultrafolio.rpc.v1 import host_mm_pb2_grpc
from ultrafolio.rpc.v1.common_pb2 import OUTCOME_DONE, OUTCOME_WAITS
from ultrafolio.state.acl import group_name
from ultrafolio.state.events import Made, encode
from ultrafolio.state.redis import RedisStore
from ultrafolio.state.sections import LARGEST_GROUP, Meta, encode_meta
from ultrafolio.state.turn import Done, Group

ENTRANCES: dict[str, dict[str, tuple[str, ...]]] = {
    S390.name: {
        "take_exit": ("exception", "operation", "page"),
        "take_pin": ("page", "count"),
        "take_reboot": ("again",),
        "turn_come": (),
    },
    GUEST_MEMFD.name: {"close_pipe": ()},
}
"""Per design: functions of the model's host that another role calls -> their arguments after the actor."""
FIT = {
    LRU: "a page in no batch, of a folio that is not frozen",
    TAMPER: "a page that the host may access, and has not changed yet",
}
"""Actor kind -> the pages that it may choose, for errors."""

MOST_GROUPS = 4096
"""Folio groups of a cluster; one that is not needed any more can be archived and deleted."""
FIRST, GROUP = 4 << 30, LARGEST_GROUP * PAGE_SIZE
"""Where group memory begins, above what the ultravisor's life cycle uses, and how much each group has."""


class HostMm(host_mm_pb2_grpc.HostMmServiceServicer):
    """store: with the host's rights;  firmware: client of the ultravisor;  threads: runs the rules;
    replica: this process's name among several hosts, "" for the only one."""

    def __init__(self, store: RedisStore, firmware: Firmware, threads: Threads, swap: Swap, replica: str = "") -> None:
        self.store, self.firmware, self.threads, self._swap = store, firmware, threads, swap
        self.groups = Groups(store, self._group, replica)
        self.machine_of = self.groups.machine_of

    def _group(self, name: str, meta: Meta, held: Held) -> HostGroup:
        """Returns the group, whose swap this process has from now on."""
        swap = self._swap.of(name, meta, held)
        firmware = self.firmware.under(name, held.of.epoch)
        firmware.guests.forget(name)
        return HostGroup(held.store, name, meta, firmware.ask(name, swap), self.threads.left, swap)

    def _s390(self, name: str) -> HostGroup:
        """Returns a group whose pages have contents. Raises StatusError for one of another design."""
        group = self.groups[name]
        of_design(group.view.meta, name, S390)
        return group

    @suspends
    def Run(self, request: pb.RunRequest, context: Context) -> Suspending[pb.RunResponse]:
        group = self.groups[request.group]
        actor = any_actor_of(group.view.meta, request.actor)
        own = identity.of(context).vm is None  # of other machines' actors a guest is told nothing
        done = yield from self._drive(group, actor, NOTHING, 0, request.request_id, context)
        return pb.RunResponse(
            steps=map(step_to, done.steps),
            wait=done.wait,
            revision=group.revision,
            error=done.error,
            sections=sections_to(group.tell(request.known, "guest")) if own else (),
        )

    @suspends
    def Start(self, request: pb.StartRequest, context: Context) -> Suspending[pb.StartResponse]:
        group = self.groups[request.group]
        meta = group.view.meta
        work = tuple(n for n, name in enumerate(group.design.kinds) if name and not meta.is_guest(n))
        actor = actor_of(meta, request.actor, work, ", ".join(group.design.kinds[kind] for kind in work))
        page = page_of(meta, request.page)
        self._free(group, actor, request.request_id)
        op = _operation(group.design, int(meta.who["kind"][actor]), request.op)
        done = yield from self._drive(group, actor, op, page, request.request_id, context)
        if done.steps and done.steps[-1].outcome < 0 and group.design.rules[done.steps[-1].pc].chooses:
            raise _refused(group, done.steps[-1])
        return pb.StartResponse(
            steps=map(step_to, done.steps),
            wait=done.wait,
            revision=group.revision,
            error=done.error,
            outcome=OUTCOME_DONE if done.over else OUTCOME_WAITS,
        )

    def _free(self, group: HostGroup, actor: int, request: str) -> None:
        """Raises StatusError if the thread has not finished another request."""
        task = group.refresh().live.task[actor]
        known = bool(request) and self.store.reply(group.name, part_of(request)) is not None
        if not known and not group.design.rules[task.pc].chooses:
            raise StatusError(
                grpc.StatusCode.FAILED_PRECONDITION,
                "ACTOR_BUSY",
                f"thread {actor} is in the middle of something else",
                value=f"{group.design.rules[task.pc].name}, page {task.page}",
                allowed="to repeat that with its request id, or Run, which lets it go on",
                cause="an earlier call is under way, or ended before its work did",
            )

    def _drive(
        self, group: HostGroup, actor: int, op: int, page: int, request: str, context: Context
    ) -> Suspending[Drive]:
        """Run an actor's thread until its next stop, within the caller's deadline. Returns the steps."""
        return (
            yield from self.threads.drive(
                group, actor, op, page, request=request, remaining=_remaining(context), alive=context.is_active
            )
        )

    def Cross(self, request: pb.CrossRequest, context: Context) -> pb.CrossResponse:
        group = self.groups[request.group]
        actor = any_actor_of(group.view.meta, request.actor)
        _entrance(group.view.meta, request.function, request.arguments)
        if identity.of(context).vm is None:
            group.learn(sections_from(request.sections), "guest")
        arguments = (actor, *request.arguments)
        result = group.take_part(request.turn.token, request.turn.index, request.function, arguments)
        self.threads.handed(group, request.turn.token)
        return pb.CrossResponse(outcome=result.code)

    def ReadPage(self, request: pb.ReadPageRequest, context: Context) -> pb.ReadPageResponse:
        group = self._s390(request.group)
        page = page_of(group.view.meta, request.page)
        seen = self.firmware.see(group.name, page)
        return pb.ReadPageResponse(data=seen.data, exception=seen.exception)

    def Explain(self, request: pb.ExplainRequest, context: Context) -> pb.ExplainResponse:
        caller, group = identity.of(context), self.groups[request.group]
        waits = self.threads.waits.all(group)
        if caller.vm is not None:
            machines = group.view.meta.who["vm"]
            waits = [wait for wait in waits if str(machines[wait.actor]) == caller.vm]
        return pb.ExplainResponse(waits=waits)

    def Step(self, request: pb.HostMmServiceStepRequest, context: Context) -> pb.HostMmServiceStepResponse:
        group = self.groups[request.group]
        actor = any_actor_of(group.view.meta, request.actor)
        page = page_of(group.view.meta, request.page)
        name = part_of(request.request_id)  # as the first steps of Run and Start
        done = group.burst(actor, operation_of(request.op), page, most=1, request=name)
        return pb.HostMmServiceStepResponse(step=step_to(done[-1]) if done else None)

    def _boot(self, group: HostGroup) -> Boot:
        """Returns what creates the guests of a group, under its present ownership."""
        return Boot(self.firmware.under(group.name, group.store.epoch), self.firmware.guests)

    def CreateGuest(self, request: pb.CreateGuestRequest, context: Context) -> pb.CreateGuestResponse:
        group = self._s390(request.group)
        meta = group.view.meta
        machine_of(meta, request.vm)
        if not 0 < request.cpus <= MOST_CPUS:
            raise StatusError(
                grpc.StatusCode.INVALID_ARGUMENT,
                "BAD_CPUS",
                "processors",
                value=request.cpus,
                allowed=f"1 to {MOST_CPUS}",
            )
        if request.request_id:
            group.keep(request.request_id)
        return self._boot(group).create(request, int(meta.cfg["pages"][0]) * PAGE_SIZE)

    def Unpack(self, request: pb.UnpackRequest, context: Context) -> pb.UnpackResponse:
        group, count = self._s390(request.group), len(request.image) // PAGE_SIZE
        meta = group.view.meta
        actor_of(meta, request.actor, (VCPU,), "vCPUs")
        if not count or len(request.image) % PAGE_SIZE:
            raise StatusError(
                grpc.StatusCode.INVALID_ARGUMENT,
                "BAD_IMAGE",
                "image",
                value=plural(len(request.image), "byte"),
                allowed="whole pages of 4,096 bytes",
            )
        page_of(meta, request.page, count)
        return pb.UnpackResponse(pages=self._boot(group).place(request, int(meta.who["vm"][request.actor])))

    def StartGuest(self, request: pb.StartGuestRequest, context: Context) -> pb.StartGuestResponse:
        group = self._s390(request.group)
        actors = [t for t, who in enumerate(group.view.meta.who) if who["vm"] == request.vm]
        answer = self._boot(group).start(group.name, request.vm, request.prefix, actors)
        return pb.StartGuestResponse(answer=answer)

    def DestroyGuest(self, request: pb.DestroyGuestRequest, context: Context) -> pb.DestroyGuestResponse:
        group = self._s390(request.group)
        return pb.DestroyGuestResponse(answer=self._boot(group).destroy(group.name, request.vm))

    def Prepare(self, request: pb.HostMmServicePrepareRequest, context: Context) -> pb.HostMmServicePrepareResponse:
        meta, group = constants(request.meta), group_name(request.group)
        sections = dict(request.sections)
        check_sections(meta, sections, "host")
        bounded("folio groups", len(self.store.groups()) + 1, MOST_GROUPS)
        meta = meta._replace(origin=FIRST + GROUP * self.store.number("uf:host:groups"))
        event = encode(Made("host", sections, encode_meta(meta)))
        if not self.store.create(group, {**sections, "meta": encode_meta(meta)}, event):
            raise exists(group)
        return pb.HostMmServicePrepareResponse(origin=meta.origin)


def _entrance(meta: Meta, function: str, arguments: Sequence[int]) -> None:
    """Raises StatusError unless it is a function of the host that other roles call, with arguments of the group."""
    entrances, pages = ENTRANCES[meta.design.name], int(meta.cfg["pages"][0])
    most = {"exception": 255, "operation": len(OPS) - 1, "page": pages - 1, "count": pages, "again": 1}
    names = entrances.get(function)
    fits = names is not None and len(names) == len(arguments)
    fits = fits and all(0 <= value <= most[name] for name, value in zip(names or (), arguments, strict=True))
    if fits and (names != ("page", "count") or sum(arguments) <= pages):
        return
    raise StatusError(
        grpc.StatusCode.INVALID_ARGUMENT,
        "NO_SUCH_ENTRANCE",
        "function and arguments",
        value=f"{function}, {', '.join(map(str, arguments[:4]))}",
        allowed="; ".join(f"{name} {' '.join(of)}".strip() for name, of in entrances.items()),
    )


def _operation(design: Design, kind: int, op: int) -> int:
    """The operation of an order to an actor of this kind. StatusError: it has no such."""
    fit = (READ, WRITE) if kind == ACCESS and design is S390 else (TOUCH,)
    if op and op not in fit:
        raise StatusError(
            grpc.StatusCode.INVALID_ARGUMENT,
            "NO_SUCH_OPERATION",
            "operation",
            value=op,
            allowed=", ".join(f"{one} ({OPS[one]})" for one in (0, *fit)),
        )
    return op or fit[0]


def _refused(group: Group, done: Done) -> StatusError:
    """A start that the rules do not allow now."""
    after = int(group.view.meta.who["after"][done.actor])
    early = after > 0 and not interpreted(group.design).turn_come(group.view.live, done.actor)
    if group.view.live.actor[done.actor].budget == 0:
        reason, allowed = "NO_STARTS_LEFT", "as many starts as its scenario gave it, `starts`"
    else:
        kind = int(group.view.meta.who["kind"][done.actor])
        page = "once the folio is thawed" if done.outcome == W_FROZEN else FIT.get(kind, "another page")
        reason, allowed = "NOT_ENABLED", f"once actor {after - 1} has finished" if early else page
    return StatusError(
        grpc.StatusCode.FAILED_PRECONDITION,
        reason,
        f"actor {done.actor} cannot start that now",
        value=f"{done.name}: waits for {done.word}",
        allowed=allowed,
    )


def _remaining(context: Context) -> Callable[[], float]:
    return lambda: float(context.time_remaining())
