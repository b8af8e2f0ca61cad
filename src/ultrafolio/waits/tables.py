"""The tables of waits: obstacles, classes, the obstacle behind each outcome, what a thread at each rule holds."""

from __future__ import annotations

from ultrafolio.model import layout as _layout
from ultrafolio.model import rules  # noqa: F401  (it fills RULES)
from ultrafolio.model.bounds import fits
from ultrafolio.model.rule import RULES

OB_MAPPED, OB_MUTEX, OB_LOCK, OB_WRITEBACK, OB_REFS, OB_DIRTY, OB_FROZEN = (1 << n for n in range(7))
OBSTACLES = ("mapped", "mutex", "lock", "writeback", "references", "dirty", "frozen")
"""Names of the obstacles by bit, in the order in which an import meets them."""
PAGE = "page"
"""In place of an obstacle: the page is taken away again before the access."""

CLASS_NONE, CLASS_FATAL, CLASS_PERMANENT, CLASS_EXPECTED, CLASS_WAITING = range(5)
CLASSES = ("", "fatal", "permanent", "expected", "waiting")
"""Classes of a wait that one state decides, by CLASS_ number."""

OBSTACLE_OF = {
    _layout.E_NXIO: OB_MAPPED, _layout.SWAPPED_IN: OB_MAPPED, _layout.W_MUTEX: OB_MUTEX, _layout.E_LOCKED: OB_LOCK,
    _layout.W_LOCK: OB_LOCK, _layout.E_WRITEBACK: OB_WRITEBACK, _layout.W_WRITEBACK: OB_WRITEBACK,
    _layout.E_REFS: OB_REFS, _layout.W_REFS: OB_REFS, _layout.E_DIRTY: OB_DIRTY, _layout.W_FROZEN: OB_FROZEN,
}  # fmt: skip
"""The obstacle behind an outcome of a step."""
BUSY = (_layout.E_LOCKED, _layout.E_REFS, _layout.E_WRITEBACK, _layout.E_DIRTY, _layout.E_UV)
"""Outcomes after which an import is retried."""
UNOBSTRUCTED = (
    _layout.OK, _layout.DONE, _layout.FAULT, _layout.SUCCESS, _layout.E_UV, _layout.E_FATAL, _layout.E_IO,
    _layout.E_LATE, _layout.MISUSE, _layout.W_IDLE, _layout.W_STOPPED, _layout.W_DEVICE, _layout.W_TABLE, _layout.W_IO,
)  # fmt: skip
"""Outcomes of a step that met no obstacle."""
_missing = [
    (_layout.OUTCOMES if outcome > 0 else _layout.WAITS)[abs(outcome)]
    for outcome in (*range(1, len(_layout.OUTCOMES)), *range(-1, -len(_layout.WAITS), -1))
    if outcome not in (*OBSTACLE_OF, *UNOBSTRUCTED)
]
fits(
    f"outcomes, of which waits/tables.py lacks whether an obstacle is met: {', '.join(_missing)}",
    len(_layout.OUTCOMES) + len(_layout.WAITS) - 2,
    len(_layout.OUTCOMES) + len(_layout.WAITS) - 2 - len(_missing),
    "waits/tables.py: OBSTACLE_OF or UNOBSTRUCTED, and BUSY",
)

_WORDS = {"lock": OB_LOCK, "writeback": OB_WRITEBACK, "frozen": OB_FROZEN, "mutex": OB_MUTEX, "refs": OB_REFS}
HOLDS = tuple(sum(_WORDS[word] for word in RULES[pc].holds) if pc in RULES else 0 for pc in range(_layout.DEAD + 1))
"""Per rule: what a thread at this rule holds of its folio, a bit set. From Rule.holds."""
ASLEEP = tuple(sum(_WORDS[word] for word in RULES[pc].sleeps) if pc in RULES else 0 for pc in range(_layout.DEAD + 1))
"""Per rule: what a vCPU at this rule sleeps for, a bit set, even if its page has become accessible. From
Rule.sleeps."""
