"""The names and tables of waits: obstacles, classes, and what the rules say of who holds what."""

from __future__ import annotations

from ultrafolio.model import layout as _layout
from ultrafolio.model import rules  # noqa: F401  (it fills RULES)
from ultrafolio.model.bounds import fits
from ultrafolio.model.rule import RULES

OB_MAPPED, OB_MUTEX, OB_LOCK, OB_WRITEBACK, OB_REFS, OB_DIRTY, OB_FROZEN = (1 << n for n in range(7))
OBSTACLES = ("mapped", "mutex", "lock", "writeback", "references", "dirty", "frozen")
"""Their names, in the order of their bits, which is the order in which an import meets them."""
PAGE = "page"
"""Named beside them: the page is taken away again before the access."""

CLASS_NONE, CLASS_FATAL, CLASS_PERMANENT, CLASS_EXPECTED, CLASS_WAITING = range(5)
CLASSES = ("", "fatal", "permanent", "expected", "waiting")
"""Classes of a wait that one state can tell."""

OBSTACLE_OF = {
    _layout.E_NXIO: OB_MAPPED, _layout.SWAPPED_IN: OB_MAPPED, _layout.W_MUTEX: OB_MUTEX, _layout.E_LOCKED: OB_LOCK,
    _layout.W_LOCK: OB_LOCK, _layout.E_WRITEBACK: OB_WRITEBACK, _layout.W_WRITEBACK: OB_WRITEBACK,
    _layout.E_REFS: OB_REFS, _layout.W_REFS: OB_REFS, _layout.E_DIRTY: OB_DIRTY, _layout.W_FROZEN: OB_FROZEN,
}  # fmt: skip
"""Per outcome of a step: the obstacle that it met."""
BUSY = (_layout.E_LOCKED, _layout.E_REFS, _layout.E_WRITEBACK, _layout.E_DIRTY, _layout.E_UV)
"""Outcomes with which an import comes back to be tried again."""
UNOBSTRUCTED = (
    _layout.OK, _layout.DONE, _layout.FAULT, _layout.SUCCESS, _layout.E_UV, _layout.E_FATAL, _layout.E_IO,
    _layout.E_LATE, _layout.MISUSE, _layout.W_IDLE, _layout.W_STOPPED, _layout.W_DEVICE, _layout.W_TABLE, _layout.W_IO,
)  # fmt: skip
"""Outcomes of a step that met none of the obstacles."""
_untold = [
    (_layout.OUTCOMES if outcome > 0 else _layout.WAITS)[abs(outcome)]
    for outcome in (*range(1, len(_layout.OUTCOMES)), *range(-1, -len(_layout.WAITS), -1))
    if outcome not in (*OBSTACLE_OF, *UNOBSTRUCTED)
]
fits(
    f"outcomes, of which waits do not know whether an obstacle is met: {', '.join(_untold)}",
    len(_layout.OUTCOMES) + len(_layout.WAITS) - 2,
    len(_layout.OUTCOMES) + len(_layout.WAITS) - 2 - len(_untold),
    "waits/tables.py: OBSTACLE_OF or UNOBSTRUCTED, and BUSY",
)

_WORDS = {"lock": OB_LOCK, "writeback": OB_WRITEBACK, "frozen": OB_FROZEN, "mutex": OB_MUTEX, "refs": OB_REFS}
HOLDS = tuple(sum(_WORDS[word] for word in RULES[pc].holds) if pc in RULES else 0 for pc in range(_layout.DEAD + 1))
"""Per rule: what a thread that stands there holds of its folio. From the rules' own `holds`."""
ASLEEP = tuple(sum(_WORDS[word] for word in RULES[pc].sleeps) if pc in RULES else 0 for pc in range(_layout.DEAD + 1))
"""Per rule: what a vCPU that stands there sleeps for, whatever has become of its page."""
