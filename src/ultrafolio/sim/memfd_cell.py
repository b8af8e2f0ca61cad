"""One cell of a sweep of guest_memfd: the interface of sweep/, as that of sim/cell.py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ultrafolio.model.designs import GUEST_MEMFD

from .cell import engine_digest, finish, simulate_all
from .designs import columns
from .memfd_build import build
from .memfd_config import resolve

__all__ = ["COLUMNS", "PLAIN", "engine_digest", "resolve", "run", "warm"]

COLUMNS = columns(GUEST_MEMFD)
"""Result columns of a cell."""
PLAIN: Mapping[str, tuple[str, ...]] = {}
"""As Cells.PLAIN: none, since each axis decides what a machine and a holder do."""


def warm() -> None:
    """Compile the event loop, or load it from the cache."""
    run(resolve({"duration_us": 1}, Path()), Path())


def run(config: Mapping[str, Any], base: Path) -> dict[str, int | str | list[int]]:
    """Simulate a configuration from resolve() and return its COLUMNS. Depends on `config` only. Raises InputError for
    an unreadable recording."""
    state, world = build(dict(config), base)
    return finish(config, state, world, simulate_all(state, world, 1))
