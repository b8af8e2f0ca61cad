"""The configuration of a simulation: its axes, their defaults and bounds, and the canonical form."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ultrafolio.errors import InputError, one_of
from ultrafolio.fields import Field, take
from ultrafolio.files import named
from ultrafolio.model import policies
from ultrafolio.model.layout import BACKINGS

from . import costs

PLACEMENTS = ("aligned", "contiguous", "scattered")
"""Placement of shared pages: in folios of their own; in one run that starts inside a folio; each at a random page."""

WORKLOAD = {
    "pages": Field("int", 0, 0, 1 << 24),
    "guests": Field("int", 1, 1, 64),
    "vcpus": Field("int", 2, 1, 1024),
    "disks": Field("int", 4, 0, 65536),
    "io_pages": Field("int", 1, 1, 64),
    "pool_pages": Field("int", 64, 1, 1 << 20),
    "rings": Field("int", 0, 0, 4096),
    "ring_pages": Field("int", 3, 1, 64),
    "ring_after_us": Field("int", 0, 0, 10**9),
    "touch_ns": Field("int", 500, 0, 10**9),
    "io_us": Field("int", 200, 0, 10**9),
    "writeback_us": Field("int", 0, 0, 10**9),
    "reclaim_us": Field("int", 0, 0, 10**9),
    "lru_us": Field("int", 0, 0, 10**9),
    "mapping_us": Field("int", 0, 0, 10**9),
    "speculative_us": Field("int", 0, 0, 10**9),
    "reboot_us": Field("int", 0, 0, 10**9),
    "share_rate": Field("number", 0, 0, 1),
    "fail_pages": Field("int", 0, 0, 1 << 20),
    "backing": Field("choice", "anon", choices=BACKINGS),
    "imported": Field("bool", True),
    "early_rings": Field("bool", False),
    "one_address_space": Field("bool", False),
    "ownership_transfer": Field("bool", False),
    "touches": Field("text", ""),
    "requests": Field("text", ""),
    "orders": Field("text", ""),
}
"""The fields of a [workload.NAME] table; words.py has their meaning."""

AXES = {
    "policy": Field("text", "per-page"),
    "order": Field("int", 0, 0, 9),
    "workload": Field("text", "default"),
    "placement": Field("choice", "scattered", choices=PLACEMENTS),
    "costs": Field("text", "default"),
    "seed": Field("int", 1, 0, 2**31 - 1),
    "duration_us": Field("int", 20_000, 1, 10**9),
    "check": Field("bool", True),
    "tables": Field("table", None),
}
RECORDINGS = ("touches", "requests", "orders")
_SHOWN = ("order", "placement", "seed", "duration_us", "check")
PLAIN: Mapping[str, tuple[str, ...]] = {axis: (axis,) for axis in _SHOWN} | {
    field: ("workload", field) for field in WORKLOAD if field not in RECORDINGS
}
"""Axis -> the place in a configuration at which its value stands as it is; nothing else there depends on it."""
THEN = "ultrafolio reference plan"
READERS: Mapping[str, Callable[[Any, str], object]] = {
    "policy": policies.any_from_table,
    "workload": lambda block, where: take(block, where, WORKLOAD, then=THEN),
    "costs": costs.from_table,
}
"""What reads a definition of a plan, by the name of its table."""
_read_last: list[Mapping[str, Any]] = [{}]


@functools.lru_cache(maxsize=256)
def _digest(path: str, stamp: tuple[int, int]) -> str:
    """Returns the digest of a file's content. `stamp`, its time and size, is part of the cache's key."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def recording_digest(path: Path) -> str:
    """blake2b of a recording's bytes; read again only if its size or time changed. Raises InputError if unreadable."""
    try:
        status = path.stat()
        return _digest(str(path), (status.st_size, status.st_mtime_ns))
    except OSError as error:
        raise InputError(
            f"{path}: recording cannot be read",
            value=error.strerror or str(error),
            allowed="a recording such as those in traces/",
            cause="paths in a plan are relative to the plan's folder",
        ) from None


def check_tables(tables: Mapping[str, Any], readers: Mapping[str, Callable[[Any, str], object]]) -> None:
    """Read every definition of a plan, whether a cell uses it or not.

    readers: name of a table -> what reads one of its blocks, and where that stands. InputError for any other table
    (with the nearest name), for a block that is no table, and whatever a reader refuses. The definitions that were read
    last are not read again: all cells of a plan have the same ones.
    """
    if tables is _read_last[0]:
        return
    for kind, blocks in tables.items():
        if kind not in readers:
            raise one_of(f"unknown table [{kind}]", kind, readers, then=THEN)
        for name, block in take({kind: blocks}, "the plan", {kind: Field("table")}, then=THEN)[kind].items():
            where = f"[{kind}.{name}]"
            readers[kind](take({where: block}, "the plan", {where: Field("table")}, then=THEN)[where], where)
    _read_last[0] = tables


def resolve(cell: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """The canonical configuration of a cell: every axis, workload value, policy choice and cost.

    `cell` holds axes (AXES, or any field of WORKLOAD, which overrides the workload's), and "tables": the plan's own
    [policy.*], [workload.*] and [costs.*] blocks. A recording is given by path and digest, so that a changed
    recording is another configuration. Raises InputError with the axis, the value and what is allowed.
    """
    tables: Mapping[str, Any] = cell.get("tables") or {}
    check_tables(tables, READERS)
    known = {**AXES, **{name: Field(f.kind, None, f.low, f.high, f.choices) for name, f in WORKLOAD.items()}}
    values = take(cell, "cell", known, then=THEN)
    workloads = tables.get("workload", {})
    name = values["workload"]
    if name != "default" and name not in workloads:
        raise one_of("unknown workload", name, ["default", *workloads], then="add a [workload.NAME] block")
    load = take(workloads.get(name, {}), f"[workload.{name}]", WORKLOAD, then=THEN)
    load.update({field: values[field] for field in WORKLOAD if values[field] is not None})
    for field in RECORDINGS:
        if load[field]:
            load[field] = [load[field], recording_digest(named(base, load[field]))]
    return {
        "policy": asdict(policies.find(values["policy"], tables.get("policy"))),
        "costs": costs.find(values["costs"], tables.get("costs", {}), base),
        "workload": load,
        **{axis: values[axis] for axis in _SHOWN},
    }
