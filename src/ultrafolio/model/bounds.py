"""The exception for a model that outgrows a table or a field, raised at import."""

from __future__ import annotations

from typing import Any

import numpy as np


class Outgrown(Exception):
    """The model has more of something than a place has room for. Raised at import: no run begins with such a model.

    what   what there are too many of
    there  how many there are
    fit    how many there is room for
    widen  where to make room
    """

    def __init__(self, what: str, there: int, fit: int, widen: str) -> None:
        self.what, self.there, self.fit, self.widen = what, there, fit, widen
        super().__init__(f"{what}\n  there are  {there}\n  room for   {fit}\n  widen      {widen}")


def fits(what: str, there: int, fit: int, widen: str) -> None:
    """Outgrown where there are more than fit."""
    if there > fit:
        raise Outgrown(what, there, fit, widen)


def most(record: np.dtype[Any], field: str) -> int:
    """The largest number that a field of a record holds."""
    return int(np.iinfo(record[field]).max)
