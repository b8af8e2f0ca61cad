"""The exception for a model that outgrows a table or a field, raised at import."""

from __future__ import annotations

from typing import Any

import numpy as np


class Outgrown(Exception):
    """The model outgrew a table or a field. Raised at import, so no run uses such a model.

    what   what there are too many of
    there  how many there are
    fit    how many fit
    widen  the file and name to widen
    """

    def __init__(self, what: str, there: int, fit: int, widen: str) -> None:
        self.what, self.there, self.fit, self.widen = what, there, fit, widen
        super().__init__(f"{what}\n  there are  {there}\n  room for   {fit}\n  widen      {widen}")


def fits(what: str, there: int, fit: int, widen: str) -> None:
    """Raises Outgrown if `there` is larger than `fit`."""
    if there > fit:
        raise Outgrown(what, there, fit, widen)


def most(record: np.dtype[Any], field: str) -> int:
    """Returns the largest number that fits into a field of a record."""
    return int(np.iinfo(record[field]).max)
