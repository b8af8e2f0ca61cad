"""The "always" properties of the design guest_memfd (docs/model.md, section 9.5), as functions of one step."""

from __future__ import annotations

from ultrafolio.model.guest_memfd.layout import *
from ultrafolio.model.guest_memfd.machines.verbs import *
from ultrafolio.model.rule import fn
from ultrafolio.model.rules.folio import extra_refs

from .blocks import block_after, block_of

PROPERTIES = (
    "",
    "a refused request leaves every attribute as it was",
    "a refusal names a page of the request that somebody but KVM uses",
    "no user page table maps a private page, and no granted pin is on one",
    "outside an invalidation KVM maps no page as the other kind",
    "KVM maps no page that is not allocated",
    "the host meets no page of its guest: no oops, no machine check, no page taken by force, no I/O in flight",
    "a page keeps its content, unless its attribute changes on a machine that loses it then",
    "no page that the machine has not given back is freed, or mapped by the host",
    "a virtual machine dies only where its hardware fails",
    "KVM maps a huge page by one entry only where its folio, its attributes and the hardware's entry are whole",
    "nobody is given what another has left in a page",
    "a page of the file has one folio",
)


@fn
def focus(s, t, page):
    """Returns the page that the next step of `t` is about; `page` is the choice, for rules that choose."""
    k = s.task[t]
    if k.pc == IDLE_PC[s.who[t].kind]:
        return page
    if k.pc == AGAIN:
        return s.actor[t].page
    if CONVERT_LOCK <= k.pc <= CONVERT_END or HOLE_LOCK <= k.pc <= HOLE_END:
        return k.i if k.start <= k.i < k.end else k.start
    at_next = USER_LOCK <= k.pc <= GUP_RECHECK or k.pc in (GUP_WALK, FRESH_UNLOCK, FRESH_SPLIT)
    if at_next and k.at < max(k.n, 1):
        return k.page + k.at
    if k.pc == UNPIN and k.at > 0:
        return k.page + k.at - 1
    return k.page


@fn
def used_by_host(s, p):
    """Whether page `p` is private, and a user page table maps it or a granted pin is on it."""
    return s.cfg[0].convert == IN_PLACE and s.mm[p].private and (s.mm[p].users or s.mm[p].granted > 0)


@fn
def of_other_kind(s, p):
    """Whether KVM maps page `p` as the kind that it is not, and no invalidation of it is in progress."""
    if s.mm[p].zapped or s.pt[p].present == UNMAPPED or s.cfg[0].convert == BY_GUEST:
        return False
    return s.pt[p].present != (MAPPED_PRIVATE if s.mm[p].private else MAPPED)


@fn
def broken(s, t, pc, p, was, outcome):
    """The number of a property that a step broke, or 0. Arguments as those of model.properties.broken()."""
    return broken_within(s, t, pc, p, was, outcome, 0, s.cfg[0].pages)


@fn
def broken_within(s, t, pc, p, was, outcome, first, end):
    """The same, where the request of the thread has changed no page outside the huge pages of [first, end)."""
    k = s.task[t]
    refused = outcome == E_AGAIN or (outcome == E_NOMEM and k.pc == VMM_RETRY)
    if refused and (k.splits or all_stored(s, t)):
        return 1
    if outcome == E_AGAIN:
        q = k.failed - 1
        if q < k.page or q >= k.page + k.n or not (extra_refs(s, q) > s.mm[q].kvm or s.mm[q].users):
            return 2
    if outcome in (E_OOPS, E_CHECK, E_STOLEN):
        return 6
    if outcome == E_DEAD and pc in (CONVERT_ZAP, CONVERT_STORE, HOLE_PUNCH) and not fails(s, first, end):
        return 9
    if outcome == E_TWICE:
        return 12
    wrong = on_page(s, p)
    if wrong:
        return wrong
    if (refused or outcome == SUCCESS) and pc != VMM_RETRY and is_lost(s, first, end):
        return 7
    if pc == CONVERT_STORE or pc == CONVERT_END or pc == CONVERT_ZAP or pc == HOLE_PUNCH or pc == HOLE_END:
        return over_request(s, first, end)
    return 0


@fn
def all_stored(s, t):
    """Whether every page of the request has the attribute that it asks for. Then a refusal comes after the store: a
    request that has nothing to do is never refused."""
    k = s.task[t]
    for p in range(k.page, k.page + k.n):
        if s.mm[p].private != (1 if k.call == UNSHARE else 0):
            return False
    return True


@fn
def over_request(s, first, end):
    """Properties of single pages over [first, end), where a step changes those of a whole request."""
    for p in range(first, end):
        wrong = on_page(s, p)
        if wrong:
            return wrong
    return 0


@fn
def on_page(s, p):
    """The number of a property that page `p` breaks in this state, or 0."""
    if used_by_host(s, p):
        return 3
    if of_other_kind(s, p):
        return 4
    if mapped_unallocated(s, p):
        return 5
    if io_on_guests(s, p):
        return 6
    if large_apart(s, p):
        return 10
    if s.mm[p].stale == TAKEN_FOR_WRITTEN and (s.pt[p].present != UNMAPPED or s.mm[p].users):
        return 11
    return 8 if not_given_back(s, p) else 0


@fn
def large_apart(s, p):
    """Whether KVM maps the huge page of `p` by one entry, and something else of it is not whole."""
    if not s.pt[p].large or s.mm[p].zapped:
        return False
    q = p + 1 if p + 1 < block_after(s, p) else block_of(s, p)
    return not (s.mm[p].order and s.mm[p].private and s.mm[q].private and s.pt[q].large and has_entry(s, p))


@fn
def mapped_unallocated(s, p):
    """Whether KVM maps page `p`, which the file does not have."""
    return s.pt[p].present != UNMAPPED and not s.mm[p].allocated


@fn
def not_given_back(s, p):
    """Whether the host uses or has freed page `p`, which the hardware has not given back."""
    used = s.mm[p].users and s.cfg[0].convert == IN_PLACE
    return not is_given_back(s, p) and (used or not s.mm[p].allocated)


@fn
def io_on_guests(s, p):
    """Whether I/O is in flight, or a mapping for DMA stands, on page `p`, which is its guest's."""
    return s.cfg[0].convert != TWO_BACKINGS and not is_given_back(s, p) and (s.io[p].flying > 0 or s.io[p].dma > 0)


@fn
def is_lost(s, first, end):
    """Whether the content of a page in [first, end) is gone although nobody asked for that; a dead machine asks for
    nothing more."""
    for p in range(first, end):
        if s.uv[p].lost and s.vm[0].life == ALIVE:
            return True
    return False


@fn
def fails(s, first, end):
    """Whether the hardware refuses something of the huge pages of [first, end)."""
    for p in range(block_of(s, first), block_after(s, end - 1)):
        if s.uv[p].refuses:
            return True
    return False
