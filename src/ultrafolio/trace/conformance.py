"""The conformance suite of importers: rules that every importer must keep, tested on one recording of its format.

    from ultrafolio.trace.conformance import check
    check(IMPORTER, Path("mine.recording"), "touches", {"touches": 6, "pages": 4, "writes": 3}, Path(tmp))

It accepts any object with the methods of ``importer.Importer``; our tests use it, too.
"""

from __future__ import annotations

import gzip
import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ultrafolio.errors import InputError
from ultrafolio.trace.importer import KINDS, REQUEST, TOUCH, Head, Importer, Kind, Only, Recording
from ultrafolio.trace.reader import MAX_LINE
from ultrafolio.trace.registry import REGISTRY

CUTS = 40


class Failed(AssertionError):
    """The importer does not hold a rule of the suite."""


def check(importer: Importer, path: Path, kind: Kind, counts: Mapping[str, int], scratch: Path) -> None:
    """Test every rule on the recording at ``path`` (not packed) with known counts; writes files to ``scratch``.

    Raises Failed with the rule that does not hold. Exceptions other than InputError are not caught.
    """
    _describes_itself(importer, kind)
    _knows_its_own(importer, path)
    recording = importer.read(path, kind)
    _is_well_formed(recording, kind)
    _is(recording.counts() == dict(counts), f"counts {recording.counts()}, not {dict(counts)}")
    _reads_the_same(importer, path, kind, recording, scratch)
    _refuses_what_is_nothing(importer, kind, scratch)
    _ends_in_a_message(importer, path, kind, scratch)
    _refuses_other_kinds(importer, path)


def _is(holds: bool, rule: str) -> None:
    """Raise Failed with this rule, unless it holds."""
    if not holds:
        raise Failed(rule)


def _describes_itself(importer: Importer, kind: Kind) -> None:
    _is(bool(importer.name) and not importer.name.isspace(), "an importer has a name")
    _is(bool(importer.made_by), "an importer names the command that makes its format")
    _is(bool(importer.kinds) and set(importer.kinds) <= set(KINDS), "an importer says what it reads")
    _is(kind in importer.kinds, f"{importer.name} reads {kind}")
    _is(all(limit > 0 for limit in importer.bounds.values()), "a bound is a number above 0")
    _is(set(importer.parts) <= set(Only._fields), "a part is one that can be asked for")


def _knows_its_own(importer: Importer, path: Path) -> None:
    """The importer, and no other one, takes the file for its format."""
    head = Head(path)
    claims = [other.name for other in REGISTRY if other.name != importer.name and other.sniff(head)]
    _is(importer.sniff(head), "an importer knows its own format")
    _is(not claims, f"one importer knows a format, not also {', '.join(claims)}")


def _is_well_formed(recording: Recording, kind: Kind) -> None:
    _is(recording.kind == kind, "the recording is of the kind asked for")
    rows = recording.rows
    if kind == "orders":
        _is(list(recording.orders) == sorted(recording.orders), "orders ascend")
        _is(all(n > 0 and order >= 0 for order, n in recording.orders.items()), "an order that is named occurs")
        return
    _is(rows.dtype == (TOUCH if kind == "touches" else REQUEST) and len(rows) > 0, "rows have the dtype of their kind")
    _is(bool(np.all(rows["write"] <= 1)), "write is 0 or 1")
    if kind == "touches":
        same = (rows["page"][1:] == rows["page"][:-1]) & (rows["write"][1:] == rows["write"][:-1])
        _is(not same.any(), "no touch repeats the one before it")
    else:
        _is(bool(np.all(np.diff(rows["time_us"].astype(np.int64)) >= 0)), "times never decrease")
        _is(bool(np.all(rows["length"] > 0)), "a request has a length")


def _reads_the_same(importer: Importer, path: Path, kind: Kind, first: Recording, scratch: Path) -> None:
    """Again, packed, with CRLF, and without the last line end."""
    data = path.read_bytes()
    forms = {"again": data, "packed with gzip": gzip.compress(data, mtime=0)}
    if not Head(path).binary and data.endswith(b"\n"):
        forms["with CRLF"] = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        forms["without its last line end"] = data.rstrip(b"\r\n")
    for form, content in forms.items():
        made = importer.read(_written(scratch, content), kind)
        same = made.counts() == first.counts() and np.array_equal(made.rows, first.rows)
        _is(same and dict(made.orders) == dict(first.orders), f"a recording reads the same {form}")


def _refuses_what_is_nothing(importer: Importer, kind: Kind, scratch: Path) -> None:
    missing = scratch / "missing"
    missing.unlink(missing_ok=True)
    nothing = {"a missing file": missing, "a folder": scratch, "an empty file": _written(scratch, b"", "empty")}
    nothing["a line that never ends"] = _written(scratch, b"x" * (MAX_LINE + 1), "long")
    nothing["other text"] = _written(scratch, b"hello, world\n" * 9, "other")
    for what, path in nothing.items():
        _is(_message(importer, path, kind) is not None, f"{what} is refused")


def _ends_in_a_message(importer: Importer, path: Path, kind: Kind, scratch: Path) -> None:
    """Cut anywhere, or with one byte changed: a recording, or a message that says what is allowed or why."""
    data = path.read_bytes()
    draw = random.Random(len(data))
    for _ in range(CUTS):
        at = draw.randrange(1, len(data))
        for content in (data[:at], data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :]):
            error = _message(importer, _written(scratch, content), kind)
            if error is not None:
                _is(bool(error.what and (error.allowed or error.cause or error.then)), f"a message helps: {error}")
                _is(str(scratch) in error.what, f"a message names the file: {error}")


def _refuses_other_kinds(importer: Importer, path: Path) -> None:
    for kind in KINDS:
        if kind not in importer.kinds:
            error = _message(importer, path, kind)
            _is(error is not None and importer.name in error.what, f"{importer.name} refuses to be read as {kind}")


def _message(importer: Importer, path: Path, kind: Kind) -> InputError | None:
    """Returns the error with which a file is refused; None if it is read."""
    try:
        importer.read(path, kind)
    except InputError as error:
        return error
    return None


def _written(scratch: Path, content: bytes, name: str = "recording") -> Path:
    path = scratch / name
    path.write_bytes(content)
    return path
