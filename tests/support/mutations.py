"""Mutations of the specimens: each ends in a clear message, or in the counts that the second reader gives.

PYTHONPATH=src python tests/support/mutations.py COUNT [SEED] [PROCESSES]
"""

from __future__ import annotations

import multiprocessing
import random
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import plain_readers
import specimens
from ultrafolio.errors import InputError
from ultrafolio.trace.importer import HoldsNone
from ultrafolio.trace.registry import importer_of

SEED = 20261129
PART = 10_000
"""Mutations of one seed."""
TOKENS = [
    *(b"0", b"-1", b"18446744073709551615", b"18446744073709551616", b"9" * 40, b"0x", b"ffffffffffffffff", b"4096"),
    *(b"\n", b"\r\n", b"\n\n", b" ", b"\t", b",", b":", b"\0", b"\xff", b"#", b"(", b"_", b"\x1f\x8b"),
    *(b"wait", b"==9== x", b"fio version 3 iolog\n", b"null", b"[", b"{}", b'"', b"T", b"H", b"kB", b"0 kB", b"R"),
    *(b"W", b"D"),
]


def mutated(draw: random.Random, data: bytes, other: bytes) -> bytes:
    """``data`` with one to three changes."""
    for _ in range(draw.choice((1, 1, 2, 3))):
        at, end = sorted(draw.randrange(len(data) + 1) for _ in range(2))
        change = draw.randrange(9)
        if change == 0 and data:
            at = min(at, len(data) - 1)
            data = data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
        elif change == 1:
            data = data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :]
        elif change == 2:
            data = data[:at] + draw.choice(TOKENS) + data[at:]
        elif change == 3:
            data = data[:at] + data[min(end, at + 20) :]
        elif change == 4:
            data = data[:end]
        elif change == 5:
            rows = data.split(b"\n")
            row = draw.randrange(len(rows))
            data = b"\n".join(rows[:row] + rows[row : row + 1] * draw.choice((0, 2, 3)) + rows[row + 1 :])
        elif change == 6:
            rows = data.split(b"\n")
            first, second = draw.randrange(len(rows)), draw.randrange(len(rows))
            rows[first], rows[second] = rows[second], rows[first]
            data = b"\n".join(rows)
        elif change == 7:
            data = data[:at] + draw.choice((b"0", b"1", b"7", b"9", b"a", b"f")) + data[at + 1 :]
        else:
            start = draw.randrange(len(other) + 1)
            data = data[:at] + other[start : start + draw.randrange(1, 60)] + data[at:]
    return data


def fate(path: Path, data: bytes) -> str:
    """What becomes of the file: 'refused' or 'read'. AssertionError for a poor message or for other counts."""
    path.write_bytes(data)
    ends = set()
    try:
        importer = importer_of(path)
    except InputError as error:
        return _message(error, path)
    for kind in importer.kinds:
        try:
            counts = importer.read(path, kind).counts()
        except HoldsNone as error:
            ends.add(_message(error, path))
            continue
        except InputError as error:
            ends.add(_message(error, path))
            continue
        plain = plain_readers.READERS[importer.name, kind](data)
        assert counts == plain, f"{importer.name} as {kind}: {counts}, but the second reader {plain}"
        ends.add("read")
    return "read" if "read" in ends else "refused"


def _message(error: InputError, path: Path) -> str:
    assert str(path) in error.what, error
    assert error.allowed or error.cause or error.then, error
    assert len(str(error)) < 4000 and all(line.isprintable() for line in str(error).split("\n")), error
    return "refused"


def rounds(count: int, seed: int, path: Path) -> Counter[str]:
    """``count`` mutations of all specimens in turn, and how they ended. The first fault is raised with its bytes."""
    draw = random.Random(seed)
    files = sorted(specimens.INPUTS.iterdir())
    content = [file.read_bytes() for file in files]
    ends: Counter[str] = Counter()
    for number in range(count):
        which = number % len(files)
        data = mutated(draw, content[which], draw.choice(content))
        try:
            ends[fate(path, data)] += 1
        except Exception as error:
            raise AssertionError(f"mutation {number} of {files[which].name}: {error!r}: {data!r}") from error
    return ends


def shared(count: int, seed: int, folder: Path, processes: int) -> Counter[str]:
    """``count`` mutations in parts of PART, each with a seed of its own (``seed``, ``seed`` + 1, ...), by several
    processes: how they ended. The same mutations whatever the processes; the fault of the first part with one is
    raised."""
    sizes = [min(PART, count - at) for at in range(0, count, PART)]
    ends: Counter[str] = Counter()
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        seeds = range(seed, seed + len(sizes))
        for part in pool.map(rounds, sizes, seeds, [folder / f"mutant-{number}" for number in seeds]):
            ends += part
    return ends


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        print(dict(shared(given[0], *(given[1:2] or [SEED]), Path(folder), *(given[2:] or [1]))))
