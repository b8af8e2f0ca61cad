"""What the properties ask of a page's hardware: whether it is given back, and whether its content is gone although
nobody asked for that."""

from __future__ import annotations

from collections.abc import Sequence

from ultrafolio.model.guest_memfd.layout import *
from ultrafolio.model.rule import fn

LOSES_CONTENT: Sequence[bool] = ()  # bound by the loader: machines.facts()
HAS_ENTRIES: Sequence[bool] = ()  # bound by the loader: machines.facts()


@fn
def converted_content(s, p):
    """Page `p` has another attribute: on a machine that loses the content then, it may be gone."""
    if LOSES_CONTENT[s.cfg[0].machine]:
        s.uv[p].lost = 0


@fn
def drop_content(s, p):
    """Page `p` leaves the file: its content may be gone."""
    s.uv[p].lost = 0


@fn
def is_given_back(s, p):
    """Whether the hardware lets the host use page `p`: its own, taken by it, or shared by its guest."""
    return s.uv[p].state == HW_HOST or s.uv[p].state == HW_POISONED or s.uv[p].state == HW_BOTH


@fn
def has_entry(s, p):
    """Whether the hardware has one entry for the huge page of `p`, if it has entries."""
    return not HAS_ENTRIES[s.cfg[0].machine] or s.uv[p].large > 0


@fn
def set_entries(s, p, large):
    """The hardware has one entry for the huge page at `p`, or one for each of its pages."""
    for q in range(p, p + (1 << s.cfg[0].block)):
        s.uv[q].large = large


@fn
def new_frame(s, p):
    """The frame of page `p` is leaked, not freed: the next allocation at its offset gets another."""
    s.uv[p].state, s.uv[p].lost = HW_HOST, 0
