"""The costs of each policy, and the folio size from which splitting is cheaper than waiting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ultrafolio.errors import InputError
from ultrafolio.model import policies as model

from .aggregate import Cube, cube, overhead, quantile, rates, ratio
from .share import Mean, mean_of_best
from .store import MIX, Array, Results, Scalar, remembered


@dataclass(frozen=True)
class Cost:
    """A policy's costs over all its runs. Times are ns; NaN without a measured operation.

    throughput  touches per time in % of the best policy at the same order, averaged over the orders
    worst       the same at the order at which it is lowest, `worst_order`
    uv, stall   ultravisor time, and stall time (open stalls included), per touch
    uv_ratio    `uv` as a multiple of the least of all policies
    io          mean, median and 99th percentile of direct I/O latency
    collateral  collateral exports per ms of guest time
    """

    policy: Scalar
    throughput: Mean
    worst: Mean
    worst_order: Scalar
    uv: float
    uv_ratio: float
    stall: float
    io: tuple[float, float, float]
    collateral: float


@remembered
def costs(results: Results) -> list[Cost]:
    """The costs of every policy, in the order of the axis."""
    means = relative_means(cube(results, "policy", "order"))
    whole = cube(results, "policy")
    touches = whole.sum("touches")
    uv, stall = ratio(whole.sum("uv_ns"), touches), overhead(whole).stall
    least = min((value for value in uv.tolist() if value > 0), default=math.nan)
    io = ratio(whole.sum("io_ns"), whole.sum("io_done"))
    histograms = whole.histogram("latency_hist")
    collateral = ratio(whole.sum("exports_collateral") * 1_000_000, whole.sum("sim_ns"))
    made = []
    for n, policy in enumerate(results.policy.values):
        mean, each = means[n]
        worst = min(range(len(each)), key=lambda at: np.nan_to_num(each[at].value, nan=np.inf), default=0)
        made.append(
            Cost(
                policy,
                mean,
                each[worst] if each else mean,
                results.order.values[worst] if results.order.values else 0,
                float(uv[n]),
                float(uv[n]) / least,
                float(stall[n]),
                (float(io[n]), quantile(histograms[n], 0.5), quantile(histograms[n], 0.99)),
                float(collateral[n]),
            )
        )
    return made


def relative_means(cells: Cube) -> list[tuple[Mean, list[Mean]]]:
    """For each policy of a cube over policies and orders its throughput relative to the best: over all orders, and at
    each of them."""
    relative, runs = relative_throughput(cells), cells.runs()
    total, squares = rates(cells)
    best = np.max(np.nan_to_num(ratio(cells.sum("touches"), cells.sum("sim_ns"))), axis=0)
    made = []
    for n in range(len(relative)):
        whole, *each = (
            mean_of_best(relative[n, at], runs[n, at], total[n, at], squares[n, at], best[at])
            for at in (slice(None), *(slice(at, at + 1) for at in range(len(best))))
        )
        made.append((whole, each))
    return made


def relative_throughput(cells: Cube) -> Array:
    """Touches per simulated time of a cube over policies and orders, in percent of the best policy at each order."""
    rate = ratio(cells.sum("touches"), cells.sum("sim_ns"))
    best = np.max(np.nan_to_num(rate), axis=0, keepdims=True)
    return 100 * ratio(rate, np.broadcast_to(best, rate.shape))


def splits(results: Results) -> list[bool]:
    """For each policy whether it splits large folios: by its choices, or, if these are unknown, by its runs."""
    tried = cube(results, "policy").sum("splits_tried")
    tables = results.document.get("policy", {})
    answer = []
    for policy, count in zip(results.policy.values, tried.tolist(), strict=True):
        try:
            answer.append(model.find(str(policy), tables).large == "split")
        except InputError:
            answer.append(count > 0)
    return answer


@dataclass(frozen=True)
class BreakEven:
    """One policy's split and import time and its stall time, per touch and by order, with the crossings.

    own      the orders from which the larger of the two changes
    against  the order from which the cheapest splitting policy costs less in sum, up to the last order; None: none
    """

    policy: Scalar
    splits: bool
    work: Array
    stall: Array
    own: list[Scalar]
    against: Scalar | None


def break_even(results: Results) -> list[BreakEven]:
    """The break-even of every policy, in the order of the axis; order MIX is left out."""
    cost = overhead(cube(results, "policy", "order"))
    orders = [order for order in results.order.values if order != MIX]
    split = splits(results)
    total = (cost.work + cost.stall)[:, : len(orders)]
    splitting = total[np.array(split, bool)]
    cheapest = np.where(np.isfinite(splitting), splitting, np.inf).min(axis=0, initial=np.inf)
    made = []
    for n, policy in enumerate(results.policy.values):
        own = [orders[at] for at in crossings(cost.work[n, : len(orders)], cost.stall[n, : len(orders)])]
        against = None if split[n] else tipping(total[n], cheapest, orders)
        made.append(BreakEven(policy, split[n], cost.work[n], cost.stall[n], own, against))
    return made


def crossings(left: Array, right: Array) -> list[int]:
    """The positions at which the larger of two series changes; equal values and NaN do not count."""
    found, last = [], 0.0
    for position, difference in enumerate(np.asarray(left) - np.asarray(right)):
        sign = 0.0 if math.isnan(difference) else float(np.sign(difference))
        if sign and last and sign != last:
            found.append(position)
        last = sign or last
    return found


def tipping(keeping: Array, splitting: Array, orders: Sequence[Scalar]) -> Scalar | None:
    """The first order from which `splitting` is cheaper up to the last order; None if it is not cheaper there."""
    found = None
    for order, mine, other in zip(reversed(orders), keeping[::-1].tolist(), splitting[::-1].tolist(), strict=True):
        if not (math.isnan(mine) or mine > other):
            break
        if mine > other:
            found = order
    return found
