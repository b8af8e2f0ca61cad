"""10,000 mutations of the specimens: a clear message, or the counts of a second reader. `--long`: a million."""

from __future__ import annotations

import os
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


def test_a_line_of_a_call_chain_that_holds_an_event_is_refused(tmp_path: Path) -> None:
    """Found by mutation 9,474 of seed 2007: the line lost its end, and the event after it was not counted."""
    data = (specimens.INPUTS / "software-faults.perf").read_bytes()
    joined = data.replace(b"(/lib", b"(/lib\x00", 1)
    end = joined.index(b"\x00")
    joined = joined[:end] + joined[joined.index(b"\n", end) + 1 :]
    assert mutations.fate(tmp_path / "recording", data) == "read"
    assert mutations.fate(tmp_path / "recording", joined) == "refused"


def test_what_follows_an_event_is_a_modifier_by_its_letters(tmp_path: Path) -> None:
    """Found by mutation 7,923 of one of a million: 17 letters, of which no modifier of perf is one."""
    data = (specimens.INPUTS / "software-faults.perf").read_bytes()
    counts = []
    for number, modifier in enumerate((b"u", b"pppHu", b"ffffffffffffffffu")):
        file = tmp_path / f"{number}.perf"
        file.write_bytes(data.replace(b"page-faults:u:", b"page-faults:" + modifier + b":", 1))
        assert file.read_bytes().count(modifier) and mutations.fate(file, file.read_bytes()) == "read"
        counts.append(importer_of(file).read(file, "touches", Only()).counts()["touches"])
    assert counts[0] == counts[1] > counts[2]


def test_mutations(tmp_path: Path) -> None:
    ends = mutations.rounds(10_000, mutations.SEED, tmp_path / "mutant")
    assert ends.total() == 10_000
    assert min(ends["read"], ends["refused"]) > 1_000


def test_a_wrong_count_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plain_readers.READERS, ("fio", "requests"), lambda data: {})
    with pytest.raises(AssertionError, match=r"mutation \d+ of .*second reader"):
        mutations.rounds(2_000, mutations.SEED, tmp_path / "mutant")


def test_processes_make_the_same_mutations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = mutations.rounds(300, 7, tmp_path / "mutant") + mutations.rounds(300, 8, tmp_path / "mutant")
    monkeypatch.setattr(mutations, "PART", 300)
    assert mutations.shared(600, 7, tmp_path, 2) == alone


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_many_mutations(tmp_path: Path) -> None:
    assert mutations.shared(1_000_000, 0, tmp_path, len(os.sched_getaffinity(0))).total() == 1_000_000
