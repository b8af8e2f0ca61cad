"""The progress of a sweep: a bar on a terminal, a line every few seconds elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ultrafolio import screen
from ultrafolio.nouns import plural

from .work import Tally

LINE_SECONDS = 5.0


@dataclass
class Count:
    """The counts of a sweep in progress, in cells."""

    total: int
    stored: int = 0
    computed: int = 0
    failed: int = 0
    stopping: bool = False
    """Workers are finishing their cells after a first Ctrl-C; a second one ends them at once."""
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
    """Shows a count. ``show`` may be called at any rate; a display limits its own output."""

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
        cells = f"{count.done}/{plural(count.total, 'cell')}, {count.failed} failed"
        print(f"{cells}, {count.rate:.1f} cells/s{left}", file=sys.stderr, flush=True)


class Bar(Silent):
    """A progress bar on stderr."""

    def __init__(self) -> None:
        # No refresh thread: workers are forked while the bar is shown, and a fork copies locks that threads hold.
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
    """The display for stderr: a bar on a terminal, lines elsewhere, nothing with ``quiet``."""
    if quiet:
        return Silent()
    return Bar() if sys.stderr.isatty() and not screen.is_plain() else Lines()
