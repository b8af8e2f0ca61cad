"""The end of a device's pins: the reference on each page is dropped; the ultravisor is not told."""

from __future__ import annotations

from ultrafolio.model.layout import *
from ultrafolio.model.rule import fn, rule

from .folio import put_ref
from .thread import finished


@fn
def is_long(s, t):
    """Which reference of get_ref() a device takes: 1 a long-term pin, 0 a short one."""
    return 1 if s.who[t].kind == RING or s.who[t].kind == PIN else 0


@fn
def take_unpin(s, t):
    """A device is done with its pages."""
    s.task[t].pc = UNPIN
    return OK


@rule(UNPIN, takers="disk virtio pin interrupt", tells_page=True, releases="refs", traced="unpin_user_page",
      kernel="unpin_user_page in mm/gup.c, v5.7",
      seed="the pin stays as long as the corresponding virtio devices are configured")  # fmt: skip
def unpin(s, t):
    """Drop the reference on one page; the ultravisor is not told."""
    k = s.task[t]
    if k.at:
        k.at -= 1
        s.mm[k.page + k.at].granted -= 1
        put_ref(s, k.page + k.at, is_long(s, t))
    if k.at == 0:
        device_over(s, t)
        return DONE
    return OK


@fn
def unpin_rest(s, t):
    """A pin is refused: drop what it has, if anything."""
    s.task[t].pc = UNPIN
    if s.task[t].at == 0:
        device_over(s, t)


@fn
def device_over(s, t):
    """A device holds no page any more."""
    k = s.task[t]
    k.page, k.n, k.pc = 0, 0, DEVICE_IDLE
    finished(s, t)
