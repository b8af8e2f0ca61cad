"""The reset of a guest that reboots or shuts down.

Mirrors kvm_s390_handle_pv() in arch/s390/kvm/kvm-s390.c (kernel §3.1).
"""

from __future__ import annotations

from ultrafolio.model.layout import *
from ultrafolio.model.rule import fn, rule

from .thread import finished
from .ultravisor import uv_reset


@fn
def take_reboot(s, t, restart):
    """The VMM stops the machine. restart: whether it runs again afterwards."""
    s.vm[s.who[t].vm].life = REBOOTING
    s.task[t].call, s.task[t].pc = restart, REBOOT_QUIET
    return OK


@rule(REBOOT_QUIET, takers="reboot", kernel="kvm_s390_handle_pv: vCPUs stopped, then KVM_PV_UNSHARE_ALL, v5.7",
      seed="until the guest shuts down or reboots")  # fmt: skip
def reboot_quiet(s, t):
    """Wait for the machine's vCPUs to stop, its I/O to end, its devices to be torn down, and writeback."""
    vm = s.who[t].vm
    for a in range(s.cfg[0].actors):
        who, pc = s.who[a], s.task[a].pc
        mine = who.vm == vm and who.kind in (VCPU, DISK, RING, PIN, INTERRUPT)
        if mine and pc not in (RUN, DEVICE_IDLE, DEAD):
            return W_DEVICE
        if (who.kind == WRITEBACK and pc != WB_IDLE) or (who.kind == RECLAIM and pc != RECLAIM_IDLE):
            return W_DEVICE
    s.task[t].pc = REBOOT_RESET
    return OK


@rule(REBOOT_RESET, takers="reboot", call="reset", releases="vm",
      kernel="KVM_PV_UNSHARE_ALL (0x0340), destroy pages (0x0202), v5.7")  # fmt: skip
def reboot_reset(s, t):
    """One ultravisor step: unshare all and destroy; then the machine runs again, or is gone."""
    uv_reset(s, s.who[t].vm)
    vm = s.vm[s.who[t].vm]
    if vm.life == REBOOTING:
        vm.life = ALIVE if s.task[t].call else GONE
    s.task[t].call, s.task[t].pc = 0, REBOOT_IDLE
    finished(s, t)
    return DONE
