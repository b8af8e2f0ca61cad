"""Calls that change the machine and no page: initialise, configurations, processors, header, reset order.

Each takes the machine and the block's fields, and returns the new machine and the output fields, or raises Refused
with the response code. Codes are those of kvm-unit-tests s390x/uv-host.c, or chosen in ultrafolio.uvcall.calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from services.ultravisor import machine_state as m
from services.ultravisor.machine_state import Configuration, Cpu, Machine, Storage
from ultrafolio.model.layout import PAGE_SIZE
from ultrafolio.uvcall.calls import (
    CPU,
    CPU_CHECK_STOPPED,
    CPU_LOAD,
    CPU_OPERATING,
    CPU_STOPPED,
    RC_ADDRESS,
    RC_INTEGRITY,
    RC_REFUSED,
)
from ultrafolio.uvcall.image import Altered, NoHostKey, Opened, measure

Fields = Mapping[str, int]
Done = tuple[Machine, dict[str, int]]
OpenHeader = Callable[[bytes], Opened]
"""Opens an SE header with the machine's host key; raises what uvcall.image.open_header raises."""

LOWCORE = Storage(0, 2 * PAGE_SIZE)
ASCE_PRIVATE, ASCE_REAL_SPACE = 0x100, 0x20
"""Bits 55 and 58 of an address space control element: must be one; must be zero."""
HEADER_LIMIT = 2 * PAGE_SIZE
"""Longest SE header that KVM takes: kvm_s390_handle_pv, KVM_PV_SET_SEC_PARMS, v6.13."""
STATES = (CPU_OPERATING, CPU_STOPPED, CPU_CHECK_STOPPED, CPU_LOAD)
RUNNING = (CPU_OPERATING, CPU_LOAD)


class Refused(Exception):
    """The call fails with this response code; the machine stays as it was."""

    def __init__(self, rc: int) -> None:
        self.rc = rc


def _check(*checks: tuple[int, bool]) -> None:
    """Raises Refused with the first response code whose condition holds."""
    for rc, wrong in checks:
        if wrong:
            raise Refused(rc)


def variable_length(guest_length: int) -> int:
    """Returns the bytes of variable storage for `guest_length` bytes of guest storage: kvm_s390_pv_alloc_vm, v7.0."""
    pages = -(-m.VARIABLE_PER_MIB * guest_length // m.MIB // PAGE_SIZE)
    return m.CONFIGURATION_VIRTUAL + pages * PAGE_SIZE


def initialise(machine: Machine, f: Fields, cpus_running: int) -> Done:
    """Initialise (0x000f); `cpus_running`: running processors of the host, of which there may be one."""
    storage = Storage(f["stor_origin"], f["stor_len"])
    _check(
        (0x101, machine.base is not None),
        (0x102, cpus_running > 1),
        (0x103, storage.length != m.BASE_STORAGE),
        (0x108, storage.origin < 2 * m.GIB),
        (0x104, storage.origin >= machine.ram),
        (0x105, storage.end > machine.ram),
        (0x104, storage.origin % m.MIB != 0),
    )
    return machine.replace(base=storage), {}


def create_configuration(machine: Machine, f: Fields, vm: int | None, group: str) -> Done:
    """Create configuration (0x0100); `vm` is its number among the owners of pages, by default the next; `group` is the
    folio group that is its memory."""
    guest, asce, sca = Storage(f["guest_stor_origin"], f["guest_stor_len"]), f["asce"], Storage(f["sca"], PAGE_SIZE)
    base = Storage(f["conf_base_stor"], m.CONFIGURATION_BASE)
    variable = Storage(f["conf_var_stor"], variable_length(guest.length))
    _check(
        (0x101, guest.origin > m.MAX_GUEST_ADDRESS),
        (0x102, guest.length == 0 or guest.end > m.MAX_GUEST_ADDRESS + 1),
        (0x105, not asce & ASCE_PRIVATE or bool(asce & ASCE_REAL_SPACE)),
        (0x106, any(other.asce == asce for other in machine.configurations.values())),
        (0x108, base.end > machine.ram),
        (0x109, base.overlaps(LOWCORE)),
        (0x10A, base.origin % (4 * PAGE_SIZE) != 0 or not machine.accessible(base)),
        (0x10E, variable.overlaps(LOWCORE)),
        (0x10B, variable.origin % PAGE_SIZE != 0 or not machine.accessible(variable) or variable.overlaps(base)),
        (0x10C, sca.origin == 0),
        (0x10D, not machine.accessible(sca) or sca.overlaps(base) or sca.overlaps(variable)),
        (0x10F, len(machine.configurations) >= m.MAX_CONFIGURATIONS or (vm is None and machine.vms > 255)),
        (0x110, bool(group) and any((c.group, c.vm) == (group, vm) for c in machine.configurations.values())),
    )
    handle, machine = machine.handle()
    number = machine.vms if vm is None else vm
    made = Configuration(
        handle=handle, vm=number, guest=guest, asce=asce, sca=sca.origin, base=base, variable=variable, group=group
    )
    return machine.put(made).replace(vms=max(machine.vms, number + 1)), {"guest_handle": handle}


def destroy_configuration(machine: Machine, f: Fields) -> Done:
    """Destroy configuration (0x0101) and its fast form (0x0102): its donated storage returns to the host. So do its
    pages, in both forms: their owner no longer exists."""
    handle = f["guest_handle"]
    _check((RC_REFUSED, bool(machine.cpus_of(handle))))
    rest = {key: value for key, value in machine.configurations.items() if key != handle}
    return machine.replace(configurations=rest), {}


def create_cpu(machine: Machine, f: Fields) -> Done:
    """Create cpu (0x0120)."""
    storage, state = Storage(f["stor_origin"], m.CPU_STORAGE), Storage(f["state_origin"], PAGE_SIZE)
    of = f["guest_handle"]
    _check(
        (0x103, f["number"] > m.MAX_CPU_NUMBER),
        (0x104, any(cpu.number == f["number"] for cpu in machine.cpus_of(of))),
        (0x106, storage.overlaps(LOWCORE)),
        (0x105, storage.origin % PAGE_SIZE != 0 or not machine.accessible(storage)),
        (0x107, not machine.accessible(state) or state.overlaps(storage)),
    )
    handle, machine = machine.handle()
    return machine.put(Cpu(handle=handle, configuration=of, number=f["number"], storage=storage)), {CPU: handle}


def destroy_cpu(machine: Machine, f: Fields) -> Done:
    """Destroy cpu (0x0121)."""
    return machine.replace(cpus={key: cpu for key, cpu in machine.cpus.items() if key != f[CPU]}), {}


def set_parameters(machine: Machine, f: Fields, operand: bytes, open_header: OpenHeader) -> Done:
    """Set configuration parameters (0x0300): the SE header, which must be readable, and for this machine."""
    configuration = machine.configurations[f["guest_handle"]]
    storage = Storage(f["header_origin"], f["header_len"])
    _check(
        (0x103, not 0 < storage.length <= HEADER_LIMIT or not machine.accessible(storage)),
        (0x103, len(operand) < storage.length),
        (RC_REFUSED, bool(configuration.header) or configuration.verified),
    )
    header = operand[: storage.length]
    _opened(header, open_header)
    return machine.put(replace(configuration, header=header)), {}


def unpacks(machine: Machine, f: Fields, open_header: OpenHeader) -> Opened:
    """The image that a configuration unpacks (0x0301) now: it has a header, and was not verified."""
    configuration = machine.configurations[f["guest_handle"]]
    _check((RC_REFUSED, not configuration.header or configuration.verified))
    return _opened(configuration.header, open_header)


def unpacked(machine: Machine, f: Fields, content: bytes) -> Machine:
    """Returns the machine with one more page of the image measured, by its present content. A repeated page, as after
    a lost answer, is measured once."""
    configuration, place = machine.configurations[f["guest_handle"]], (f["gaddr"], f["tweak"], f["offset"])
    if configuration.last == place:
        return machine
    digest = measure(configuration.measured, *place, content)
    return machine.put(replace(configuration, measured=digest, unpacked=configuration.unpacked + 1, last=place))


def verify(machine: Machine, f: Fields, open_header: OpenHeader) -> Done:
    """Verify image (0x0302): every page was unpacked, in order and at its address, with the owner's content. Afterwards
    processors may run, and pages cannot be unpacked."""
    configuration = machine.configurations[f["guest_handle"]]
    image = unpacks(machine, f, open_header)
    found = configuration.unpacked, configuration.measured
    _check((RC_INTEGRITY, found != (image.pages, image.digest)))
    return machine.put(replace(configuration, verified=True)), {}


def _opened(header: bytes, open_header: OpenHeader) -> Opened:
    """Returns the opened SE header. Raises Refused with the rc for a header of another machine, or an altered one."""
    try:
        return open_header(header)
    except NoHostKey:
        raise Refused(0x108) from None
    except Altered:
        raise Refused(RC_INTEGRITY) from None


def unshare_all(machine: Machine, f: Fields) -> Done:
    """The life-cycle half of Unshare all (0x0340): the first step of a reset, once every processor is stopped."""
    configuration = machine.configurations[f["guest_handle"]]
    _check((RC_REFUSED, _running(machine, configuration.handle)))
    return machine.put(replace(configuration, reset=m.UNSHARED)), {}


def prepare_reset(machine: Machine, f: Fields) -> Done:
    """Prepare reset (0x0320), after unshare all."""
    configuration = machine.configurations[f["guest_handle"]]
    _check((RC_REFUSED, configuration.reset < m.UNSHARED or _running(machine, configuration.handle)))
    before = [replace(cpu, reset=False) for cpu in machine.cpus_of(configuration.handle)]
    return machine.put(*before, replace(configuration, reset=m.PREPARED)), {}


def cpu_reset(machine: Machine, f: Fields) -> Done:
    """Cpu reset (0x0310), of a stopped processor; while the guest is being reset, after it was prepared."""
    cpu = machine.cpus[f[CPU]]
    stage = machine.configurations[cpu.configuration].reset
    _check((RC_REFUSED, cpu.state in RUNNING or stage in (m.RESET_ASKED, m.UNSHARED)))
    return machine, {}


def cpu_reset_full(machine: Machine, f: Fields) -> Done:
    """Cpu reset initial (0x0311) and clear (0x0321): a prepared reset requires one before a processor loads."""
    cpu_reset(machine, f)
    return machine.put(replace(machine.cpus[f[CPU]], reset=True)), {}


def cpu_set_state(machine: Machine, f: Fields) -> Done:
    """Cpu set state (0x0330). Load ends a reset; before that, no processor of the guest operates again."""
    cpu, state = machine.cpus[f[CPU]], f["state"]
    configuration = machine.configurations[cpu.configuration]
    loads = state == CPU_LOAD and configuration.reset == m.PREPARED and cpu.reset
    _check(
        (RC_ADDRESS, state not in STATES),
        (RC_REFUSED, state in RUNNING and configuration.reset != m.NO_RESET and not loads),
    )
    if loads:
        machine = machine.put(replace(configuration, reset=m.NO_RESET))
    return machine.put(replace(cpu, state=state)), {}


def _running(machine: Machine, configuration: int) -> bool:
    return any(cpu.state in RUNNING for cpu in machine.cpus_of(configuration))


CALLS: Mapping[str, Callable[[Machine, Fields], Done]] = {
    "create_cpu": create_cpu, "destroy_cpu": destroy_cpu, "prepare_reset": prepare_reset, "cpu_reset": cpu_reset,
    "cpu_reset_initial": cpu_reset_full, "cpu_reset_clear": cpu_reset_full, "cpu_set_state": cpu_set_state,
}  # fmt: skip
"""Name -> call that needs only the block's fields."""
OF_A_GUEST: Mapping[str, Callable[[Machine, Fields], Done]] = {
    "unshare_all": unshare_all, "destroy_configuration": destroy_configuration,
    "destroy_configuration_fast": destroy_configuration,
}  # fmt: skip
"""Name -> call that also acts on all pages of a guest."""
