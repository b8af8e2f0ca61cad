"""References that are no pins: the LRU batches, another mapping, a pfn walker, an interrupt."""

from __future__ import annotations

from ultrafolio.model.layout import *
from ultrafolio.model.rule import UNFAIR, fn, rule

from .folio import counted, get_ref, head, put_ref
from .thread import finished, spend, turn_come


@rule(LRU_IDLE, takers="lru", tells_page=True, fair=UNFAIR, chooses=True,
      kernel="folio_add_lru, v5.16: a batch of this CPU holds a reference")  # fmt: skip
def lru_add(s, t, op, page):
    """A page enters the LRU batch of the actor's CPU, where it stays, referenced, until drained."""
    m = s.mm[page]
    if m.batch or s.mm[counted(s, page)].frozen or not turn_come(s, t) or not spend(s, t):
        return W_IDLE
    m.batch = s.who[t].cpu + 1
    s.mm[head(s, page)].refs += 1
    finished(s, t)
    return OK


@fn
def drain(s, p, cpu):
    """Drop the LRU-batch references on this folio: those of CPU `cpu` - 1, or of every CPU (0)."""
    h = head(s, p)
    for q in range(h, h + (1 << s.mm[p].order)):
        m = s.mm[q]
        if m.batch and (cpu == 0 or m.batch == cpu):
            m.batch = 0
            s.mm[h].refs -= 1


@rule(MAPPING_IDLE, takers="mapping", tells_page=True, fair=UNFAIR, chooses=True,
      kernel="folio_get by zap, fork or rmap of another mapping, v5.16")  # fmt: skip
def mapping_get(s, t, op, page):
    """The other mapping of a twice-mapped folio takes its count; a plain get does not look whether it is frozen."""
    if not turn_come(s, t) or not spend(s, t):
        return W_IDLE
    return plain_get(s, t, page, MISUSE if s.mm[counted(s, page)].frozen else OK)


@rule(SPECULATIVE_IDLE, takers="speculative", tells_page=True, fair=UNFAIR, chooses=True,
      kernel="folio_try_get by a pfn walker, v5.16")  # fmt: skip
def speculative_get(s, t, op, page):
    """A pfn walker tries a reference; a frozen folio refuses it."""
    if s.mm[counted(s, page)].frozen:
        return W_FROZEN
    if not turn_come(s, t) or not spend(s, t):
        return W_IDLE
    return plain_get(s, t, page, OK)


@fn
def plain_get(s, t, page, outcome):
    get_ref(s, page, 2)
    s.task[t].page, s.task[t].pc = page, PUT
    return outcome


@rule(PUT, takers="mapping speculative interrupt", releases="refs", kernel="folio_put, v5.16")
def plain_put(s, t):
    """Drop the plain reference."""
    k = s.task[t]
    put_ref(s, k.page, 2)
    k.page = 0
    if s.who[t].kind == INTERRUPT:
        k.pc = DEVICE_IDLE
    else:
        k.pc = MAPPING_IDLE if s.who[t].kind == MAPPING else SPECULATIVE_IDLE
    finished(s, t)
    return DONE
