"""A broken or hostile host changes a page that it may access."""

from __future__ import annotations

from ultrafolio.model.layout import *
from ultrafolio.model.rule import UNFAIR, rule

from .thread import finished, spend, turn_come
from .ultravisor import hw_host


@rule(TAMPER_IDLE, takers="tamper", tells_page=True, actor="fault", fair=UNFAIR, chooses=True,
      kernel="none: a broken or hostile host")  # fmt: skip
def tamper(s, t, op, page):
    """The host changes a byte of a page it may access, or puts an older copy there."""
    if s.mm[page].altered or hw_host(s, page) != ALLOWED or not turn_come(s, t) or not spend(s, t):
        return W_IDLE
    s.mm[page].altered = 1
    finished(s, t)
    return OK
