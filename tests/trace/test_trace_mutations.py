"""10,000 mutations of the specimens: a clear message, or the counts of a second reader. `--long`: a million."""

from __future__ import annotations

from pathlib import Path

import pytest

import mutations
import plain_readers
import specimens
from ultrafolio.trace.importer import Kind, Only
from ultrafolio.trace.registry import REGISTRY, importer_of


@pytest.mark.parametrize("name", specimens.READ)
def test_the_second_reader_gives_the_counts(name: str, tmp_path: Path) -> None:
    assert mutations.fate(tmp_path / "recording", (specimens.INPUTS / name).read_bytes()) == "read"


def test_every_importer_has_a_second_reader() -> None:
    assert set(plain_readers.READERS) == {(one.name, kind) for one in REGISTRY for kind in one.kinds}


@pytest.mark.parametrize(
    ("name", "kind", "event", "system"),
    [
        ("blocks.trace-cmd", "requests", b"block_rq_issue", b"block:"),
        ("faults.trace-cmd", "touches", b"page_fault_user", b"exceptions:"),
    ],
)
def test_an_event_of_trace_cmd_with_its_system_is_the_same_event(
    name: str, kind: Kind, event: bytes, system: bytes, tmp_path: Path
) -> None:
    """As perf writes it; the second reader takes both."""
    data = (specimens.INPUTS / name).read_bytes()
    assert event in data
    counts = []
    for number, text in enumerate((data, data.replace(b" " + event + b":", b" " + system + event + b":"))):
        assert mutations.fate(tmp_path / "recording", text) == "read"
        file = tmp_path / f"{number}.recording"
        file.write_bytes(text)
        counts.append(importer_of(file).read(file, kind, Only()).counts())
    assert counts[0] == counts[1]


def test_mutations(tmp_path: Path) -> None:
    ends = mutations.rounds(10_000, mutations.SEED, tmp_path / "mutant")
    assert ends.total() == 10_000
    assert min(ends["read"], ends["refused"]) > 1_000


def test_a_wrong_count_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plain_readers.READERS, ("fio", "requests"), lambda data: {})
    with pytest.raises(AssertionError, match=r"mutation \d+ of .*second reader"):
        mutations.rounds(2_000, mutations.SEED, tmp_path / "mutant")


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_many_mutations(tmp_path: Path) -> None:
    for seed in range(10):
        assert mutations.rounds(100_000, seed, tmp_path / "mutant").total() == 100_000
