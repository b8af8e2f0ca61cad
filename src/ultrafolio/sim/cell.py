"""One cell of a sweep: run one configuration, return its measures. This is the simulator's interface for sweep/."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ultrafolio.engine.interp import records
from ultrafolio.engine.load import digest
from ultrafolio.model import designs
from ultrafolio.model.designs import S390
from ultrafolio.model.layout import *
from ultrafolio.sim.build import build
from ultrafolio.sim.records import *
from ultrafolio.waits import load as waits
from ultrafolio.waits import telling
from ultrafolio.waits.tables import OB_DIRTY

from .config import PLAIN, resolve
from .designs import RECORDS, columns
from .load import compiled

__all__ = ["COLUMNS", "PLAIN", "engine_digest", "finish", "resolve", "run", "simulate_all", "warm"]

COLUMNS = columns(S390)
"""Result columns of a sweep's cell, which is one of s390."""

_CHUNK = 1 << 40


def engine_digest() -> str:
    """Digest of the sources of rules, engines and simulator: equal digests give equal results."""
    return digest("model", "engine", "waits", "sim")


def warm() -> None:
    """Compile the event loop, or load it from the cache."""
    run(resolve({"duration_us": 1}, Path()), Path())


def simulate_all(state: State, world: World, most: int = _CHUNK) -> list[str]:
    """Run to the configuration's end. Returns the first `most` logged hangs in words, each from its state."""
    simulate, texts = compiled(designs.of(state)), list[str]()
    while True:
        world.clock["pausing"] = len(texts) < most
        simulate(state, world, _CHUNK)
        if len(texts) >= most or not add_hangs(state, world, texts):
            return texts


def add_hangs(state: State, world: World, texts: list[str]) -> bool:
    """Append the new logged hangs, in words, to `texts`. Returns whether there was one."""
    new = range(len(texts), int(world.clock[0]["hangs"]))
    texts += [hang_text(world.hang[number], state) for number in new]
    return bool(new)


def run(config: Mapping[str, Any], base: Path) -> dict[str, int | str | list[int]]:
    """Simulate a configuration from config.resolve and return its COLUMNS. Depends on `config` only.

    Raises InputError for an unreadable recording.
    """
    state, world = build(dict(config), base)
    return finish(config, state, world, simulate_all(state, world, 1))


def finish(
    config: Mapping[str, Any], state: State, world: World, hangs: Sequence[str]
) -> dict[str, int | str | list[int]]:
    """The columns of a world at its end, with the hangs of simulate_all. Open stalls have columns of their own."""
    clock, until, design = world.clock[0], config["duration_us"] * 1000, designs.of(state)
    values: dict[str, Any] = {name: int(world.metric[0][name]) for name in world.metric.dtype.names}
    if design is S390:
        values["over_page_ns"] += int(clock["over"]) * (until - int(clock["over_at"]))
        values["tracking_bytes"] = tracking_bytes(config["policy"]["track"], state)
    waiting = (world.wait["stalled"] > 0) & (state.who["kind"] == VCPU)
    values["open_stalls"] = int(waiting.sum())
    values["open_stall_ns"] = int((until - world.wait["since"][waiting]).sum())
    values["sim_ns"] = until
    values["throughput"] = values["touches"] * 1_000_000_000 // until
    values["pages_total"] = len(state.mm)
    values["hung"] = hangs[0] if hangs else ""
    values["broken"] = [int(n) for n in world.broken[1:]]
    values["stall_hist"] = sparse(world.stall)
    values["latency_hist"] = values["convert_hist"] = sparse(world.latency)
    return {name: values[name] for name in columns(design)}


def tracking_bytes(track: str, state: State) -> int:
    """Bytes of tracking state: one bit for each page or folio; with a bitmap both for folios larger than a page."""
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


def hang_text(hang: Any, state: State) -> str:
    """A hang in words, from the state in which it was logged: "permanent: vcpu 3 (touch page 17) waits for …; held by
    …; released by …"."""
    kind = RECORDS[designs.of(state).name].HANG_CLASSES[hang["kind"]]
    s, waiter, told = records(state), int(hang["waiter"]), telling.of(state)
    texts = told.stall(s, waiter)
    if kind == "livelock" or texts is None:
        page = int(hang["page"])
        whole = bool(waits.of(state).to_split(s, page))
        return f"{kind}: {told.in_words(s, waiter, OB_DIRTY, page, whole).line()}"
    return f"{kind}: {texts.wait.line()}"
