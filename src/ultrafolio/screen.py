"""Width and colours of printed text, for every command.

On a terminal text is wrapped to its width, and wider tables are not cut. In a pipe or a file nothing is wrapped or
cut. Text for mails (a counterexample and its command) has MAIL columns everywhere. NO_COLOR removes all escape
sequences.
"""

from __future__ import annotations

import os
import sys
from typing import IO, Any

from rich.console import Console, Group, RenderableType
from rich.table import Table

MAIL = 72
"""Columns of text for mails."""
ENDLESS = 100_000
"""Columns of a pipe or a file."""


def is_plain() -> bool:
    """Whether NO_COLOR forbids escape sequences (no-color.org)."""
    return bool(os.environ.get("NO_COLOR"))


def console(file: IO[str] | None = None, **settings: Any) -> Console:
    """A console for `file`, stdout by default."""
    made = Console(file=file, color_system=None if is_plain() else "auto", highlight=False, **settings)
    if not (file or sys.stdout).isatty():
        made.width = ENDLESS
    return made


def show(what: RenderableType, on: Console | None = None) -> None:
    """Print tables without cutting them: one with a wide column that must not wrap exceeds the terminal's width."""
    on = on or console()
    endless, width = on.options.update(width=ENDLESS), on.width
    for part in what.renderables if isinstance(what, Group) else [what]:
        for column in part.columns if isinstance(part, Table) else ():
            if column.no_wrap:
                column.min_width = max(
                    on.measure(cell, options=endless).maximum for cell in (column.header, *column.cells)
                )
        on.width = max(width, on.measure(part, options=endless).minimum if isinstance(part, Table) else 0)
        on.print(part)
        on.width = width


def columns() -> int:
    """The columns for wrapped text: those of the terminal, or MAIL without a terminal."""
    return console().width if sys.stdout.isatty() else MAIL
