"""A finished store of many cells, without the time to simulate them: some are simulated, the others repeat results.

    python benchmarks/big_store.py FOLDER [--cells 1000000]

The plan has 10 policies, 10 folio orders and 4 workloads on recordings, and as many seeds as the cells need. Only the
results are not simulated one by one: a cell has those of one of SAMPLES runs of its point, with some measures moved
a little, so that columns hold as many values as those of a real sweep. Configurations, keys, segments and the merge
are a sweep's own: `sweep status`, `sweep why` and `report` read the store like any other.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ultrafolio.sim import cell
from ultrafolio.sweep.local.processes import InProcess
from ultrafolio.sweep.planfile import parse
from ultrafolio.sweep.progress import display
from ultrafolio.sweep.run import Summary, sweep

TRACES = Path(__file__).parents[1] / "traces"
POINTS = 400
"""Points of the plan but the seed."""
SAMPLES = 3
"""Simulated runs of each point."""
MOVED = ("touches", "stall_ns", "import_ns", "uv_ns", "io_ns", "throughput")
PLAN = """
title = "A large sweep"
[fixed]
duration_us = 1000
[grid]
policy = ["per-page", "whole-folio", "whole-folio-literal", "refuse-large", "split", "split-false-success",
  "split-writeback", "import-lock", "folio-bitmap", "folio-bitmap-pins"]
order = "0-9"
workload = ["disk", "virtio", "boot", "xfs"]
seed = "1-{seeds}"
[workload.disk]
touches = "{traces}/sqlite-update.lackey.gz"
[workload.virtio]
touches = "{traces}/sqlite-update.lackey.gz"
rings = 2
[workload.boot]
touches = "{traces}/python-startup.lackey.gz"
rings = 2
imported = false
[workload.xfs]
touches = "{traces}/python-startup.lackey.gz"
rings = 2
imported = false
backing = "iomap"
writeback_us = 200
"""


@dataclass
class Sampled:
    """The simulator's cells, of which few are simulated: see the module."""

    COLUMNS, PLAIN = cell.COLUMNS, cell.PLAIN
    _found: dict[tuple[Any, ...], dict[str, Any]] = field(default_factory=dict)

    resolve = staticmethod(cell.resolve)
    warm = staticmethod(cell.warm)
    engine_digest = staticmethod(cell.engine_digest)

    def run(self, config: dict[str, Any], base: Path) -> Mapping[str, Any]:
        """The results of the sample of a configuration."""
        seed, load = config["seed"], config["workload"]
        sample = seed % SAMPLES + 1
        name = (*config["policy"].values(), config["order"], load["touches"][0], load["rings"], load["backing"], sample)
        if name not in self._found:
            self._found[name] = dict(cell.run({**config, "seed": sample}, base))
        found = self._found[name]
        by = seed * 7919 % 1009
        return found | {measure: found[measure] + (found[measure] * by >> 14) for measure in MOVED}


def make(folder: Path, cells: int, *, quiet: bool = True) -> Summary:
    """Make the store in `folder`, of `cells` cells, a multiple of POINTS."""
    text = PLAN.format(seeds=cells // POINTS, traces=TRACES)
    return sweep(parse(text, folder / "plan.toml"), folder, Sampled(), InProcess(), display(quiet=quiet))


def main() -> None:
    parser = argparse.ArgumentParser(description="A finished store of many cells; see benchmarks/README.md.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cells", type=int, default=1_000_000, help="a multiple of 400 [default: 1000000]")
    options = parser.parse_args()
    print(make(options.folder, options.cells, quiet=False))


if __name__ == "__main__":
    main()
