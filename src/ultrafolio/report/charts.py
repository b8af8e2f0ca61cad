"""The figures with lines and bars: time to the first hang, stalls of guests, and costs of policies."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from .aggregate import Cube, cube, first_hangs, overhead, ratio, survival
from .costs import crossings, relative_means
from .draw import Panel, Plot, drawing, logarithmic, panels, pictures
from .note import plot_note
from .reproduce import pick
from .store import MIX, Array, Results
from .style import label, order_label

FACETS = 4
"""More workloads than this are pooled."""
CAUSES = (
    ("stall_lock", "folio locked", ""), ("stall_refs", "extra references", "///"),
    ("stall_writeback", "writeback", ".."), ("stall_dirty", "dirty, not splittable", "xxx"),
    ("stall_mutex", "import mutex", "---"), ("stall_busy", "ultravisor busy", "\\\\\\"),
)  # fmt: skip
WORK = {"color": "#0072B2", "marker": "s", "markersize": 4, "label": "split + import"}
STALL = {"color": "#D55E00", "marker": "o", "markersize": 4, "label": "stall", "linestyle": (0, (5, 2))}
CAUSE_FILL = ("#444444", "#D55E00", "#f0e6b0", "#0072B2", "#bfe3d6", "#ffffff")


def charts(results: Results) -> Iterator[Plot]:
    """All figures except the matrix, in the report's order; empty ones are left out."""
    for draw in (
        first_hang,
        stall_survival,
        stall_causes,
        collateral,
        throughput,
        ultravisor,
        latency,
        split_or_stall,
        tracking,
    ):
        plot = draw(results)
        if plot is not None:
            yield plot


def by_workload(results: Results) -> list[tuple[str, Cube]]:
    """A cube over policies and orders for every workload; one cube for all if there are none or more than FACETS."""
    axis = results.axes.get("workload")
    if axis is None or not 1 < len(axis.values) <= FACETS:
        return [("all runs", cube(results, "policy", "order"))]
    return [
        (f"workload {label(value)}", cube(results, "policy", "order", where=("workload", value)))
        for value in axis.values
    ]


def lines(cells: Cube, table: Array) -> dict[str, Array]:
    """The rows of an array over policies and orders, by policy."""
    return {str(policy): table[number] for number, policy in enumerate(cells.axes[0].values)}


def by_order(
    results: Results, unit: str, scale: str, measure: Callable[[Cube], Array], where: list[tuple[str, Cube]]
) -> tuple[str, bytes] | None:
    """The pictures of one measure over the orders, a panel for each cube; None when it is nowhere above zero."""
    drawn = [Panel(title, unit, lines(cells, measure(cells)), scale) for title, cells in where]
    drawn = [panel for panel in drawn if any(np.nansum(np.abs(values)) > 0 for values in panel.lines.values())]
    return paint(results, drawn) if drawn else None


def paint(results: Results, drawn: list[Panel]) -> tuple[str, bytes]:
    """Panels over the sweep's orders, under the plan's title; order MIX is separate."""
    orders = results.order.values
    whole = len(orders) - (orders[-1:] == (MIX,))
    return panels(
        drawn,
        [order_label(order) for order in orders],
        results.policy.values,
        whole,
        plot_note(results, "policy", "order", *(["workload"] if "workload" in drawn[0].title else [])),
    )


def first_hang(results: Results) -> Plot | None:
    """Time to the first hang by order."""
    drawn = []
    for title, cells in by_workload(results):
        times = first_hangs(cells)
        shape = cells.shape
        middle, low, high = (
            np.array([pick_(found) / 1e3 if len(found) else np.nan for found in times]).reshape(shape)
            for pick_ in (np.median, np.min, np.max)
        )
        spread = {str(p): (low[i], high[i]) for i, p in enumerate(cells.axes[0].values)}
        if np.isfinite(middle).any():
            drawn.append(Panel(title, "µs of guest time", lines(cells, middle), "log", spread))
    if not drawn:
        return None
    first = results.column("first_hang_ns")
    return Plot(
        "first-hang",
        "Time to the first hang",
        "Median over the runs that hung; bars from the fastest to the slowest of them. Runs that did not hang within "
        "the simulated time do not enter here: read it with the matrix, which says how many those are.",
        "Lines of the median time to the first hang against folio order, one per policy that hung.",
        *paint(results, drawn),
        pick(results, np.where(first >= 0, -first, first.min() - first.max() - 1)),
    )


def stall_survival(results: Results) -> Plot | None:
    """How long finished stalls lasted: complementary distribution at chosen orders."""
    cells = cube(results, "policy", "order")
    merged = cells.histogram("stall_hist")
    drawn = []
    for column in chosen_orders(results, merged.sum(axis=(0, 2))):
        edges, shares = {}, {}
        for number, policy in enumerate(cells.axes[0].values):
            edges[str(policy)], shares[str(policy)] = survival(merged[number, column])
        order = order_label(cells.axes[1].values[column]).replace("\n", ", ")
        drawn.append(Panel(f"order {order}", "share of stalls ≥ t", shares, "log", None, edges, "stall time t"))
    if not drawn:
        return None
    return Plot(
        "stall-times",
        "How long a stall lasts",
        "Complementary distribution of the finished stalls, from merged histograms (exact at the steps, buckets of "
        "1/32 octave). Stalls still open at the end are not in it; the table counts them with their time.",
        "Step lines, one per policy: the share of stalls that last at least t, against t.",
        *paint(results, drawn),
        pick(results, results.column("stall_ns")),
    )


def chosen_orders(results: Results, stalls: Array) -> list[int]:
    """Up to three orders with stalls: the smallest large folio, one in the middle, the largest."""
    filled = [column for column in np.flatnonzero(stalls).tolist() if results.order.values[column] != 0]
    filled = filled or np.flatnonzero(stalls).tolist()
    return sorted({filled[0], filled[len(filled) // 2], filled[-1]}) if filled else []


def stall_causes(results: Results) -> Plot | None:
    """The first obstacle of every stall, per policy, as stacked bars."""
    cells = cube(results, "policy")
    counts = np.stack([cells.sum(name) for name, _, _ in CAUSES])
    total = counts.sum(axis=0)
    if not total.any():
        return None
    shares, rates = 100 * counts / np.maximum(total, 1), ratio(total * 1_000_000, cells.sum("sim_ns"))
    policies = cells.axes[0].values
    height = 1.35 + 0.27 * len(policies)
    with drawing(10.4, height) as figure:
        axes = figure.add_axes((0.19, 1.0 / height, 0.7, (height - 1.15) / height))
        left = np.zeros(len(policies))
        for (_, name, hatch), fill, row in zip(CAUSES, CAUSE_FILL, shares, strict=True):
            if row.any():
                axes.barh(
                    np.arange(len(policies)),
                    row,
                    0.68,
                    left=left,
                    label=name,
                    color=fill,
                    hatch=hatch,
                    edgecolor="#333333",
                    linewidth=0.6,
                )
                left += row
        axes.set_yticks(np.arange(len(policies)), [label(policy, 24) for policy in policies])
        axes.set_ylim(len(policies) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        for number, rate in enumerate(np.nan_to_num(rates).tolist()):
            axes.text(101, number, f"{rate:.3g} per ms", va="center", fontsize=8)
        axes.set_xlim(0, 100)
        axes.set_xlabel("% of the policy's stalls, by the first obstacle met; right: stalls per ms of guest time")
        figure.legend(loc="lower left", bbox_to_anchor=(0.18, 0.0), ncols=6, frameon=False, fontsize=8)
        svg, png = pictures(figure, plot_note(results, "policy"))
    return Plot(
        "stall-causes",
        "What a stall waits for",
        "Stalls of all orders, workloads and placements, by the obstacle that the import met first. A policy that "
        "hangs early touches less and so stalls less: read it with throughput.",
        "Stacked bars, one per policy: the share of its stalls by cause, and the stalls per millisecond.",
        svg,
        png,
        pick(results, results.column("stalls")),
    )


def collateral(results: Results) -> Plot | None:
    """Collateral exports and imports: of pages that were not requested."""
    cells = cube(results, "policy", "order")
    simulated = cells.sum("sim_ns")
    drawn = [
        Panel(title, "per ms of guest time", lines(cells, ratio(cells.sum(measure) * 1_000_000, simulated)), "symlog")
        for title, measure in (("exports", "exports_collateral"), ("imports that undo them", "imports_collateral"))
    ]
    if not cells.sum("exports_collateral").any():
        return None
    return Plot(
        "collateral",
        "Collateral exports and imports",
        "A page is exported as collateral when a pin of another page of its folio exported it; its import, when "
        "the guest touches it again, is the second half of the bill. The axis is logarithmic above its first decade.",
        "Two panels of lines against folio order: collateral exports and imports per millisecond, one line per policy.",
        *paint(results, drawn),
        pick(results, results.column("exports_collateral")),
    )


def throughput(results: Results) -> Plot | None:
    """Guest throughput relative to the best policy."""
    drawn = []
    for title, cells in by_workload(results):
        means = relative_means(cells)
        value, half = (
            np.array([[getattr(mean, part) for mean in each] for _, each in means]) for part in ("value", "half")
        )
        half = np.nan_to_num(half)
        low, high = lines(cells, value - half), lines(cells, value + half)
        spread = {policy: (low[policy], high[policy]) for policy in low}
        if np.nansum(value) > 0:
            drawn.append(Panel(title, "% of the best policy", lines(cells, value), "linear", spread))
    if not drawn:
        return None
    return Plot(
        "throughput",
        "Guest throughput",
        "Touches per second of guest time, in percent of the best policy at the same folio order. Hung vCPUs touch "
        "nothing any more, so a hang shows here, too. Bars: the 95 % interval of each order's runs.",
        "Lines against folio order: guest throughput in percent of the best policy, one line per policy.",
        *paint(results, drawn),
        pick(results, -results.column("throughput")),
    )


def ultravisor(results: Results) -> Plot | None:
    """Ultravisor time per touch."""
    drawn = by_order(
        results,
        "ns per touch",
        "symlog",
        lambda cells: ratio(cells.sum("uv_ns"), cells.sum("touches")),
        by_workload(results),
    )
    if drawn is None:
        return None
    return Plot(
        "ultravisor",
        "Time in the ultravisor",
        "Time of all ultravisor calls per guest touch. A policy under which no touch was ever finished has no point.",
        "Lines against folio order: ultravisor time per touch, one line per policy.",
        *drawn,
        pick(results, results.column("uv_ns")),
    )


def latency(results: Results) -> Plot | None:
    """Direct I/O latency."""
    drawn = by_order(
        results,
        "µs, mean",
        "linear",
        lambda cells: ratio(cells.sum("io_ns"), cells.sum("io_done")) / 1e3,
        by_workload(results),
    )
    if drawn is None:
        return None
    return Plot(
        "latency",
        "Latency of direct I/O",
        "Mean time from the request to the last unpin, of the requests that completed: what making pages accessible "
        "adds to the disk's own time.",
        "Lines against folio order: mean direct I/O latency in microseconds, one line per policy.",
        *drawn,
        pick(results, results.column("io_ns")),
    )


def split_or_stall(results: Results) -> Plot | None:
    """Per policy: split and import time against stall time, by order, with the crossings."""
    cells = cube(results, "policy", "order")
    cost = overhead(cells)
    shown = [n for n in range(cells.shape[0]) if np.nansum(cost.work[n]) + np.nansum(cost.stall[n]) > 0]
    if not shown:
        return None
    policies, orders = cells.axes[0].values, results.order.values
    down = -(-len(shown) // 2)
    height = 1.85 * down + 0.55
    whole = len(orders) - (orders[-1:] == (MIX,))
    positive = np.concatenate([cost.work.ravel(), cost.stall.ravel()])
    positive = positive[positive > 0]
    with drawing(10.4, height) as figure:
        for place, number in enumerate(shown):
            bottom = (height - 1.85 * (place // 2 + 1) + 0.3) / height
            axes = figure.add_axes((0.075 + 0.49 * (place % 2), bottom, 0.42, 1.2 / height))
            axes.set_title(label(policies[number]))
            for values, style in ((cost.work[number], WORK), (cost.stall[number], STALL)):
                axes.plot(values[:whole], **style)
                axes.plot(range(whole, len(orders)), values[whole:], **{**style, "linestyle": "none", "label": None})
            for at in crossings(cost.work[number, :whole], cost.stall[number, :whole]):
                axes.axvline(at - 0.5, color="#333333", linewidth=1, linestyle=":")
            logarithmic(axes, positive.min(), positive.max(), zero=True)
            axes.set_xticks(range(len(orders)), [str(order) for order in orders])
            axes.set_xlim(-0.3, len(orders) - 0.7)
            axes.set_ylabel("ns per touch", fontsize=8)
        key = axes.get_legend_handles_labels()
        figure.legend(*key, loc="lower left", bbox_to_anchor=(0.06, 0), ncols=2, frameon=False)
        svg, png = pictures(figure, plot_note(results, "policy", "order"))
    return Plot(
        "split-or-stall",
        "Split cost against stall cost",
        "Per touch, by folio order: what splitting and importing cost (squares) and what waiting cost (circles, open "
        "stalls included). A dotted line marks where the larger of the two changes; the table has the break-even.",
        "Small panels, one per policy: split and import time, and stall time, per touch against folio order.",
        svg,
        png,
        pick(results, results.column("split_ns")),
    )


def tracking(results: Results) -> Plot | None:
    """Memory for the arch bits, and how much they over-indicate."""
    cells = cube(results, "policy", "order")
    pages = cells.sum("pages_total")
    if not pages.any():
        return None
    page_time = cells.total(results.column("pages_total") * (results.column("sim_ns") // 1000))
    state = ratio(cells.sum("tracking_bytes") * 256.0, pages)
    over = ratio(cells.sum("over_page_ns") / 10.0, page_time)
    drawn = [
        Panel("state", "KiB per GiB of guest", lines(cells, state), "log"),
        Panel("over-indication", "% of pages", lines(cells, over), "symlog"),
    ]
    return Plot(
        "tracking",
        "What tracking costs, and how far it overstates",
        "Above: the arch bits. Below: pages whose bit is set though they are not secure, averaged over time; each such "
        "page makes the host call the ultravisor in vain.",
        "Two panels of lines against folio order: bytes of tracking state, and the share of pages over-indicated.",
        *paint(results, drawn),
        pick(results, results.column("over_page_ns")),
    )
