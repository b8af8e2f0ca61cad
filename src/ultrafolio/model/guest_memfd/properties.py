"""The "always" properties of the design guest_memfd (docs/model.md, section 9.5), as functions of one step."""

from __future__ import annotations

from ultrafolio.model.guest_memfd.layout import *
from ultrafolio.model.rule import fn
from ultrafolio.model.rules.folio import extra_refs

PROPERTIES = (
    "",
    "a refused request leaves every attribute as it was",
    "a refusal names a page of the request that somebody but KVM uses",
    "no user page table maps a private page, and no granted pin is on one",
    "outside an invalidation KVM maps no page as the other kind",
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
    if k.pc in (GUP_WALK, GUP_GET, GUP_RECHECK, USER_LOCK, USER_LOOKUP, USER_MAP) and k.at < max(k.n, 1):
        return k.page + k.at
    if k.pc == UNPIN and k.at > 0:
        return k.page + k.at - 1
    return k.page


@fn
def used_by_host(s, p):
    """Whether page `p` is private, and a user page table maps it or a granted pin is on it."""
    return s.mm[p].private and (s.mm[p].users or s.mm[p].granted > 0)


@fn
def of_other_kind(s, p):
    """Whether KVM maps page `p` as the kind that it is not, and no invalidation of it is in progress."""
    if s.mm[p].zapped or s.pt[p].present == UNMAPPED:
        return False
    return s.pt[p].present != (MAPPED_PRIVATE if s.mm[p].private else MAPPED)


@fn
def broken(s, t, pc, p, was, outcome):
    """The number of a property that a step broke, or 0. Arguments as those of model.properties.broken()."""
    k = s.task[t]
    if outcome == E_AGAIN:
        if all_stored(s, t):
            return 1
        q = k.failed - 1
        if q < k.start or q >= k.end or not (extra_refs(s, q) > s.mm[q].kvm or s.mm[q].users):
            return 2
    if used_by_host(s, p):
        return 3
    if of_other_kind(s, p):
        return 4
    if pc == CONVERT_STORE or pc == CONVERT_END or pc == HOLE_END:
        return over_request(s)
    return 0


@fn
def all_stored(s, t):
    """Whether every page of the request has the attribute that it asks for. Then a refusal comes after the store: a
    request that has nothing to do is never refused."""
    k = s.task[t]
    for p in range(k.start, k.end):
        if s.mm[p].private != (1 if k.call == UNSHARE else 0):
            return False
    return True


@fn
def over_request(s):
    """Properties 3 and 4 over every page, where a step changes those of a whole request."""
    for p in range(s.cfg[0].pages):
        if used_by_host(s, p):
            return 3
        if of_other_kind(s, p):
            return 4
    return 0
