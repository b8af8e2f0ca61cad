"""The answer in sentences, made from the data: the policies that hung, where and how; those that did not; the costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ultrafolio.model.layout import PAGE_SIZE
from ultrafolio.model.properties import PROPERTIES
from ultrafolio.nouns import plural

from .aggregate import CLASSES, axis_of, wilson, worst_class
from .costs import Cost, break_even, costs
from .share import Share, percent
from .store import MIX, Array, Results, Scalar, remembered
from .style import duration, size

ADVERB = {"fatal": "fatally", "permanent": "permanently", "livelock": "in a livelock"}

LIVELOCK = (
    "One state of a run cannot tell that class. The checker has shown it for that policy and kind of workload, an "
    "import of a dirty folio that no import writes back, under background writeback "
    "(scenarios/17-iomap-endless-writeback.toml); the sweep says livelock of such a wait, and of no other."
)
"""The scenario that proves a run's livelock: shown_livelock in sim/measures.py."""


@dataclass(frozen=True)
class Finding:
    """A sentence about `subject` (policies, or "")."""

    kind: Literal["hung", "violated", "held", "cost", "note"]
    subject: str
    text: str


@dataclass(frozen=True)
class Answer:
    """The headline, its basis, and the best policies by name ("" if no cell ran)."""

    headline: str
    findings: list[Finding]
    best: str = ""


@remembered
def answer(results: Results) -> Answer:
    """The answer of a sweep."""
    runs = int(results.good.sum())
    if runs == 0:
        cells = plural(len(results.good), "cell")
        text = (
            f"None of {cells} ran to its end, so nothing can be said."
            if len(results.good)
            else "The sweep has no cells."
        )
        return Answer(text, notes(results))
    worst, broken = worst_class(results), violations(results)
    codes = results.policy.codes[results.good]
    found: list[Finding] = []
    clean = []
    for number, (policy, cost) in enumerate(zip(results.policy.values, costs(results), strict=True)):
        mine = codes == number
        if not mine.any():
            continue
        bad = hung(results, str(policy), mine, worst) + violated(
            str(policy), int(mine.sum()), broken.events[number], broken.runs[number]
        )
        found += bad
        if not bad:
            clean.append((str(policy), int(mine.sum()), cost))
    found += held(clean)
    policies = len(np.unique(codes))
    bad_ones = len({finding.subject for finding in found if finding.kind == "hung"})
    rest = (
        f"{len(clean)} never hung and violated no property of the model"
        if clean
        else "every policy hung or violated a property of the model"
    )
    hangs = f"{bad_ones} of {plural(policies, 'policy', 'policies')} hung"
    headline = f"{hangs} in at least one of {plural(runs, 'run')}; {rest}."
    return Answer(headline, [*found, *verdict_on_splitting(results), *notes(results)], best(results, clean, worst))


def best(results: Results, clean: Sequence[tuple[str, int, Cost]], worst: Array) -> str:
    """The best policies by name: those without hang or violation, the fastest first; else those that hung least."""
    if clean:
        ranked = sorted(clean, key=lambda one: (-np.nan_to_num(one[2].throughput.value), one[0]))
        groups: dict[str, list[str]] = {}
        for policy, runs, cost in ranked:
            speed = "" if math.isnan(cost.throughput.value) else f", throughput {cost.throughput} of the best"
            text = f"(0 of {plural(runs, 'run')} hung, at 95 % under {percent(wilson(0, runs)[1])} %{speed})"
            groups.setdefault(text, []).append(policy)
        return f"Best: {'; '.join(f'{listed(names)} {text}' for text, names in groups.items())}."
    codes = results.policy.codes[results.good]
    ran = np.bincount(codes, minlength=len(results.policy.values))
    hung = np.bincount(codes, weights=worst < len(CLASSES), minlength=len(results.policy.values))
    share = np.where(ran > 0, hung / np.maximum(ran, 1), np.inf)
    parts = []
    for number in np.flatnonzero(share == share.min()).tolist():
        parts.append(f"{results.policy.values[number]} {Share(int(hung[number]), int(ran[number]))}")
    return f"No policy is without a hang or a violation; the fewest runs hung under {listed(parts)}."


def hung(results: Results, policy: str, mine: Array, worst: Array) -> list[Finding]:
    """One finding for each class of hang that a policy had."""
    found = []
    first = results.column("first_hang_ns")
    for index, name in enumerate(CLASSES):
        rows = mine & (worst == index)
        if rows.any():
            of = plural(int(mine.sum()), "run")
            text = f"hung {ADVERB[name]} in {rows.sum()} of {of}: {where(results, mine, rows)}"
            found.append(Finding("hung", policy, f"{text}; the first after {duration(first[rows].min())}."))
    return found


def where(results: Results, mine: Array, rows: Array) -> str:
    """On which values of the axes `rows` lie, out of those on which `mine` lie."""
    orders = results.order.codes[results.good]
    parts = [order_span([results.order.values[code] for code in np.unique(orders[rows])])]
    for name in ("workload", "placement"):
        if name in results.axes:
            axis = axis_of(results, name)
            codes = axis.codes[results.good]
            hit, swept = np.unique(codes[rows]), np.unique(codes[mine])
            if len(swept) > 1 and len(hit) == len(swept):
                parts.append(f"under every {name}")
            else:
                named = [str(axis.values[code]) for code in hit]
                parts.append(f"{name}{'s' * (len(named) > 1)} {listed(named)}")
    return ", ".join(parts)


def order_span(orders: Sequence[Scalar]) -> str:
    """Folio orders in words, neighbours as a range: "folio orders 1 to 9 (8 KiB to 2 MiB)"."""
    numbers = [order for order in orders if isinstance(order, int)]
    parts: list[str] = []
    if numbers and numbers == list(range(numbers[0], numbers[-1] + 1)) and len(numbers) > 1:
        last = numbers[-1]
        parts.append(
            f"folio orders {numbers[0]} to {last} ({size(PAGE_SIZE << numbers[0])} to {size(PAGE_SIZE << last)})"
        )
    elif len(numbers) == 1:
        parts.append(f"folio order {numbers[0]} ({size(PAGE_SIZE << numbers[0])})")
    elif numbers:
        parts.append(f"folio orders {listed([str(number) for number in numbers])}")
    if MIX in orders:
        parts.append("the recorded folio sizes")
    return " and ".join(parts)


@dataclass(frozen=True)
class Violations:
    """Violations by policy, then by property from 1 on: events, and runs that had one."""

    events: Array
    runs: Array


@remembered
def violations(results: Results) -> Violations:
    """The violations of all good rows; absent lists count as none."""
    codes = results.policy.codes[results.good]
    shape = len(results.policy.values), len(PROPERTIES) - 1
    found = Violations(np.zeros(shape, np.int64), np.zeros(shape, np.int64))
    for rows, lengths, flat in results.lists("broken"):
        policy = np.repeat(codes[rows], lengths)
        column = np.arange(len(flat)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        kept = (column < shape[1]) & (flat > 0)
        np.add.at(found.events, (policy[kept], column[kept]), flat[kept])
        np.add.at(found.runs, (policy[kept], column[kept]), 1)
    return found


def violated(policy: str, ran: int, events: Array, runs: Array) -> list[Finding]:
    """One finding for each property that a policy violated, of its `ran` runs."""
    return [
        Finding(
            "violated",
            policy,
            f"violated property {number} ({PROPERTIES[number]}) in {runs[number - 1]} of {plural(ran, 'run')}.",
        )
        for number in range(1, len(PROPERTIES))
        if events[number - 1]
    ]


def held(clean: Sequence[tuple[str, int, Cost]]) -> list[Finding]:
    """Findings on policies without hang or violation, with numbers of runs; then their costs, equal ones together."""
    if not clean:
        return []
    runs = sorted({n for _, n, _ in clean})
    each = plural(runs[0], "run") if len(runs) == 1 else f"{runs[0]} to {runs[-1]} runs"
    bound = f"{percent(wilson(0, runs[0])[1])} %"
    text = f"never hung and violated nothing in {each} each; at 95 %, they hang in less than {bound} of such runs."
    bills: dict[str, list[str]] = {}
    for policy, _, cost in clean:
        bills.setdefault(bill(cost), []).append(policy)
    found = [Finding("held", listed([policy for policy, _, _ in clean]), text)]
    return found + [Finding("cost", listed(names), text) for text, names in bills.items() if text]


def bill(cost: Cost) -> str:
    """What a policy costs, relative to the best."""
    if math.isnan(cost.throughput.value):
        return ""
    worst = ""
    if cost.worst.value < cost.throughput.value - 0.5:
        worst = f", at {order_span([cost.worst_order])} {cost.worst}"
    parts = [f"throughput {cost.throughput} of the best policy's{worst}"]
    if not math.isnan(cost.uv_ratio):
        times = f"{cost.uv_ratio:.2g} times the" if cost.uv_ratio >= 1.05 else "the"
        parts.append(f"{times} least ultravisor time")
    if not math.isnan(cost.stall):
        parts.append(f"{duration(cost.stall)} of stall a touch")
    return f"{', '.join(parts)}."


def verdict_on_splitting(results: Results) -> list[Finding]:
    """Whether, and from which folio size on, splitting is cheaper than waiting."""
    table = break_even(results)
    keeping = [row for row in table if not row.splits and np.isfinite(row.stall[-1:]).any()]
    if len(keeping) == len(table) or not keeping or all(not row.splits for row in table):
        return []
    clauses = []
    for order in dict.fromkeys(row.against for row in keeping if row.against is not None):
        names = listed([str(row.policy) for row in keeping if row.against == order])
        span = order_span([order])
        clauses.append(f"from {span} on, the cheapest splitting policy costs less per touch than {names}")
    never = [str(row.policy) for row in keeping if row.against is None]
    if never and clauses:
        clauses.append(f"at the largest folios it does not cost less than {listed(never)}")
    text = "; ".join(clauses) or "no crossing in this sweep, splitting does not pay at the largest folios"
    return [Finding("note", "", f"Break-even: {text}.")]


def notes(results: Results) -> list[Finding]:
    """The limits of the findings."""
    found = []
    expected = int((results.column("hang_expected") > 0).sum())
    if expected:
        text = f"In {plural(expected, 'run')} an unshare waited for a device that pins its page for its lifetime: the "
        found.append(Finding("note", "", f"{text}purpose of pinning, the same under every policy, held against none."))
    livelocks = int((results.column("hang_livelock") > 0).sum())
    if livelocks:
        found.append(Finding("note", "", f"In {plural(livelocks, 'run')} a wait counts as a livelock. {LIVELOCK}"))
    failed = int((~results.good).sum())
    if failed:
        text = f"{failed} of {plural(len(results.good), 'cell')} failed; what failed takes no part in any number."
        found.append(Finding("note", "", text))
    check = results.axes.get("check")
    if check is not None:
        off = int((np.array([value is False for value in check.values], bool)[check.codes] & results.good).sum())
        if off:
            text = f"In {plural(off, 'run')} the properties were not checked (check = false)."
            found.append(Finding("note", "", text))
    return found


def listed(words: Sequence[str]) -> str:
    """Words as in a sentence: "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else list(words))
