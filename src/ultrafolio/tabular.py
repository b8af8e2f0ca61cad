"""Results as tables: Arrow, pandas, and HTML for a notebook."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from .errors import missing
from .nouns import plural

MOST_SHOWN = 40


class Tabular(ABC):
    """A result with rows, each a mapping with the same names; a notebook shows it as a table."""

    __slots__ = ()

    @abstractmethod
    def rows(self) -> Sequence[Mapping[str, Any]]:
        """The rows, in order."""

    def heading(self) -> str:
        """One line above the table."""
        return ""

    def table(self) -> Any:
        """The rows as a pyarrow.Table."""
        import pyarrow as pa

        return pa.Table.from_pylist([dict(row) for row in self.rows()])

    def to_pandas(self) -> Any:
        """The rows as a pandas.DataFrame. Raises InputError if pandas is not installed."""
        try:
            return self.table().to_pandas()
        except ImportError:
            raise missing("pandas") from None

    def _repr_html_(self) -> str:
        """Returns the table for a notebook, MOST_SHOWN rows at most."""
        rows = list(self.rows())
        names = list(rows[0]) if rows else []
        head = "".join(f"<th>{escape(name)}</th>" for name in names)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(_text(row[name]))}</td>" for name in names) + "</tr>"
            for row in rows[:MOST_SHOWN]
        )
        more = f"<p>and {plural(len(rows) - MOST_SHOWN, 'more row')}</p>" if len(rows) > MOST_SHOWN else ""
        above = f"<p>{escape(self.heading())}</p>" if self.heading() else ""
        return f"{above}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _text(value: object) -> str:
    """Returns a cell's value as text."""
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)
