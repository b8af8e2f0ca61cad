"""The ultravisor's check when a host starts a secure guest's processor, and a guest's request for its own reset.

kvm-unit-tests s390x/pv-icptcode.c and s390x/pv-ipl.c; kernel §1.5, §2.3; conformance case 16, 17, 18.
"""

from __future__ import annotations

from collections.abc import Container

from msgspec.structs import replace

from services.ultravisor.lifecycle import RUNNING
from services.ultravisor.machine_state import NO_RESET, RESET_ASKED, Machine
from ultrafolio.errors import InputError, one_of

VALIDITY, PREFIX = 0x20, 0x70
"""Interception codes: the state description is invalid; the guest may not access a prefix page (ICPT_PV_PREF)."""


def enter(machine: Machine, configuration: int, cpu: int, asce: int, prefix: bool, running: Container[int] = ()) -> int:
    """Returns 0 if the processor runs, else the interception code.

    configuration, cpu  handles in the state description;  asce: control register 1
    prefix              whether the guest may access both prefix pages: they are secure, or shared, and not exported
    running             handles of running processors; a processor cannot be entered twice
    """
    guest, vcpu = machine.configurations.get(configuration), machine.cpus.get(cpu)
    if guest is None or vcpu is None or vcpu.configuration != configuration or guest.asce != asce or cpu in running:
        return VALIDITY
    if not guest.verified or guest.reset != NO_RESET or vcpu.state not in RUNNING:
        return VALIDITY
    return 0 if prefix else PREFIX


def diagnose_308(machine: Machine, configuration: int, subcode: int) -> Machine:
    """Record the guest's request for a reset, clear (subcode 0) or not (1): its processors do not run until the host
    has stopped them, unshared all, prepared the reset, reset a processor and loaded it. InputError: no such guest or
    subcode."""
    if subcode not in (0, 1):
        raise one_of("diag 308 subcode", subcode, (0, 1))
    guest = machine.configurations.get(configuration)
    if guest is None:
        raise InputError("configuration", value=f"{configuration:#018x}", allowed="a handle from create configuration")
    return machine.put(replace(guest, reset=RESET_ASKED))
