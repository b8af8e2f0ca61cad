"""The meanings of a report's axes, workloads, policies and cost profiles, so that its file is self-contained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ultrafolio.errors import InputError
from ultrafolio.model import policies as model
from ultrafolio.model.policy import CHOICES, MEANING
from ultrafolio.sim.config import WORKLOAD
from ultrafolio.sim.costs import DEFAULTS
from ultrafolio.sim.words import AXIS_MEANING

from .store import MIX, Results
from .tables import Table


def explained(results: Results) -> list[Table]:
    """The tables of axes, workloads, policies and cost profiles that this store names."""
    shown = [axes(results), workloads(results), policies(results), costs(results)]
    return [table for table in shown if table.rows]


def axes(results: Results) -> Table:
    """Every axis of the plan in words."""
    rows = [
        [name, str(len(axis.values)), AXIS_MEANING.get(name, "an axis of the plan's own")]
        for name, axis in results.axes.items()
    ]
    if MIX in results.order.values:
        rows.append([f"order {MIX}", "", "each folio has the size that a recording gives it"])
    return Table("axis-words", "The axes.", ["axis", "values", "meaning"], rows, numeric=False)


def workloads(results: Results) -> Table:
    """Every workload: the fields in which it differs from the default, with their meaning."""
    axis = results.axes.get("workload")
    rows = []
    for value in axis.values if axis else ():
        table = results.workload(str(value))
        rows += _differing(str(value), table, {name: field.default for name, field in WORKLOAD.items()}, AXIS_MEANING)
    caption = "The workloads: what they set; every other field has the default of `ultrafolio reference`."
    return Table("workload-words", caption, ["workload", "field", "value", "meaning"], rows, numeric=False)


def policies(results: Results) -> Table:
    """Every policy: its source, and all its choices."""
    tables = results.document.get("policy", {})
    rows = []
    for value in results.policy.values:
        name = str(value)
        own = name not in model.PRESETS or name in tables
        source = "the plan's own, or a kernel" if own else model.PRESETS[name][0]
        try:
            found = model.find(name, tables)
        except InputError:
            rows.append([name, source, "not known here"])
            continue
        choices = [f"{choice} = {getattr(found, choice)}" for choice in CHOICES if choice != "interrupt"]
        rows.append([name, source, ", ".join(choices)])
    words = "; ".join(f"{choice}: {MEANING[choice]}" for choice in CHOICES if choice != "interrupt")
    return Table("policy-words", f"The policies. {words}.", ["policy", "from", "choices"], rows, numeric=False)


def costs(results: Results) -> Table:
    """Every cost profile: each cost in ns (its own or the default), with the meaning."""
    axis = results.axes.get("costs")
    tables = results.document.get("costs", {})
    defaults = {name: ns for name, (ns, _) in DEFAULTS.items()}
    meaning = {name: f"{text} (default {ns:,} ns)" for name, (ns, text) in DEFAULTS.items()}
    rows = []
    for value in axis.values if axis else ("default",):
        table = tables.get(str(value), {})
        rows += _differing(str(value), table if isinstance(table, dict) else {}, defaults, meaning)
        if str(value) == "default" and not table:
            rows = rows[:-1] + [["default", name, f"{ns:,} ns", meaning[name]] for name, ns in defaults.items()]
    return Table("cost-words", "The costs of a step.", ["profile", "cost", "value", "meaning"], rows, numeric=False)


def _differing(
    name: str, table: Mapping[str, Any], defaults: Mapping[str, Any], meaning: Mapping[str, str]
) -> list[list[str]]:
    """A row for every field of `table` that is not the default; one row that says so where there is none."""
    rows = [
        [name, field, str(value), meaning.get(field, "not known here")]
        for field, value in table.items()
        if value != defaults.get(field)
    ]
    return rows or [[name, "–", "–", "the defaults, or a file of its own"]]
