"""The guest's own steps: a vCPU touches a page, or asks for its conversion.

Nothing here looks at the host's sections; what crosses is the hardware's view of an access, and the exit.
"""

from __future__ import annotations

from ultrafolio.model.guest_memfd.layout import *
from ultrafolio.model.guest_memfd.machines.verbs import *
from ultrafolio.model.guest_memfd.table import rule
from ultrafolio.model.rule import UNFAIR, fn
from ultrafolio.model.rules.thread import running, spend, waits_its_turn

from .fault import take_fault
from .vmm import asked_pages, take_request


@fn
def is_reachable(s, p):
    """Whether KVM's table maps page `p` as the kind as which the guest uses it."""
    return s.pt[p].present == (MAPPED if s.uv[p].shared and s.cfg[0].convert != BY_GUEST else MAPPED_PRIVATE)


@fn
def is_all(s, page, n, shared):
    """Whether the guest uses all `n` pages from `page` as shared, or as private."""
    for p in range(page, page + n):
        if (s.uv[p].shared > 0) != shared:
            return False
    return True


@fn
def use_as(s, page, n, shared):
    """The guest uses the `n` pages from `page` as shared, or as private, from now on."""
    for p in range(page, page + n):
        s.uv[p].shared = 1 if shared else 0


@fn
def stop(s, t, outcome):
    """The vCPU's instruction is over."""
    s.actor[t].op, s.actor[t].page, s.task[t].pc = NOTHING, 0, RUN
    return outcome


@fn
def execute(s, t):
    """The instruction of the vCPU: an access, or the hypercall that asks for a conversion of `actor.n` pages, which
    pKVM's guest turns by itself."""
    a = s.actor[t]
    shared = s.uv[a.page].shared > 0
    by_guest = s.cfg[0].convert == BY_GUEST
    if a.op == TOUCH or by_guest:
        for page in range(a.page, a.page + asked_pages(s, t)):
            if not is_reachable(s, page):
                return take_fault(s, t, page, 0 if shared and not by_guest else 1)
        outcome = OK if shared and not by_guest else guest_access(s, a.page, s.who[t].small)
        if outcome == E_LEVEL:
            s.task[t].exporting = 1
            return take_fault(s, t, a.page, 1)
        if a.op == TOUCH or outcome != OK:
            return stop(s, t, DONE if outcome == OK else outcome)
    if is_all(s, a.page, a.n, a.op == SHARE):
        return stop(s, t, DONE)
    if by_guest:
        for p in range(a.page, a.page + a.n):
            turn(s, p, a.op == SHARE)
        use_as(s, a.page, a.n, a.op == SHARE)
        return stop(s, t, DONE)
    take_request(s, t, a.op)
    return FAULT


@rule(RUN, takers="vcpu", cost="access exit@FAULT", actor="guest", fair=UNFAIR, chooses=True,
      kernel="vcpu_enter_guest, v6.8; KVM_HC_MAP_GPA_RANGE, v5.14")  # fmt: skip
def vcpu_run(s, t, op, page):
    """A running vCPU touches a page as the kind that it takes it for, or asks for the other kind."""
    if not running(s, s.who[t].vm):
        return W_STOPPED
    if op == NOTHING or waits_its_turn(s, t) or (op != TOUCH and not spend(s, t)):
        return W_IDLE
    s.actor[t].op, s.actor[t].page = op, page
    return execute(s, t)


@rule(AGAIN, takers="vcpu", cost="access exit@FAULT", actor="guest", kernel="vcpu_enter_guest, v6.8")
def vcpu_again(s, t):
    """The vCPU goes on: it repeats its access, or has the answer to its request. Told no, the page is what it was."""
    a, answer = s.actor[t], s.task[t].back
    if not running(s, s.who[t].vm):
        return stop(s, t, E_DEAD)
    s.task[t].back = NO_ANSWER
    if answer == NO_ANSWER or a.op == TOUCH:
        return execute(s, t)
    if answer == CONVERTED:
        use_as(s, a.page, a.n, a.op == SHARE)
    return stop(s, t, DONE)
