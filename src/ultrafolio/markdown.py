"""Tables of the pages that are written by programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def table(heading: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """The lines of a Markdown table. A `|` in a cell is escaped."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in [heading, *rows]]
    lines = ["| " + " | ".join(row).rstrip() + " |" for row in cells]
    return [lines[0], "|" + "---|" * len(heading), *lines[1:]]
