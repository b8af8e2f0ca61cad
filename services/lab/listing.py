"""The page's lists: groups, and sweeps with progress and plots of the cells computed so far."""

from __future__ import annotations

import threading
import time
from typing import Any

from services.lab.jobs import Jobs
from services.lab.partial import results_so_far
from services.lab.replays import Replays
from ultrafolio.errors import InputError
from ultrafolio.report.store import Results
from ultrafolio.rpc.v1 import lab_pb2
from ultrafolio.state.store import StoreUnavailable
from ultrafolio.sweep import planfile

EVERY_S = 0.5
WORDS = {
    lab_pb2.SWEEP_STATE_RUNNING: "running",
    lab_pb2.SWEEP_STATE_PAUSED: "paused",
    lab_pb2.SWEEP_STATE_CANCELLED: "cancelled",
    lab_pb2.SWEEP_STATE_DONE: "done",
}


class Listing:
    """The lists, refreshed at most every half second for all pages together."""

    def __init__(self, replays: Replays, jobs: Jobs) -> None:
        self._replays, self._jobs = replays, jobs
        self._said: dict[str, Any] = {"groups": [], "sweeps": [], "away": ""}
        self._looked = 0.0
        self._lock = threading.Lock()
        self._drawn: dict[str, tuple[int, list[Any]]] = {}
        self._drawing = threading.Lock()

    def now(self) -> dict[str, Any]:
        """Returns {groups, sweeps, away: why the shared state cannot be read}; the same object until it changes."""
        if self._lock.acquire(blocking=False):
            try:
                if time.monotonic() - self._looked > EVERY_S:
                    made = self._look()
                    self._said = made if made != self._said else self._said
                    self._looked = time.monotonic()
            finally:
                self._lock.release()
        return self._said

    def _look(self) -> dict[str, Any]:
        """Returns the lists of groups and sweeps; the last ones, and why, if the shared state does not answer."""
        try:
            groups, away = self._replays.groups(), ""
        except StoreUnavailable:
            return self._said | {"away": "the shared state does not answer"}
        return {"groups": groups, "sweeps": [self._sweep(job) for job in self._jobs.names()], "away": away}

    def _sweep(self, job: str) -> dict[str, Any]:
        """Returns a sweep's row: its name, state and progress. Of one that is done the last row is returned again."""
        sweeps: list[dict[str, Any]] = self._said["sweeps"]
        known = next((one for one in sweeps if one["job"] == job and one["state"] == "done"), None)
        if known:
            return known
        now = self._jobs.progress(job)
        failed = self._jobs.failure(job)
        state = "failed" if failed else WORDS[now.state]
        return {
            "job": job,
            "name": self._jobs.name(job),
            "state": state,
            "done": now.done,
            "cells": now.cells,
            "quarantined": now.quarantined,
            "why": failed,
        }

    # --------------------------------------------------------------------------------------------- plots
    def _plots(self, job: str) -> tuple[int, list[Any]]:
        """Returns (number of cells, their plots), drawn again if there are more cells than at the last call."""
        from ultrafolio.report.page import all_plots

        folder = self._jobs.folder(job)
        with self._drawing:
            known, plots = self._drawn.get(job, (-1, []))
            if (folder / "store/results.parquet").exists():
                cells, store = planfile.load(folder / "plan.toml").count, folder / "store"
            else:
                store = folder / "so-far"
                cells = results_so_far(folder / "plan.toml", folder / "store", store)
            if cells != known:
                plots = all_plots(Results(store)) if cells else []
                self._drawn[job] = cells, plots
            return cells, plots

    def plots(self, job: str) -> dict[str, Any]:
        """Returns {cells: their number, plots: [{name, title, caption, alt}]} of a sweep.

        While the sweep runs the plots show the rows that its store has. Raises InputError if it has no store or no row.
        """
        cells, plots = self._plots(job)
        return {
            "cells": cells,
            "plots": [
                {"name": plot.name, "title": plot.title, "caption": plot.caption, "alt": plot.alt} for plot in plots
            ],
        }

    def plot(self, job: str, name: str) -> str:
        """Returns one plot as SVG, as last drawn: drawing takes longer than new cells take to come in."""
        _, drawn = self._drawn.get(job) or self._plots(job)
        plots = {plot.name: plot.svg for plot in drawn}
        if name not in plots:
            raise InputError("no such plot", value=name, allowed=", ".join(plots))
        return str(plots[name])
