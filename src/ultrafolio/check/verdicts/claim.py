"""The claim about a wait that a certificate tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ultrafolio.waits.tables import OBSTACLES, PAGE

WaitKind = Literal["fatal", "permanent", "livelock", "vmm-bound"]
"""Classes of a wait that never ends."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim about a wait.

    waiter  number of the actor
    kind    class of the wait: fatal, permanent, livelock or vmm-bound
    page    the page that it waits for
    whole   references are counted over the folio
    named   the obstacles that it is named after, of waits.tables.OBSTACLES; or `page`
    """

    waiter: int
    kind: WaitKind
    page: int
    whole: bool
    named: tuple[str, ...]

    @property
    def bits(self) -> int:
        """Returns the named obstacles as a bit set; without `page`."""
        return sum(1 << OBSTACLES.index(name) for name in self.named if name != PAGE)
