"""What the terminal shows during a sweep: a bar on a terminal, a line now and then elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ultrafolio import screen

from .work import Tally

LINE_SECONDS = 5.0


@dataclass
class Count:
    """How far a sweep is."""

    total: int
    stored: int = 0
    computed: int = 0
    failed: int = 0
    stopping: bool = False
    """The workers finish the cells they are in; a second Ctrl-C does not wait for that."""
    began: float = field(default_factory=time.monotonic)

    def add(self, tally: Tally) -> None:
        self.stored += tally.stored
        self.computed += tally.computed
        self.failed += tally.failed

    @property
    def done(self) -> int:
        return self.stored + self.computed

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    @property
    def rate(self) -> float:
        """Cells computed per second so far."""
        return self.computed / max(self.seconds, 1e-3)


class Display(AbstractContextManager["Display"], Protocol):
    """Shows a count, as often as it is told and as it sees fit."""

    def show(self, count: Count) -> None: ...


class Silent:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, count: Count) -> None:
        pass


class Lines(Silent):
    """A plain line on stderr every few seconds, for logs."""

    def __init__(self) -> None:
        self._shown = time.monotonic()

    def show(self, count: Count) -> None:
        now = time.monotonic()
        if now - self._shown < LINE_SECONDS:
            return
        self._shown = now
        left = f", {(count.total - count.done) / count.rate:.0f} s left" if count.computed else ""
        cells = f"{count.done}/{count.total} cells, {count.failed} failed"
        print(f"{cells}, {count.rate:.1f} cells/s{left}", file=sys.stderr, flush=True)


class Bar(Silent):
    """A progress bar on stderr."""

    def __init__(self) -> None:
        # No refresh thread: workers are forked while the bar is up, and locks of threads outlive a fork.
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]} failed"),
            TextColumn("{task.fields[rate]:.1f} cells/s"),
            TimeRemainingColumn(compact=True),
            console=screen.console(sys.stderr),
            auto_refresh=False,
        )
        self._task = self._bar.add_task("", total=None, failed=0, rate=0.0)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, count: Count) -> None:
        self._bar.update(
            self._task,
            description="stopping" if count.stopping else "cells",
            total=count.total,
            completed=count.done,
            failed=count.failed,
            rate=count.rate,
            refresh=True,
        )


def display(*, quiet: bool) -> Display:
    """The display that suits stderr."""
    if quiet:
        return Silent()
    return Bar() if sys.stderr.isatty() and not screen.is_plain() else Lines()
