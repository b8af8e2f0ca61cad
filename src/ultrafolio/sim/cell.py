"""One cell of a sweep: run one configuration, return its measures. The seam between sweep/ and the simulator."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ultrafolio.engine.load import digest
from ultrafolio.model.layout import *

from .config import resolve
from .layout import *
from .load import compiled
from .world import build

__all__ = ["COLUMNS", "engine_digest", "finish", "resolve", "run", "simulate_all", "warm"]

COLUMNS: dict[str, str] = {
    **dict.fromkeys(MEASURES, "int"),
    "sim_ns": "int", "throughput": "int", "pages_total": "int", "tracking_bytes": "int", "hung": "str",
    "broken": "ints", "stall_hist": "ints", "latency_hist": "ints",
}  # fmt: skip
"""Result columns. Times are ns. throughput: guest touches per second of simulated time. hung: class of the first
hang with waiter, holder and page, or "". broken: violations by property, from 1 on. *_hist: pairs bucket, count."""

_CHUNK = 1 << 40


def engine_digest() -> str:
    """Digest of all rules, engines and the simulator: another digest, another result."""
    return digest("model", "engine", "sim")


def warm() -> None:
    """Compile the event loop, or load it from the cache."""
    run(resolve({"duration_us": 1}, Path()), Path())


def simulate_all(state: State, world: World) -> None:
    """Run to the configuration's end."""
    compiled()(state, world, _CHUNK)


def run(config: Mapping[str, Any], base: Path) -> dict[str, int | str | list[int]]:
    """Simulate a configuration from config.resolve and return its COLUMNS. Pure in `config`.

    InputError for a recording that cannot be read.
    """
    state, world = build(dict(config), base)
    simulate_all(state, world)
    return finish(config, state, world)


def finish(config: Mapping[str, Any], state: State, world: World) -> dict[str, int | str | list[int]]:
    """The COLUMNS of a world at its end: open stalls are counted apart, never as finished ones."""
    clock, until = world.clock[0], config["duration_us"] * 1000
    values: dict[str, Any] = {name: int(world.metric[0][name]) for name in MEASURES}
    values["over_page_ns"] += int(clock["over"]) * (until - int(clock["over_at"]))
    waiting = (world.wait["stalled"] > 0) & (state.who["kind"] == VCPU)
    values["open_stalls"] = int(waiting.sum())
    values["open_stall_ns"] = int((until - world.wait["since"][waiting]).sum())
    values["sim_ns"] = until
    values["throughput"] = values["touches"] * 1_000_000_000 // until
    values["pages_total"] = len(state.mm)
    values["tracking_bytes"] = tracking_bytes(config["policy"]["track"], state)
    values["hung"] = first_hang(state, world)
    values["broken"] = [int(n) for n in world.broken[1:]]
    values["stall_hist"] = sparse(world.stall)
    values["latency_hist"] = sparse(world.latency)
    return {name: values[name] for name in COLUMNS}


def tracking_bytes(track: str, state: State) -> int:
    """Bytes of tracking state: one bit a page, or a folio; with a bitmap both, for folios larger than a page."""
    order = state.mm["order"].astype(np.int64)
    number = np.arange(len(order))
    heads = number >> order << order == number
    summaries = int((heads & (order > 0)).sum())
    bits = {"page": len(order), "folio": int(heads.sum()), "folio+bitmap": len(order) + summaries}
    return -(-bits[track] // 8)


def sparse(histogram: np.ndarray[Any, Any]) -> list[int]:
    """Non-empty buckets as bucket, count, bucket, count …"""
    index = np.flatnonzero(histogram)
    return [int(v) for pair in zip(index, histogram[index], strict=True) for v in pair]


@functools.lru_cache(maxsize=1)
def bucket_edges() -> np.ndarray[Any, Any]:
    """Lower edge, in ns, of every histogram bucket."""
    index = np.arange(HIST_SIZE, dtype=np.float64)
    octave = np.floor(index / (1 << HIST_SUB))
    low = np.where(octave == 0, index, ((1 << HIST_SUB) + index % (1 << HIST_SUB)) * 2.0 ** (octave - 1))
    return low


def first_hang(state: State, world: World) -> str:
    """The first hang in words: its class, who waits, for what, held by whom, and what would release it."""
    if not world.clock[0]["hangs"]:
        return ""
    return hang_text(world.hang[0], state)


def hang_text(hang: Any, state: State) -> str:
    """One found hang: "permanent: vcpu 3 waits for … of page 17; held by …; released by …"."""
    kind, holder = HANG_CLASSES[hang["kind"]], int(hang["holder"])
    reason, page = int(hang["reason"]), int(hang["page"])
    waits = {E_DIRTY: "the dirty folio to become splittable", E_FATAL: "nothing: its VMM was told EINVAL"}
    what = waits.get(reason, WAITS[-reason] if reason < 0 else "the extra references to go")
    if holder < len(state.who):
        k = state.task[holder]
        held = f"{ACTOR_KINDS[state.who[holder]['kind']]} {holder}, long-term pin on pages {k['page']}+{k['at']}"
        freed = "the guest's reboot or shutdown"
    elif reason == E_DIRTY:
        held, freed = "the write fault that dirties it again", "nothing under this policy"
    elif reason == E_FATAL:
        held, freed = "the policy's refusal", "a new start of the guest"
    else:
        held, freed = "an LRU batch", "a drain, which this policy does not do"
    return f"{kind}: vcpu {hang['waiter']} waits for {what}, page {page}; held by {held}; released by {freed}"
