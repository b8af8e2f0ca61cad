"""The results of the calls, except for the checker's Result."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultrafolio.errors import InputError
from ultrafolio.nouns import plural
from ultrafolio.search import words
from ultrafolio.tabular import Tabular

from .named import Policy

if TYPE_CHECKING:
    # it imports pyarrow, which a check does without
    from ultrafolio.sweep.run import Summary


class Policies(Tabular, list[Policy]):
    """Policies as a list, and as a table of their choices."""

    def rows(self) -> Sequence[Mapping[str, Any]]:
        """One row a policy."""
        return [{"policy": policy.name, **policy.as_dict()} for policy in self]


@dataclass(frozen=True, slots=True)
class Run(Tabular):
    """One simulation.

    policy    the policy's name
    measures  the result columns by name (docs/formats.md, Parquet)
    hangs     each hang in words
    """

    policy: str
    measures: dict[str, Any]
    hangs: list[str] = field(default_factory=list)

    @property
    def hung(self) -> bool:
        """Whether an actor of a guest hung for ever; an expected wait does not count."""
        counted = ("permanent", "livelock", "fatal", "vmm_bound")
        return any(self.measures.get(f"hang_{kind}") for kind in counted)

    @property
    def violations(self) -> int:
        """The number of violations of properties."""
        return int(self.measures["violations"])

    def rows(self) -> Sequence[Mapping[str, Any]]:
        """One row: the policy and the measures that are numbers."""
        numbers = {name: value for name, value in self.measures.items() if isinstance(value, int)}
        return [{"policy": self.policy, **numbers}]

    def heading(self) -> str:
        """The hangs."""
        return "hangs: " + ("; ".join(self.hangs[:8]) or "none")

    def json(self) -> str:
        """The measures and the hangs as the text of one JSON object."""
        return json.dumps({"policy": self.policy, **self.measures, "hangs": self.hangs})


@dataclass(frozen=True, slots=True)
class Search(Tabular):
    """What a search found. str() gives it as text.

    record  all of it, as `ultrafolio search --json` prints it
    """

    record: dict[str, Any]

    @property
    def policies(self) -> int:
        """How many policies were searched."""
        return int(self.record["policies"])

    @property
    def survivors(self) -> int:
        """How many policies pass all that is not set aside."""
        return int(self.record["survivors"])

    @property
    def code(self) -> int:
        """The exit code of the command: 0 a policy passes, 1 none does or nothing is left, 3 a limit was reached."""
        return 0 if self.survivors else 3 if self.record["undecided"] else 1

    def rows(self) -> Sequence[Mapping[str, Any]]:
        """The policies that pass, or fail least, as rows: what they fail, how many, the values of their choices."""
        rows = [(one["fails"], row) for one in self.record["front"] for row in one["rows"]]
        names = list(dict.fromkeys(name for _, row in rows for name in row["choices"]))
        return [
            {"fails": ", ".join(fails), "policies": row["policies"]}
            | {name: "|".join(map(str, row["choices"].get(name, ["any"]))) for name in names}
            for fails, row in rows
        ]

    def heading(self) -> str:
        """How many policies were searched, on how many scenarios, and pass."""
        scenarios = plural(len(self.record["scenarios"]), "scenario")
        searched = plural(self.policies, "policy", "policies")
        return f"{self.record['design']}: {searched}, {scenarios}, {plural(self.survivors, 'survivor')}"

    def json(self) -> str:
        """The record as the text of one JSON object."""
        return json.dumps(self.record)

    def __str__(self) -> str:
        return words.text(self.record)


@dataclass(frozen=True, slots=True)
class Sweep(Tabular):
    """A sweep that ran: its summary, and the table of its results."""

    summary: Summary

    @property
    def store(self) -> Path:
        """The folder with the results."""
        return Path(self.summary.store)

    def table(self) -> Any:
        """results.parquet as a pyarrow.Table. Raises InputError where the sweep did not compute all cells."""
        import pyarrow.parquet as pq

        if self.summary.results is None:
            raise InputError(
                f"the results of {self.summary.store}",
                value=f"{plural(self.summary.computed + self.summary.stored, 'cell')} in store",
                allowed="all cells of the plan",
                cause="the sweep had a limit, or was interrupted",
                then="sweep the plan once more, without limit",
            )
        return pq.read_table(self.store / "results.parquet")

    def rows(self) -> Sequence[Mapping[str, Any]]:
        """The results, one row a cell."""
        rows: list[dict[str, Any]] = self.table().to_pylist()
        return rows

    def heading(self) -> str:
        """The numbers of cells that were computed, stored before, and failed."""
        s = self.summary
        cells = plural(s.cells, "cell")
        return f"{s.title}: {cells}, {s.computed} computed, {s.stored} stored before, {s.failed} failed"
