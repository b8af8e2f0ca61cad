"""Access control: for each method of all services, the roles that may call it, and for which virtual machine.

A method that is not in the table cannot be registered. A call of a guest names a machine, directly or by an actor of a
group. A caller of one machine (`guest:3`) may not name another machine; a caller of one group (`guest:g/3`) may not
name another group. A guest service (`guest`) may name every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import grpc

from services.common import identity
from services.common.identity import Identity
from ultrafolio.rpc.errors import StatusError

MachineOf = Callable[[str, int], int | None]
"""(group, actor) -> number of the actor's machine, None if there is no such actor. StatusError: no such group."""
Compare = Callable[[Identity, Any, MachineOf], None]


class Rule(NamedTuple):
    """roles: allowed callers;  compare: check of a guest's call against the guest's machine, None: no check."""

    roles: tuple[str, ...]
    compare: Compare | None = None


def own_machine(caller: Identity, vm: int | None) -> int:
    """Returns the machine of a guest's call that names `vm` or None. Raises StatusError if it is not the caller's."""
    if caller.vm is not None and not caller.vm.isdecimal():
        raise not_yours(f"guest {caller.vm}", caller)
    if vm is None and caller.vm is None:
        raise not_yours("a guest without a number", caller)
    named = int(caller.vm or 0) if vm is None else vm
    if caller.vm is not None and int(caller.vm) != named:
        raise not_yours(f"guest {named}", caller)
    return named


def not_yours(whose: str, caller: Identity) -> StatusError:
    """Returns the error for a call as somebody that the caller is not (PERMISSION_DENIED)."""
    return StatusError(
        grpc.StatusCode.PERMISSION_DENIED,
        "NOT_YOUR_VIEW",
        f"an access or a call as {whose}",
        value=str(caller),
        allowed="host or device without vm; guest with its own vm",
    )


def _field(caller: Identity, request: Any, machine_of: MachineOf) -> None:
    """Check the request's field `vm`."""
    named = request.vm if _optional(request) is None or request.HasField("vm") else None
    own_machine(caller, named)


def _actor(caller: Identity, request: Any, machine_of: MachineOf) -> None:
    """Check the machine of the request's actor."""
    if caller.vm is not None:
        vm = machine_of(request.group, request.actor)
        # the service itself refuses an actor that does not exist
        if vm is not None:
            own_machine(caller, vm)


def _optional(request: Any) -> Any:
    """Returns the group of the request's optional field `vm`; None if the field always has a value."""
    return request.DESCRIPTOR.fields_by_name["vm"].containing_oneof


HOST, GUEST, LAB, DEVICE = ("host",), ("guest",), ("lab",), ("device",)
_VMM = (*GUEST, *HOST, *LAB)
"""The guest service also plays the VMM."""
_ALL = (*GUEST, *DEVICE, *HOST, *LAB)
_DRIVEN = Rule((*GUEST, *LAB), _actor)
_LAB = Rule(LAB)

_GUEST = dict.fromkeys(
    (
        *(
            "Touch",
            "Share",
            "Unshare",
            "DirectIo",
            "Configure",
            "Convert",
            "PunchHole",
            "Release",
            "Interrupt",
            "Reboot",
        ),
        *("RunWorkload", "Boot"),
    ),
    _DRIVEN,
) | dict.fromkeys(("Step", "Prepare"), _LAB)
_HOST = {
    "Run": Rule(_ALL, _actor),
    "Start": Rule((*HOST, *LAB)),
    "Cross": Rule((*GUEST, *DEVICE), _actor),
    "ReadPage": Rule((*HOST, *LAB)),
    # a guest sees its own actors only
    "Explain": Rule(_ALL),
    "Step": _LAB,
    "Prepare": _LAB,
    "CreateGuest": Rule(_VMM, _field),
    "Unpack": Rule(_VMM, _actor),
    "StartGuest": Rule(_VMM, _field),
    "DestroyGuest": Rule(_VMM, _field),
}
_ULTRAVISOR = {
    "Execute": Rule(_VMM, _field),
    # host and device have the host's view of a page, a guest its machine's
    "Access": Rule(_ALL, _field),
    "Shares": Rule((*GUEST, *LAB), _field),
    # a step's own questions: of the host and its devices without vm, of a guest with its own
    "Enforce": Rule((*GUEST, *DEVICE, *HOST), _field),
    "WouldEnd": Rule((*HOST, *LAB)),
    "Enter": Rule((*HOST, *LAB)),
    "Diagnose": Rule((*GUEST, *LAB), _field),
    # a public key
    "HostKey": Rule(identity.ROLES),
    "Prepare": _LAB,
    "Inject": _LAB,
    "Clear": _LAB,
}
_OF_LAB = (
    "SubmitSweep", "UploadRecording", "WatchSweep", "ControlSweep", "ListSweeps", "FetchResults", "Watch", "ListGroups",
    "ArchiveGroup", "DeleteGroup",
)  # fmt: skip
PACKAGE = "ultrafolio.rpc.v1."
TABLE: dict[str, Rule] = {
    f"{PACKAGE}{service}/{method}": rule
    for service, methods in (
        ("GuestService", _GUEST),
        ("HostMmService", _HOST),
        ("UltravisorService", _ULTRAVISOR),
        ("LabService", dict.fromkeys(_OF_LAB, _LAB)),
    )
    for method, rule in methods.items()
}
"""Full method name -> rule."""


def rule_of(rpc: str) -> Rule | None:
    """Returns the rule of a method, None for another package's (health, reflection). KeyError: ours without a rule."""
    return TABLE[rpc] if rpc.startswith(PACKAGE) else None


def check(rule: Rule, caller: Identity, request: Any, machine_of: MachineOf) -> None:
    """Raises StatusError (PERMISSION_DENIED) if a caller of one of the rule's roles may not call this for the machine
    or the group that the request names.

    request: None for a stream of requests, which names no machine
    """
    if caller.group is not None and getattr(request, "group", caller.group) != caller.group:
        raise not_yours(f"a guest of group {request.group or 'none'}", caller)
    if rule.compare and caller.role == "guest" and request is not None:
        rule.compare(caller, request, machine_of)
