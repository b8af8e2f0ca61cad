"""The tables of a search, made as a sweep makes its cells: one cell is one scenario. The result depends neither on the
executor nor on what was stored before."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ultrafolio.errors import Defect, InputError
from ultrafolio.model.scenario import document
from ultrafolio.search import files
from ultrafolio.search.asked import Asked
from ultrafolio.search.cell import Verdicts
from ultrafolio.search.table import Table

if TYPE_CHECKING:
    # it imports pyarrow, which a check does without
    from ultrafolio.sweep.distributed.queue import Queue
    from ultrafolio.sweep.local.processes import Executor

Made = Callable[[Path], "Executor"]
"""The executor for the folder of a store."""
Told = Callable[[str, Table], None]

COMPILED_FROM = 5
"""Scenarios from which on the checker is compiled before the first graph; plain Python makes small ones of fewer."""


class Failed(InputError):
    """A scenario whose policies could not be judged."""

    def __init__(self, name: str, error: str) -> None:
        super().__init__(
            f"{name}: no verdicts",
            value=error,
            allowed="a scenario that workers judge",
            cause="a worker died, or lacked memory",
            then="repeat the search: other scenarios are kept",
        )


class Interrupted(KeyboardInterrupt):
    """A search was stopped before every verdict was known. detached: the store of the job that goes on, or None."""

    def __init__(self, detached: Path | None) -> None:
        super().__init__()
        self.detached = detached


def tables(asked: Asked, made_by: Made, told: Told) -> list[Table]:
    """The table of each scenario, in their order.

    made_by  what computes the tables that are not stored whole
    told     called with each table as soon as it is there

    Raises Interrupted after SIGINT; what was computed is then stored, if the search has a folder.
    """
    made = [asked.known(number) for number in range(len(asked.stories))]
    for (name, _), known in zip(asked.stories, made, strict=True):
        if asked.is_answered(known):
            told(name, known)
    if not all(map(asked.is_answered, made)):
        with _folder(asked) as folder:
            _Asking(asked, made, folder, told).run(made_by(folder))
    return made


@contextmanager
def _folder(asked: Asked) -> Iterator[Path]:
    """The folder of the store, removed when the search is answered: its tables then hold all that it holds."""
    if asked.out is None:
        with tempfile.TemporaryDirectory(prefix="ultrafolio-search-") as private:
            yield Path(private) / "store"
        return
    from ultrafolio.sweep.key import digest

    folder = asked.out / files.STORES / digest(asked.plan)[:16]
    folder.parent.mkdir(parents=True, exist_ok=True)
    yield folder
    shutil.rmtree(folder)
    if not any(folder.parent.iterdir()):
        folder.parent.rmdir()


class _Asking:
    """One search under way: `made` are its tables, which grow as rows come into the store."""

    def __init__(self, asked: Asked, made: list[Table], folder: Path, told: Told) -> None:
        from ultrafolio.sweep.cells import ASKS
        from ultrafolio.sweep.planfile import parse
        from ultrafolio.sweep.store import make_store
        from ultrafolio.sweep.work import Work

        self.asked, self.made, self.told = asked, made, told
        left = sum(not asked.is_answered(known) for known in made)
        cells = Verdicts(asked.design if left >= COMPILED_FROM else "", asked.out)
        plan = parse(asked.plan, folder.absolute() / "plan.toml", ASKS)
        self.work, self.store = Work(plan, cells, {}), make_store(folder, plan, cells.COLUMNS)

    def run(self, executor: Executor) -> None:
        """Compute until every table is whole. Raises Interrupted, and what _take() does: what failed is not kept."""
        from ultrafolio.sweep.distributed.queue import Queue
        from ultrafolio.sweep.run import segment_of, stop_on_sigint

        queue = executor if isinstance(executor, Queue) else None
        span, segment = (
            range(self.work.plan.size),
            partial(segment_of, self.store, self.store.next_run(), self.work.engine),
        )
        with self.store.lock(), stop_on_sigint() as stop:
            try:
                self._take_rows()
                self._skip()
                for tally in executor.run(self.work, span, segment, stop.is_set):
                    if tally.computed:
                        self._take_rows()
            except (Failed, Defect):
                self._forget(queue)
                raise
        if not all(map(self.asked.is_answered, self.made)):
            raise Interrupted(self.store.folder if queue and queue.detached else None)

    def _skip(self) -> None:
        """Compute no table that is whole."""
        keys = (self.work.key(cell)[0] for _, cell in self.work.plan.cells())
        whole = map(self.asked.is_answered, self.made)
        self.work.stored = {key: False for key, known in zip(keys, whole, strict=True) if known}

    def _take_rows(self) -> None:
        """Enter the rows of the store into the tables that are not whole."""
        for row in self.store.rows(("index", "status", "error", "=answers"), cut=[]).to_pylist():
            if not self.asked.is_answered(self.made[row["index"]]):
                self._take(row["index"], row["error"], row["=answers"])

    def _take(self, number: int, error: str | None, answers: str | None) -> None:
        """Enter a row into its table, and keep this. Raises Failed for a row of a failure or without verdicts, Defect
        for one of a defect, or where verdicts contradict each other."""
        (name, story), made = self.asked.stories[number], self.made[number]
        if error is not None and error.startswith(f"{Defect.__name__}: "):
            raise Defect(error, {"format": "ultrafolio-defect", "scenario": document(story)})
        try:
            text = answers if answers and len(answers) <= files.LARGEST else ""
            found = files.unpacked(json.loads(text), self.asked.space)
        except (ValueError, RecursionError):
            raise Failed(name, error or "what was computed is no verdict") from None
        for values, answer in found:
            if (made.verdicts[self.asked.space.where(answer.box)] != answer.verdict).any():
                made.add(values, answer)
        self.asked.keep(number, made)
        self.told(name, made)

    def _forget(self, queue: Queue | None) -> None:
        """Remove the store, and the job that may go on, so that the same search asks again."""
        from ultrafolio.sweep.distributed.control import revoke
        from ultrafolio.sweep.distributed.ticket import read_ticket

        if queue and queue.url and read_ticket(self.store.folder):
            revoke(self.store.folder, queue.url)
        shutil.rmtree(self.store.folder)
