"""The results so far of a running sweep, for the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ultrafolio.sweep import planfile
from ultrafolio.sweep.results import axis_columns
from ultrafolio.sweep.store import open_store


def results_so_far(plan_file: Path, folder: Path, out: Path) -> int:
    """Write the present rows of the store `folder` to `out`, as a store that reports can read. Returns their number.

    plan_file: the sweep's plan, in the folder that its paths are relative to. Of a cell computed twice, the newest row
    counts. Raises InputError if there is no store yet.
    """
    store = open_store(folder)
    names = ["index", "key", "status", "error", *(f"={name}" for name in store.manifest.columns)]
    batches = [batch.replace_schema_metadata(None) for batch in store.batches(names, cut=[])]
    if not batches:
        return 0
    rows = pa.Table.from_batches(batches)
    newest = {index: number for number, index in enumerate(rows["index"].to_pylist())}
    rows = rows.take(pa.array(sorted(newest.values())))
    plan = planfile.load(plan_file)
    columns: dict[str, Any] = axis_columns(plan, np.asarray(rows["index"].to_pylist(), np.int64))
    columns |= {name: rows[name] for name in ("key", "status", "error")}
    columns |= {name: rows[f"={name}"] for name in store.manifest.columns}
    out.mkdir(parents=True, exist_ok=True)
    for name in ("plan.toml", "store.json"):
        (out / name).write_bytes((folder / name).read_bytes())
    origin = {"ultrafolio.plan": plan.digest, "ultrafolio.title": plan.title}
    pq.write_table(pa.table(columns).replace_schema_metadata(origin), out / "results.parquet")
    return len(rows)
