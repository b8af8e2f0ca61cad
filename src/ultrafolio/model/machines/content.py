"""What a property asks of the content of a page: whether it is gone although nobody asked for that."""

from __future__ import annotations

from ultrafolio.model.guest_memfd.layout import *
from ultrafolio.model.rule import fn


@fn
def begin_content(s, p):
    """Page `p` has another use or another frame: what it held before is nobody's any more."""
    s.uv[p].lost = 0


@fn
def is_given_back(s, p):
    """Whether the hardware lets the host use page `p`: its own, or shared by its guest."""
    return s.uv[p].state == HW_HOST or s.uv[p].state == HW_BOTH


@fn
def new_frame(s, p):
    """The frame of page `p` is leaked, not freed: the next allocation at its offset gets another."""
    s.uv[p].state, s.uv[p].lost = HW_HOST, 0
