"""The interface of importers of recordings, and the form of their results.

An importer is any object with the attributes and methods of ``Importer``; ``Format`` builds one from functions.
``ultrafolio.trace.registry`` lists the lab's importers, ``ultrafolio.trace.conformance`` tests any importer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ultrafolio.errors import InputError
from ultrafolio.trace.reader import MAX_LINE, Path, open_stream

Kind = Literal["touches", "requests", "orders"]
Rows = npt.NDArray[np.void]

TOUCH = np.dtype([("page", "<u8"), ("write", "u1")])
"""page: address >> 12; write: 1 for a write, 0 for a read."""
REQUEST = np.dtype([("time_us", "<u8"), ("write", "u1"), ("offset", "<u8"), ("length", "<u4")])
"""time_us: since the start of the recording, never decreasing; offset, length: bytes, length at least 1."""

MAX_ROWS = 1 << 26
"""Rows of one recording: 67 million touches or requests, 600 MB to 1.4 GB of memory."""
HEAD_BYTES = 16 * MAX_LINE
U64 = 1 << 64

KINDS: dict[Kind, str] = {"touches": "page touches", "requests": "disk requests", "orders": "folio layout"}
"""Kind of recording -> its name in messages."""


class Only(NamedTuple):
    """The process, device or DAMON target to read; None: the recording must hold only one."""

    pid: int | None = None
    device: str | None = None
    target: str | None = None


EVERYTHING = Only()


@dataclass(frozen=True)
class Recording:
    """The content of one file.

    rows   touches: rows of TOUCH, no two neighbours equal; requests: rows of REQUEST; orders: none
    orders order → number of folios, for the orders that occur, ascending; empty for the other kinds
    notes  remarks for the user, one sentence each
    """

    kind: Kind
    rows: Rows = field(default_factory=lambda: np.empty(0, TOUCH))
    orders: Mapping[int, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def counts(self) -> dict[str, int]:
        """Of touches: touches, pages, writes; of requests: requests, writes, bytes, time_us (of the last one);
        of orders: folios, pages, order-N."""
        if self.kind == "orders":
            named = {f"order-{order}": n for order, n in self.orders.items()}
            pages = sum(n << order for order, n in self.orders.items())
            return {"folios": sum(self.orders.values()), "pages": pages, **named}
        writes = int(np.count_nonzero(self.rows["write"]))
        if self.kind == "touches":
            return {"touches": len(self.rows), "pages": distinct(self.rows["page"]), "writes": writes}
        total = sum(self.rows["length"].tolist())
        return {"requests": len(self.rows), "writes": writes, "bytes": total, "time_us": int(self.rows["time_us"][-1])}


class Head:
    """The start of a file, unpacked, for ``Importer.sniff``."""

    def __init__(self, path: Path) -> None:
        """Raises InputError as ``open_stream``."""
        self.path = path
        with open_stream(path) as stream:
            self.data = stream.read(HEAD_BYTES)

    @cached_property
    def lines(self) -> list[bytes]:
        """Its lines without their ends; the last one may be cut."""
        return [line.removesuffix(b"\r") for line in self.data.split(b"\n")]

    @cached_property
    def binary(self) -> bool:
        """Whether these are binary words: a word of /proc has two zero bytes or more, text has next to none."""
        start = self.data[:MAX_LINE]
        return start.count(0) * 8 >= len(start) > 0


class Importer(Protocol):
    """Reads one format.

    name     the format, one word
    made_by  the command that writes it
    kinds    the kinds of recordings that the format can hold
    bounds   name -> limit; a larger recording is refused
    parts    the columns that distinguish streams in one file: "pid", "device", "target"; may be empty
    """

    @property
    def name(self) -> str: ...
    @property
    def made_by(self) -> str: ...
    @property
    def kinds(self) -> tuple[Kind, ...]: ...
    @property
    def bounds(self) -> Mapping[str, int]: ...
    @property
    def parts(self) -> tuple[str, ...]: ...

    def sniff(self, head: Head) -> bool:
        """Whether the start of the file is of this format; at most one importer returns true."""
        ...

    def read(self, path: Path, kind: Kind, only: Only = EVERYTHING) -> Recording:
        """Read the whole file. Raises InputError for a malformed line or several streams, HoldsNone for a file without
        this kind."""
        ...


@dataclass(frozen=True)
class Format:
    """An importer made of functions: ``reader(path, kind, only, notes)`` returns rows, or orders as a dict.

    The reader may add notes. ``read`` refuses a kind or a part that the format lacks.
    """

    name: str
    made_by: str
    kinds: tuple[Kind, ...]
    sniffer: Callable[[Head], bool]
    reader: Callable[[Path, Kind, Only, list[str]], Rows | dict[int, int]]
    bounds: Mapping[str, int] = field(default_factory=dict)
    parts: tuple[str, ...] = ()

    def sniff(self, head: Head) -> bool:
        return self.sniffer(head)

    def read(self, path: Path, kind: Kind, only: Only = EVERYTHING) -> Recording:
        name = os.fspath(path)
        if kind not in self.kinds:
            raise InputError(
                f"{name}: this {self.name} recording holds no {KINDS[kind]}",
                value=self.made_by,
                allowed=f"read it as {' or '.join(KINDS[held] for held in self.kinds)}",
            )
        for part, value in only._asdict().items():
            if value is not None and part not in self.parts:
                raise InputError(
                    f"{name}: --{part} {value}: the lines of a {self.name} recording name no {part}",
                    allowed=self.made_by,
                    then="record one a file",
                )
        notes: list[str] = []
        made = self.reader(path, kind, only, notes)
        if isinstance(made, dict):
            return Recording(kind, orders=made, notes=tuple(notes))
        return Recording(kind, rows=made, notes=tuple(notes))


class HoldsNone(InputError):
    """The recording is well-formed and has nothing of the requested kind; it may have another kind."""


def gathered(path: Path, batches: Iterable[Rows], bound: int = MAX_ROWS) -> Rows:
    """The batches, at least one, as one array. Raises InputError for more than ``bound`` rows."""
    kept: list[Rows] = []
    total = 0
    for batch in batches:
        total += len(batch)
        if total > bound:
            raise too_large(path, bound)
        kept.append(batch)
    return np.concatenate(kept)


def too_large(path: Path, bound: int) -> InputError:
    """The error for a recording of more rows than an importer reads."""
    return InputError(
        f"{os.fspath(path)}: more than {bound} rows",
        allowed=f"up to {bound} rows",
        cause="the recording is longer than the lab keeps in memory",
        then="keep the window that matters: tail -n +FIRST FILE | head -n COUNT",
    )


def distinct(values: npt.NDArray[np.uint64]) -> int:
    """How many different values there are, by sorting: np.unique hashes, which took fifty times as long where no value
    comes twice."""
    ordered = np.sort(values)
    return int(len(ordered) > 0) + int(np.count_nonzero(ordered[1:] != ordered[:-1]))


def runs(rows: Rows, last: tuple[int, int] | None = None) -> Rows:
    """``rows`` of TOUCH without those that repeat the row before them; ``last`` is the row before the first."""
    if len(rows) == 0:
        return rows
    keep = np.ones(len(rows), np.bool_)
    page, write = rows["page"], rows["write"]
    keep[1:] = (page[1:] != page[:-1]) | (write[1:] != write[:-1])
    keep[0] = last is None or last != (int(page[0]), int(write[0]))
    return rows[keep]


def batched(rows: Iterator[tuple[int, ...]], dtype: np.dtype[np.void], size: int) -> Iterator[Rows]:
    """Arrays of ``size`` rows, the last one shorter."""
    batch: list[tuple[int, ...]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield np.array(batch, dtype)
            batch = []
    if batch:
        yield np.array(batch, dtype)
