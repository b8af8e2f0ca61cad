"""The interface between sweeps and an experiment: resolve a cell, run it, digest the code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

S390 = "s390"
"""The design of a plan that names none."""

RUNS, SEARCH = "runs", "search"
ASKS = (RUNS, SEARCH)
"""What a cell of a plan is: a simulation; the verdicts of policies on one scenario."""

Scalar = str | int | float | bool
Result = Mapping[str, int | str | list[int]]


class Cells(Protocol):
    """One kind of experiment. A module satisfies this, and so does an object."""

    COLUMNS: dict[str, str]
    """The result columns in order: name -> ``int``, ``str`` or ``ints`` (a list of int64)."""

    PLAIN: Mapping[str, tuple[str, ...]]
    """Axis -> the place in the configuration, names from the outside in, at which its value stands as it is. Nothing
    else in the configuration depends on it. An axis that is not named here may change anything."""

    def resolve(self, cell: dict[str, Any], base: Path) -> dict[str, Any]:
        """The canonical configuration of a cell: JSON-able, deterministic, with every name expanded.

        ``cell`` holds the axes' values and, under ``tables``, the plan's definitions; relative paths
        start at ``base``. Raises InputError for an unknown axis or a bad value.
        """

    def run(self, config: dict[str, Any], base: Path) -> Result:
        """Run the cell. Returns one value per column; depends on ``config`` only. An exception fails the cell."""

    def warm(self) -> None:
        """Compile what ``run`` needs, so that forked workers find it ready."""

    def engine_digest(self) -> str:
        """A digest of everything but the configuration that a result depends on."""


def simulator() -> Cells:
    """The cells of the simulator; imported on demand because compiled kernels are slow to load."""
    from ultrafolio.sim import cell

    return cell


def of(design: str, asks: str = RUNS) -> Cells:
    """The cells of a design, which are what a plan asks."""
    if asks == SEARCH:
        from ultrafolio.search.cell import Verdicts

        return Verdicts(design)
    if design == S390:
        return simulator()
    from ultrafolio.sim import memfd_cell

    return memfd_cell
