"""The report of a sweep: a table in the terminal, and one HTML file that opens offline.

store      the rows, axes and origin of a store
aggregate  sums, probabilities with intervals, merged histograms
costs      what a policy costs, and the break-even of splitting
findings   the answer in sentences
tables     the tables
style, draw, matrix, charts   the figures
reproduce  the commands that make a figure or a point again
page       the HTML file
terminal   the table in the terminal
command    the command ``report``

``write_report`` needs the extra ``report``. Without it, access raises MissingExtra, which is an InputError and an
ImportError, so that a caller can test for the extra.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from ultrafolio.errors import InputError, install

if TYPE_CHECKING:
    from .page import write_report
    from .terminal import terminal_table

__all__ = ["MissingExtra", "need_extra", "terminal_table", "write_report"]


class MissingExtra(InputError, ImportError):
    """A package that only reports need is not installed."""


def need_extra() -> None:
    """Raise MissingExtra unless matplotlib and jinja2 are installed."""
    missing = [name for name in ("matplotlib", "jinja2") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtra(
            "report: the HTML report cannot be made here",
            value=f"not installed: {', '.join(missing)}",
            allowed="the extra 'report'",
            cause="its packages are optional",
            then=install("report"),
        )


def __getattr__(name: str) -> Any:
    if name == "write_report":
        need_extra()
        return importlib.import_module(f"{__name__}.page").write_report
    if name == "terminal_table":
        return importlib.import_module(f"{__name__}.terminal").terminal_table
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
