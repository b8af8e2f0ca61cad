"""The results so far of a running sweep, for the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ultrafolio.sweep import planfile
from ultrafolio.sweep.results import axis_columns, parts, writing
from ultrafolio.sweep.store import open_store


def results_so_far(plan_file: Path, folder: Path, out: Path) -> int:
    """Write the present rows of the store `folder` to `out`, as a store that reports can read. Returns their number.

    plan_file: the sweep's plan, in the folder that its paths are relative to. Of a cell computed twice, the newest row
    counts. Raises InputError if there is no store yet.
    """
    store = open_store(folder)
    cells, left = np.unique(store.rows(("index",), cut=[])["index"].to_numpy(), return_counts=True)
    if not len(cells):
        return 0
    plan = planfile.load(plan_file)
    out.mkdir(parents=True, exist_ok=True)
    for name in ("plan.toml", "store.json"):
        (out / name).write_bytes((folder / name).read_bytes())
    origin = {"ultrafolio.plan": plan.digest, "ultrafolio.title": plan.title}
    names = ["index", "key", "status", "error", *(f"={name}" for name in store.manifest.columns)]
    with writing(out / "results.parquet") as add:
        for stored in parts(store, names):
            rows = stored.take(pa.array(_newest(stored["index"].to_numpy(), cells, left)))
            columns: dict[str, Any] = axis_columns(plan, rows["index"].to_numpy())
            columns |= {name: rows[name] for name in ("key", "status", "error")}
            columns |= {name: rows[f"={name}"] for name in store.manifest.columns}
            add(pa.table(columns).combine_chunks().replace_schema_metadata(origin))
    return int((left <= 0).sum())


def _newest(index: Any, cells: Any, left: Any) -> Any:
    """The rows of a part that are the newest of their cells, ascending.

    left: for each of the cells, ascending, how many rows of it come yet; those of this part are subtracted. Rows that
    the sweep stored since they were counted are passed over.
    """
    place = np.minimum(np.searchsorted(cells, index), len(cells) - 1)
    known = np.flatnonzero((cells[place] == index) & (left[place] > 0))[::-1]
    found, last = np.unique(place[known], return_index=True)
    np.subtract.at(left, place[known], 1)
    return np.sort(known[last[left[found] <= 0]])
