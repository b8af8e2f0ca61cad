"""Query (command 0x0001): the caller's installed calls, and the machine's sizes."""

from __future__ import annotations

from services.ultravisor import machine_state as m
from ultrafolio.uvcall.calls import CALLS, installed_for

MISC = 1 << 63
"""Feature bit 0: an import itself moves a shared page of another guest (kernel §1.3)."""
LENGTH = 0x100
"""Block length, bytes, with room for all fields but those of secrets, which are not installed."""


def installed(guest: bool) -> int:
    """The bitmap of installed calls, 256 bits counted from the left."""
    return sum(1 << (255 - call.bit) for call in installed_for(guest) if call.bit is not None)


def query(machine: m.Machine, guest: bool) -> dict[str, int]:
    """Returns the output fields; for a guest only its calls, not the host's sizes."""
    told = dict.fromkeys(CALLS["query"].outputs, 0) | {"calls": installed(guest)}
    if guest:
        return told
    return told | {
        "uv_base_stor_len": m.BASE_STORAGE,
        "conf_base_phys_stor_len": m.CONFIGURATION_BASE,
        "conf_base_virt_stor_len": m.CONFIGURATION_VIRTUAL,
        "conf_virt_var_stor_len": m.VARIABLE_PER_MIB,
        "cpu_stor_len": m.CPU_STORAGE,
        "max_num_sec_conf": m.MAX_CONFIGURATIONS,
        "max_guest_stor_addr": m.MAX_GUEST_ADDRESS,
        "max_guest_cpu_id": m.MAX_CPU_NUMBER,
        "features": MISC if machine.misc else 0,
    }
