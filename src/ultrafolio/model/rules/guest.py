"""The guest's own steps: vCPUs that touch, share and unshare, and the reboot. Devices: starts and ends of I/O.

Nothing here looks at the host's or the ultravisor's sections; what crosses is the hardware's view of an
access, the guest's own ultravisor calls, and the exit that hands the thread to the host.
"""

from __future__ import annotations

from ultrafolio.model.layout import *
from ultrafolio.model.rule import UNFAIR, fn, rule

from .imports import take_exit
from .pins import take_pin
from .reboot import take_reboot
from .thread import running, spend, waits_its_turn
from .ultravisor import hw_guest, uv_share, uv_shared, uv_unshare
from .unpin import take_unpin


@fn
def all_shared(s, t, page):
    """Whether the guest shares each of the pages that its device `t` is to use, from `page` on."""
    for p in range(page, page + s.actor[t].n):
        if not uv_shared(s, s.who[t].vm, p):
            return False
    return True


@fn
def execute(s, t):
    """The instruction of the vCPU: done if the hardware allows it, else the thread exits to the host."""
    a = s.actor[t]
    vm = s.who[t].vm
    view = hw_guest(s, vm, a.page)
    if view != ALLOWED:
        return take_exit(s, t, view, TOUCH, a.page)
    if a.op == SHARE:
        uv_share(s, vm, a.page)
    elif a.op == UNSHARE and uv_unshare(s, vm, a.page) == UV_EXIT:
        return take_exit(s, t, 0, UNSHARE, a.page)
    a.op, a.page = NOTHING, 0
    s.task[t].pc = RUN
    return DONE


@rule(RUN, takers="vcpu", cost="access exit@FAULT", actor="guest", fair=UNFAIR, chooses=True, kernel="sie64a, v5.7",
      seed="each time a guest tries to touch an exported page, it gets imported")  # fmt: skip
def vcpu_run(s, t, op, page):
    """A running vCPU touches, shares or unshares a page."""
    if not running(s, s.who[t].vm):
        return W_STOPPED
    if op == NOTHING or waits_its_turn(s, t) or (op != TOUCH and not spend(s, t)):
        return W_IDLE
    s.actor[t].op, s.actor[t].page = op, page
    return execute(s, t)


@rule(AGAIN, takers="vcpu", cost="access exit@FAULT", actor="guest",
      kernel="vcpu_post_run_handle_fault, v7.0: the vCPU re-enters SIE",
      seed="when the guest tries to access the remaining pages, it will fail, triggering an import")  # fmt: skip
def vcpu_again(s, t):
    """The vCPU re-enters and repeats the instruction that exited; a stopped one drops it."""
    if not running(s, s.who[t].vm):
        s.actor[t].op, s.actor[t].page = NOTHING, 0
        s.task[t].pc = RUN
        return OK
    return execute(s, t)


@rule(DEVICE_IDLE, takers="disk virtio pin interrupt", actor="device", fair=UNFAIR, chooses=True,
      kernel="virtio-ccw set up; O_DIRECT submit",
      seed="virtio requires individual guest pages to be shared with the host")  # fmt: skip
def device_start(s, t, op, page):
    """A device is about to use `actor.n` pages from `page`, and asks for a pin; a ring and indicators must be shared.

    A disk does direct I/O, a virtio device is configured on its ring, an adapter interrupt sets bits; others pin for
    long.
    """
    kind = s.who[t].kind
    if not running(s, s.who[t].vm):
        return W_STOPPED
    if waits_its_turn(s, t) or ((kind == RING or kind == INTERRUPT) and not all_shared(s, t, page)):
        return W_IDLE
    if not spend(s, t):
        return W_IDLE
    if kind != INTERRUPT:
        s.actor[t].page = page
    return take_pin(s, t, page, s.actor[t].n)


@rule(IO_START, takers="disk virtio pin interrupt", cost="lock configure@DONE", actor="device", kernel="submit_bio",
      seed="we MUST NOT do any kind of I/O on secure pages")  # fmt: skip
def io_start(s, t):
    """Pinned and made accessible: a disk's I/O is in flight, a long-term pin stands, an interrupt's bits are set."""
    a = s.actor[t]
    if s.who[t].kind == INTERRUPT:
        return take_unpin(s, t)
    if s.who[t].kind != DISK:
        s.task[t].pc = RING_READY
        return DONE
    for p in range(a.page, a.page + a.n):
        s.io[p].flying += 1
    s.task[t].pc = IO_END
    return OK


@rule(IO_END, takers="disk", actor="device", kernel="bio_endio",
      seed="which will hang until the I/O is done")  # fmt: skip
def io_end(s, t):
    """The I/O completes, unless its device never answers."""
    a = s.actor[t]
    if s.who[t].stuck:
        return W_IO
    for p in range(a.page, a.page + a.n):
        s.io[p].flying -= 1
    a.page = 0
    return take_unpin(s, t)


@rule(RING_READY, takers="virtio pin", actor="device", fair=UNFAIR, kernel="virtio_ccw_reset",
      seed="The pin stays as long as the corresponding virtio devices are configured "
           "(i.e. until the guest shuts down or reboots)")  # fmt: skip
def ring_teardown(s, t):
    """A virtio device is torn down, or another long-term pin ends: only with the guest's reboot or shutdown."""
    if running(s, s.who[t].vm):
        return W_STOPPED
    s.actor[t].page = 0
    return take_unpin(s, t)


@rule(REBOOT_IDLE, takers="reboot", actor="guest", fair=UNFAIR, chooses=True, releases="vm",
      kernel="diag 308; KVM_PV_UNSHARE_ALL, v5.7", seed="until the guest shuts down or reboots")  # fmt: skip
def reboot_start(s, t, op, page):
    """The guest reboots (op TOUCH) or shuts down (any other): its vCPUs stop, its devices are torn down."""
    if not running(s, s.who[t].vm):
        return W_STOPPED
    if waits_its_turn(s, t) or not spend(s, t):
        return W_IDLE
    return take_reboot(s, t, op == TOUCH)
