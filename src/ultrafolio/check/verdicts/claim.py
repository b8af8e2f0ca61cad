"""What is said of a wait, as a certificate tests it."""

from __future__ import annotations

from dataclasses import dataclass

from ultrafolio.waits.tables import OBSTACLES, PAGE


@dataclass(frozen=True, slots=True)
class Claim:
    """What is said of a wait: who waits, for which page, of which class, named after which obstacles.

    whole  references are counted over the folio;  named: names of waits.tables.OBSTACLES, or `page`
    """

    waiter: int
    kind: str
    page: int
    whole: bool
    named: tuple[str, ...]

    @property
    def bits(self) -> int:
        """The named obstacles, a bit each."""
        return sum(1 << OBSTACLES.index(name) for name in self.named if name != PAGE)
