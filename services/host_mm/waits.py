"""The waits of a group in the words of waits.words, from the host's view of the state.

A vCPU that exited but could now complete its instruction waits for nothing. That depends on the page's state, which
only the ultravisor has; the host asks it only whether the instruction would complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from ultrafolio.engine.interp import records
from ultrafolio.model import designs
from ultrafolio.model.designs import DESIGNS, GUEST_MEMFD
from ultrafolio.model.layout import MAPPED, NON_SECURE, NOTHING, SHARED, VCPU, State
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.v1 import common_pb2
from ultrafolio.state.turn import Group
from ultrafolio.waits import telling
from ultrafolio.waits.load import interpreted
from ultrafolio.waits.words import Stall

Instruction = tuple[int, int, int]
"""An instruction of a guest: virtual machine, page, operation."""
WouldEnd = Callable[[str, list[Instruction]], list[bool]]
"""(group, instructions) -> per instruction, whether the hardware would let it complete now."""


class Waits:
    """Explains the waits of groups. would_end: asks the ultravisor."""

    def __init__(self, would_end: WouldEnd) -> None:
        self._would_end = would_end
        # loaded before the first call, whose deadline may be near
        for design in DESIGNS.values():
            interpreted(design)

    def all(self, group: Group) -> list[common_pb2.Wait]:
        """Returns one entry per actor that waits now. Raises StatusError if the ultravisor does not answer."""
        return [_message(found) for found in self._stalls(group, range(len(group.view.meta.who)))]

    def of(self, group: Group, actor: int) -> common_pb2.Wait | None:
        """Returns an actor's present wait; None if it waits for no other actor, or the ultravisor does not answer."""
        with suppress(StatusError):
            return next((_message(found) for found in self._stalls(group, [actor])), None)
        return None

    def _stalls(self, group: Group, actors: Iterable[int]) -> list[Stall]:
        """Returns the waits of these actors; for those that left the guest the ultravisor says whether their
        instruction would end."""
        arrays, found = group.snapshot(), list[Stall]()
        exited = {t: _instruction(arrays, t) for t in actors if _exited(arrays, t)}
        ends = dict(zip(exited, self._would_end(group.name, list(exited.values())), strict=True)) if exited else {}
        state, words = records(arrays), telling.of(arrays)
        for t in actors:
            if t in exited:
                _supposed(arrays, *exited[t], ends[t])
            one = words.stall(state, t)
            found += [one] if one else []
        return found


def _exited(arrays: State, t: int) -> bool:
    """Whether actor `t` is a vCPU that exited within an instruction."""
    return bool(arrays.who["kind"][t] == VCPU and arrays.actor["op"][t] != NOTHING)


def _instruction(arrays: State, t: int) -> Instruction:
    """Returns (machine, page, operation) of an actor."""
    return int(arrays.who["vm"][t]), int(arrays.actor["page"][t]), int(arrays.actor["op"][t])


def _supposed(arrays: State, vm: int, page: int, op: int, ends: bool) -> None:
    """Let the page be one of which the hardware says what it said: the host's view has not what it is."""
    if designs.of(arrays) is GUEST_MEMFD:
        arrays.uv["shared"][page] = ends == (arrays.pt["present"][page] == MAPPED)
    else:
        arrays.uv["state"][page], arrays.uv["owner"][page] = SHARED if ends else NON_SECURE, vm


def _message(found: Stall) -> common_pb2.Wait:
    told = found.wait
    return common_pb2.Wait(
        actor=found.actor,
        waiter=told.waiter,
        waits_for=told.waits_for,
        held_by=told.held_by,
        released_by=told.released_by,
        stall_class=common_pb2.StallClass.Value(f"STALL_CLASS_{found.kind.upper().replace('-', '_')}"),
    )
