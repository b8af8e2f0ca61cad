"""The shipped conformance suite: all our importers hold it, and an importer with a fault does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import specimens
from ultrafolio.errors import InputError
from ultrafolio.trace import lackey
from ultrafolio.trace.conformance import Failed, check
from ultrafolio.trace.importer import TOUCH, Only
from ultrafolio.trace.registry import REGISTRY, importer_of

PLAIN = "plain.lackey"


@pytest.mark.parametrize("name", specimens.READ)
def test_every_importer_holds_the_suite(name: str, tmp_path: Path) -> None:
    kind, counts = specimens.READ[name]
    path = specimens.INPUTS / name
    check(importer_of(path), path, kind, counts, tmp_path)


def test_every_importer_has_a_specimen_of_each_kind() -> None:
    read = {(importer_of(specimens.INPUTS / name).name, kind) for name, (kind, _) in specimens.READ.items()}
    assert read == {(importer.name, kind) for importer in REGISTRY for kind in importer.kinds}
    assert len({importer.name for importer in REGISTRY}) == len(REGISTRY)


def unchecked(change: Callable[[Any], Any]) -> Callable[..., Any]:
    def read(path: Path, kind: str, only: Only, notes: list[str]) -> Any:
        return change(lackey.IMPORTER.reader(path, kind, only, notes))  # type: ignore[arg-type]

    return read


def crashing(path: Path, kind: str, only: Only, notes: list[str]) -> Any:
    return np.array([(int(line[3:11], 16) >> 12, 0) for line in Path(path).read_text().splitlines()], TOUCH)


def accepting(path: Path, kind: str, only: Only, notes: list[str]) -> Any:
    try:
        return lackey.IMPORTER.reader(path, kind, only, notes)  # type: ignore[arg-type]
    except InputError:
        return np.zeros(1, TOUCH)


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "drops a row": ({"reader": unchecked(lambda rows: rows[1:])}, "counts"),
    "repeats a row": ({"reader": unchecked(lambda rows: np.repeat(rows, 2))}, "no touch repeats"),
    "has another dtype": ({"reader": unchecked(lambda rows: rows["page"])}, "rows have the dtype"),
    "accepts anything": ({"reader": accepting}, "is refused"),
    "knows every file": ({"name": "other"}, "one importer knows a format, not also lackey"),
    "knows no file": ({"sniffer": lambda head: False}, "knows its own format"),
    "has no name": ({"name": ""}, "has a name"),
    "has no command": ({"made_by": ""}, "names the command"),
    "reads nothing": ({"kinds": ()}, "says what it reads"),
    "reads something else": ({"kinds": ("requests",)}, "lackey reads touches"),
    "has a bound of 0": ({"bounds": {"rows": 0}}, "a bound is a number above 0"),
    "has an unknown part": ({"parts": ("cpu",)}, "a part is one"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_importer_with_a_fault_fails_the_suite(fault: str, tmp_path: Path) -> None:
    changes, rule = FAULTS[fault]
    kind, counts = specimens.READ[PLAIN]
    with pytest.raises(Failed, match=rule):
        check(dataclasses.replace(lackey.IMPORTER, **changes), specimens.INPUTS / PLAIN, kind, counts, tmp_path)


def test_an_importer_that_crashes_is_not_caught(tmp_path: Path) -> None:
    kind, counts = specimens.READ[PLAIN]
    with pytest.raises(ValueError, match="invalid literal"):
        check(dataclasses.replace(lackey.IMPORTER, reader=crashing), specimens.INPUTS / PLAIN, kind, counts, tmp_path)
