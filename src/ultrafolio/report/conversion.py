"""The report of a sweep of guest_memfd: what its runs say in numbers, sentences and tables; conversion_plots.py
draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.model.guest_memfd.policy import PRESETS
from ultrafolio.nouns import plural
from ultrafolio.sim.costs import MEMFD
from ultrafolio.sim.memfd_config import AXES, WORKLOAD
from ultrafolio.sim.memfd_words import MEMFD_AXIS_MEANING

from .aggregate import Cube, axis_of, cube, quantile, ratio
from .findings import Answer, Finding, listed
from .share import Share, percent
from .store import Array, Axis, Results, Scalar, manifest
from .style import size
from .tables import Table, number, time

HANGS = {"permanent": "P", "vmm_bound": "V", "stuck_faults": "F"}
"""What hung in a run -> its letter; the worse first: requests, by class, and faults without end."""
WORDS = {"permanent": "permanent", "vmm_bound": "vmm-bound", "stuck_faults": "faults without end"}


def column_of(name: str) -> str:
    """The result column that counts what hung."""
    return name if name == "stuck_faults" else f"hang_{name}"


MEASURES = (
    "touches", "requests", "conversions", "refusals", "told_no", "convert_ns", "lock_wait_ns", "drain_waits",
    "drain_wait_ns", "drains_all", "fault_ns", "faults", "walk_ns", "tlb_misses", "machine_calls", "machine_ns",
    "splits", "merges", "restructure_ns", "pages_lost", "pages_converted", "sim_ns", "violations",
)  # fmt: skip
"""The measures that are summed."""


class Conversions(Results):
    """An opened store of a sweep of guest_memfd."""

    needed = ("key", "status", "error", *MEASURES, "extra_bytes", "pages_total", "broken", "convert_hist",
              "first_hang_ns", *(column_of(name) for name in HANGS))  # fmt: skip

    @cached_property
    def policy(self) -> Axis:
        """The axis of policies; a plan without one ran the default."""
        return known(self, "policy")


def is_of(manifest: dict[str, Any]) -> bool:
    """Whether a store's manifest is that of a sweep of guest_memfd."""
    return "convert_ns" in manifest.get("columns", {})


def known(results: Results, name: str) -> Axis:
    """Returns an axis of the plan; of one that the plan lacks, the default in every row."""
    return results.axes.get(name) or Axis(name, (AXES[name].default,), np.zeros(len(results.good), np.int64))


@dataclass(frozen=True)
class Outcome:
    """What became of the requests in each cell of a cube. runs: how many; hung: runs with a hang, by class, the worse
    first; told, refused: of a request the part told no, and refusals."""

    runs: Array
    hung: Array
    told: Array
    refused: Array

    def words(self, *at: int) -> list[str]:
        """One cell in words: "V 40" a hang in percent of its runs, "no 12" told no in percent of its requests, "r 0.1"
        refusals a request where neither is, "·" where nothing was refused."""
        runs, told, refused = int(self.runs[at]), *(float(np.nan_to_num(one[at])) for one in (self.told, self.refused))
        counts = zip(HANGS.values(), self.hung[at].tolist(), strict=True)
        rows = [f"{letter} {percent(count / runs)}" for letter, count in counts if count]
        rows += [f"no {percent(told)}"] if told else []
        return rows or ([f"r {refused:.2g}" if refused else "·"] if runs else [""])


def outcome(cells: Cube) -> Outcome:
    """What became of the requests."""
    worst = np.full(len(cells.place), len(HANGS), np.int64)
    for number_, name in reversed(list(enumerate(HANGS))):
        worst[cells.results.column(column_of(name)) > 0] = number_
    hung = np.stack([cells.total((worst == one).astype(np.int64)) for one in range(len(HANGS))], axis=-1)
    requests = cells.sum("requests")
    return Outcome(cells.runs(), hung, ratio(cells.sum("told_no"), requests), ratio(cells.sum("refusals"), requests))


@dataclass(frozen=True)
class Bill:
    """What the guest's vCPUs pay, in µs a ms of guest time: for faults, for TLB misses, and for requests from the exit
    to the answer."""

    faults: Array
    walks: Array
    requests: Array

    @property
    def memory(self) -> Array:
        """What huge pages save: faults and TLB misses."""
        total: Array = self.faults + self.walks
        return total

    @property
    def total(self) -> Array:
        """All of it."""
        total: Array = self.memory + self.requests
        return total


def bill(cells: Cube) -> Bill:
    """The bill in each cell of a cube."""
    simulated = cells.sum("sim_ns")
    return Bill(*(ratio(1000 * cells.sum(name), simulated) for name in ("fault_ns", "walk_ns", "convert_ns")))


# ------------------------------------------------------------------------------------------------------ sentences
def answer(results: Conversions) -> Answer:
    """The answer of the sweep: per policy who hangs, what is lost and what is there twice, and what huge pages save and
    cost."""
    runs = int(results.good.sum())
    if not runs:
        return Answer("No cell ran to its end, so nothing can be said.", [])
    found = [*hung(results), *lost(results), *bills(results)]
    names = {one.subject for one in found if one.kind == "hung"}
    policies = len(np.unique(results.policy.codes[results.good]))
    of = plural(policies, "policy", "policies")
    headline = f"Under {len(names)} of {of} a request or a fault hung in at least one of {plural(runs, 'run')}."
    return Answer(headline, found)


def hung(results: Conversions) -> list[Finding]:
    """A sentence for each policy and class of hang: how many runs, and with whom as holder."""
    found = []
    cells = cube(results, "policy", "holder")
    made, holders = outcome(cells), cells.axes[1].values
    for row, policy in enumerate(cells.axes[0].values):
        for number_, name in enumerate(HANGS):
            counts = made.hung[row, :, number_]
            if counts.any():
                at = np.flatnonzero(counts)
                share = Share(int(counts.sum()), int(made.runs[row].sum()))
                who = listed([str(holders[i]) for i in at])
                text = f"hung ({WORDS[name]}) in {share} of the runs: holder {who}."
                found.append(Finding("hung", str(policy), text))
    return found


def lost(results: Conversions) -> list[Finding]:
    """Sentences on content that went, and on memory that is there twice."""
    found = []
    cells = cube(results, "policy", "machine")
    gone, machines = cells.sum("pages_lost"), cells.axes[1].values
    extra = peaks(cube(results, "policy"))
    for row, policy in enumerate(cells.axes[0].values):
        if gone[row].any():
            on = listed([str(machines[i]) for i in np.flatnonzero(gone[row])])
            each = gone[row].sum() / cells.sum("splits")[row].sum()
            pages = f"{plural(int(gone[row].sum()), 'page')} beside those of a request"
            text = f"lost the content of {pages}, on {on}: {each:.3g} a split."
            found.append(Finding("violated", str(policy), text))
        if extra[row]:
            found.append(
                Finding("cost", str(policy), f"up to {size(int(extra[row]))} of memory beside the file's own.")
            )
    return found


def bills(results: Conversions) -> list[Finding]:
    """Sentences on policies with several orders: the order at which the guest pays least, and what it pays there and at
    the smallest."""
    found = []
    quiet = where(results, holder="none")
    cells = cube(quiet, "policy", "order")
    paid, orders = bill(cells).total, cells.axes[1].values
    for row, policy in enumerate(cells.axes[0].values):
        swept = np.flatnonzero(np.isfinite(paid[row]))
        if len(swept) > 1:
            best = int(swept[np.argmin(paid[row][swept])])
            text = (
                f"with no holder the guest pays least at order {orders[best]}, {paid[row][best]:.3g} µs a ms of guest "
                f"time for faults, TLB misses and requests; at order {orders[swept[0]]} {paid[row][swept[0]]:.3g} µs, "
                f"at order {orders[swept[-1]]} {paid[row][swept[-1]]:.3g} µs."
            )
            found.append(Finding("cost", str(policy), text))
    return found


def peaks(cells: Cube) -> Array:
    """The largest extra memory of a run in each cell of a cube, in bytes."""
    most = np.zeros(int(np.prod(cells.shape)), np.int64)
    np.maximum.at(most, cells.place, cells.results.column("extra_bytes"))
    return most.reshape(cells.shape)


class Kept(Conversions):
    """The rows of `results` with these values of axes, as Results; an axis that the plan lacks keeps all rows."""

    def __init__(self, results: Conversions, **values: Scalar) -> None:
        self.__dict__.update(results.__dict__, known={})
        kept = np.ones(len(results.good), bool)
        for name, value in values.items():
            axis = axis_of(results, name)
            if name in results.axes:
                kept &= axis.codes == (axis.values.index(value) if value in axis.values else -1)
        self._whole, self._inside = results, kept[results.good]
        self.good = results.good & kept

    def column(self, name: str) -> Array:
        values: Array = self._whole.column(name)[self._inside]
        return values

    def lists(self, name: str) -> Any:
        """As that of Results, of the rows that are kept."""
        return Results.lists(self, name)


def where(results: Conversions, **values: Scalar) -> Kept:
    """The rows with these values of axes."""
    return Kept(results, **values)


# --------------------------------------------------------------------------------------------------------- tables
def hang_words(counts: Sequence[int], runs: int) -> list[str]:
    """The classes of the runs that hung, with their shares."""
    named = zip(HANGS, counts, strict=True)
    return [f"{WORDS[name]} {Share(count, runs)}" for name, count in named if count]


def refusal_table(results: Conversions) -> Table:
    """What became of the requests, by policy, holder and patience."""
    cells = cube(results, "policy", "holder", "patience")
    made, medians = outcome(cells), cells.histogram("convert_hist")
    rows = []
    for i, policy in enumerate(cells.axes[0].values):
        for j, holder in enumerate(cells.axes[1].values):
            for k, patience in enumerate(cells.axes[2].values):
                runs = int(made.runs[i, j, k])
                if runs:
                    rows.append(
                        [
                            *(str(one) for one in (policy, holder, patience, runs)),
                            ", ".join(hang_words(made.hung[i, j, k].tolist(), runs)) or "none",
                            number(made.refused[i, j, k], ""),
                            number(100 * made.told[i, j, k], "%"),
                            *(time(quantile(medians[i, j, k], share)) for share in (0.5, 0.99)),
                        ]
                    )
    caption = (
        "Requests by who holds pages and what the VMM does about a refusal. A hang that is vmm-bound ends only by a "
        "step of the VMM, a permanent one by none. Times are those of converted requests, with their repeats."
    )
    columns = [
        "policy",
        "holder",
        "patience",
        "runs",
        "runs that hung",
        "refusals a request",
        "told no",
        "median",
        "99 %",
    ]
    return Table("refusal-table", caption, columns, rows, heads=3)


def micro(value: float) -> str:
    """Returns microseconds a millisecond, with three digits."""
    return number(value, "")


def machine_table(results: Conversions) -> Table:
    """What a policy costs on each machine, with no holder."""
    quiet = where(results, holder="none")
    cells = cube(quiet, "policy", "machine", "order")
    paid, medians, extra = bill(cells), cells.histogram("convert_hist"), peaks(cells)
    sums = {name: cells.sum(name) for name in ("machine_ns", "requests", "pages_lost", "splits", "merges")}
    rows = []
    for place in np.argwhere(cells.runs() > 0).tolist():
        i, j, k = place
        at = (i, j, k)
        each = ratio(sums["machine_ns"], sums["requests"])[at]
        rows.append([str(cells.axes[0].values[i]), str(cells.axes[1].values[j]), str(cells.axes[2].values[k]),
                     time(quantile(medians[at], 0.5)), micro(paid.faults[at]), micro(paid.walks[at]),
                     micro(paid.requests[at]), time(each), f"{sums['splits'][at]:,} / {sums['merges'][at]:,}",
                     f"{sums['pages_lost'][at]:,}", size(int(extra[at])) if extra[at] else "–"])  # fmt: skip
    caption = (
        "With no holder: the guest's bill by machine and order. The machine's time is that of its calls (assumed)."
    )
    columns = ["policy", "machine", "order", "median to convert", "faults, µs a ms", "TLB misses, µs a ms",
               "requests, µs a ms", "machine a request", "splits / merges", "pages lost", "extra memory"]  # fmt: skip
    return Table("machine-table", caption, columns, rows, heads=3)


def drain_table(results: Conversions) -> Table:
    """Faults that a conversion made wait, and how many of them behind a drain."""
    cells = cube(results, "policy", "holder")
    names = ("faults", "lock_waits", "lock_wait_ns", "drain_waits", "drain_wait_ns", "drains_all")
    sums = {name: cells.sum(name) for name in names}
    rows = []
    for i, j in np.argwhere((cells.runs() > 0) & (sums["lock_waits"] > 0)).tolist():
        one = {name: int(values[i, j]) for name, values in sums.items()}
        rows.append([str(cells.axes[0].values[i]), str(cells.axes[1].values[j]), f"{one['faults']:,}",
                     f"{one['lock_waits']:,}", time(one["lock_wait_ns"] / one["lock_waits"]), f"{one['drains_all']:,}",
                     f"{one['drain_waits']:,}",
                     time(one["drain_wait_ns"] / one["drain_waits"]) if one["drain_waits"] else "–"])  # fmt: skip
    caption = "Faults that waited for the invalidate lock of a conversion; the last two columns: those behind a drain."
    columns = ["policy", "holder", "faults", "waited", "mean", "drains of all CPUs", "behind a drain", "mean"]
    return Table("drain-table", caption, columns, rows, heads=2)


def property_table(results: Conversions) -> Table:
    """Runs that broke a property, by policy."""
    codes, rows = results.policy.codes[results.good], []
    broken = np.zeros((int(results.good.sum()), len(GUEST_MEMFD.properties) - 1), np.int64)
    for part, lengths, flat in results.lists("broken"):
        broken[part] = flat.reshape(len(lengths), -1)
    for number_, text in enumerate(GUEST_MEMFD.properties[1:]):
        counts = np.bincount(codes, weights=broken[:, number_] > 0, minlength=len(results.policy.values))
        rows.append([str(GUEST_MEMFD.first + number_ + 1), text, *(f"{int(n):,}" for n in counts)])
    return Table("property-table", "Runs in which a property of the model was broken.",
                 ["no.", "property", *map(str, results.policy.values)], rows, heads=2)  # fmt: skip


def words_tables(results: Conversions) -> Sequence[Table]:
    """The axes, workloads, policies and prices in words."""
    axes = [[name, str(len(axis.values)), MEMFD_AXIS_MEANING.get(name, "an axis of the plan's own")]
            for name, axis in results.axes.items()]  # fmt: skip
    loads = [[str(value), field, str(given), MEMFD_AXIS_MEANING[field]]
             for value in known(results, "workload").values
             for field, given in results.workload(str(value)).items() if field in WORKLOAD]  # fmt: skip
    policies = [[str(value), PRESETS[str(value)][0] if value in PRESETS else "the plan's own"]
                for value in results.policy.values]  # fmt: skip
    prices = [[name, f"{ns:,} ns", text] for name, (ns, text) in MEMFD.items()]
    heads = ["workload", "field", "value", "meaning"]
    said = "What steps cost beside those of every design, with the source."
    made = [
        Table("axis-words", "The axes.", ["axis", "values", "meaning"], axes, numeric=False),
        Table("workload-words", "The workloads: what they set.", heads, loads, numeric=False),
        Table("policy-words", "The policies.", ["policy", "from"], policies, numeric=False),
        Table("cost-words", said, ["cost", "default", "source"], prices, numeric=False),
    ]
    return [table for table in made if table.rows]


def records(results: Conversions) -> list[dict[str, Any]]:
    """The aggregated table: a record for every point of the plan's axes but the seed, in the plan's order."""
    names = [name for name in results.axes if name != "seed"] or ["policy"]
    cells = cube(results, *names)
    made, extra = outcome(cells), peaks(cells).ravel()
    sums = {name: cells.sum(name).ravel() for name in MEASURES}
    rows = []
    for flat in np.flatnonzero(made.runs.ravel()).tolist():
        at = np.unravel_index(flat, cells.shape)
        row: dict[str, Any] = {axis.name: axis.values[int(i)] for axis, i in zip(cells.axes, at, strict=True)}
        row["runs"] = int(made.runs.ravel()[flat])
        row |= {f"hung_{name}": int(made.hung[at][number_]) for number_, name in enumerate(HANGS)}
        row |= {name: int(values[flat]) for name, values in sums.items()} | {"extra_bytes": int(extra[flat])}
        rows.append(row)
    return rows


def opened(folder: Path) -> Results:
    """The store in a folder, of whichever design. Raises InputError as Results."""
    return Conversions(folder) if is_of(manifest(folder)) else Results(folder)
