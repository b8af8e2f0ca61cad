"""What a policy costs, in a few numbers, and from which folio size on splitting is cheaper than waiting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ultrafolio.errors import InputError
from ultrafolio.model import policies as model

from .aggregate import Cube, cube, overhead, quantile, ratio
from .store import MIX, Array, Results, Scalar


@dataclass(frozen=True)
class Cost:
    """A policy's costs over all its runs. Times are ns; NaN where nothing was done that could be measured.

    throughput  touches per time in % of the best policy at the same order, averaged over the orders
    worst       the lowest of those, and `worst_order` where it is
    uv, stall   ultravisor time, and stall time (open stalls included), per touch
    uv_ratio    `uv` as a multiple of the least of all policies
    io          mean, median and 99th percentile of direct I/O latency
    collateral  collateral exports per ms of guest time
    """

    policy: Scalar
    throughput: float
    worst: float
    worst_order: Scalar
    uv: float
    uv_ratio: float
    stall: float
    io: tuple[float, float, float]
    collateral: float


def costs(results: Results) -> list[Cost]:
    """The costs of every policy, in the order of the axis."""
    table = relative_throughput(cube(results, "policy", "order"))
    whole = cube(results, "policy")
    touches = whole.sum("touches")
    uv, stall = ratio(whole.sum("uv_ns"), touches), overhead(whole).stall
    least = min((value for value in uv.tolist() if value > 0), default=math.nan)
    io = ratio(whole.sum("io_ns"), whole.sum("io_done"))
    histograms = whole.histogram("latency_hist")
    collateral = ratio(whole.sum("exports_collateral") * 1_000_000, whole.sum("sim_ns"))
    made = []
    for n, policy in enumerate(results.policy.values):
        known = np.flatnonzero(np.isfinite(table[n]))
        worst = int(known[table[n][known].argmin()]) if len(known) else 0
        made.append(
            Cost(
                policy,
                float(table[n][known].mean()) if len(known) else math.nan,
                float(table[n][worst]),
                results.order.values[worst] if results.order.values else 0,
                float(uv[n]),
                float(uv[n]) / least,
                float(stall[n]),
                (float(io[n]), quantile(histograms[n], 0.5), quantile(histograms[n], 0.99)),
                float(collateral[n]),
            )
        )
    return made


def relative_throughput(cells: Cube) -> Array:
    """Touches per simulated time of a cube over policies and orders, in percent of the best policy at each order."""
    rate = ratio(cells.sum("touches"), cells.sum("sim_ns"))
    best = np.max(np.nan_to_num(rate), axis=0, keepdims=True)
    return 100 * ratio(rate, np.broadcast_to(best, rate.shape))


def splits(results: Results) -> list[bool]:
    """For every policy whether it splits large folios; by what it is, or where that is not known, by what it did."""
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
    """One policy's split and import time against stall time, per touch and by order, and where the balance tips.

    own      the orders from which on the larger of the two has changed
    against  the order from which on the cheapest splitting policy costs less in sum; None: at no order to the end
    """

    policy: Scalar
    splits: bool
    work: Array
    stall: Array
    own: list[Scalar]
    against: Scalar | None


def break_even(results: Results) -> list[BreakEven]:
    """The break-even of every policy, in the order of the axis; folio sizes from a recording take no part in it."""
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
    """The positions from which on the larger of two series has changed; equal values and NaN do not count."""
    found, last = [], 0.0
    for position, difference in enumerate(np.asarray(left) - np.asarray(right)):
        sign = 0.0 if math.isnan(difference) else float(np.sign(difference))
        if sign and last and sign != last:
            found.append(position)
        last = sign or last
    return found


def tipping(keeping: Array, splitting: Array, orders: Sequence[Scalar]) -> Scalar | None:
    """The first order from which on `splitting` is the cheaper one to the end; None if it is not cheaper there."""
    found = None
    for order, mine, other in zip(reversed(orders), keeping[::-1].tolist(), splitting[::-1].tolist(), strict=True):
        if not (math.isnan(mine) or mine > other):
            break
        if mine > other:
            found = order
    return found
