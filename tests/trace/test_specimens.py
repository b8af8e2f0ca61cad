"""Recordings of real tools: each is read with the right counts, or refused with the right cause."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

import specimens
from ultrafolio.errors import InputError
from ultrafolio.trace.importer import Only
from ultrafolio.trace.load import load_orders, read
from ultrafolio.trace.registry import CONTAINERS, importer_of


def test_the_tables_name_every_specimen() -> None:
    assert sorted([*specimens.READ, *specimens.REFUSED]) == sorted(p.name for p in specimens.INPUTS.iterdir())


@pytest.mark.parametrize("name", specimens.READ)
def test_a_specimen_is_read(name: str) -> None:
    kind, counts = specimens.READ[name]
    assert read(specimens.INPUTS / name, kind).counts() == counts


@pytest.mark.parametrize("name", specimens.REFUSED)
def test_a_specimen_is_refused_with_its_cause(name: str) -> None:
    what, cause, then = specimens.REFUSED[name]
    path = specimens.INPUTS / name
    with pytest.raises(InputError) as error:
        read(path, specimens.KIND.get(name) or importer_of(path).kinds[0])
    assert what in error.value.what
    assert cause in error.value.cause
    assert then in error.value.then


def test_the_times_are_those_of_a_replay_by_fio() -> None:
    """As fio 3.33 itself waits: measured with a latency log, less the time that fio needs to start."""
    times = {
        name: read(specimens.INPUTS / name, "requests").rows["time_us"].tolist()
        for name in specimens.READ
        if name.endswith(".iolog")
    }
    assert times["v2-waits.iolog"] == [0, 250_000, 900_000]
    assert times["v3-wait-ignored.iolog"] == [10, 40]
    assert times["v3-time-goes-back.iolog"] == [30, 50, 50, 85]


def test_what_was_read_otherwise_is_noted() -> None:
    noted = {
        "big-endian.kpageflags": "big-endian",
        "v3-wait-ignored.iolog": "ignored, as fio does: 1 wait line;",
        "v3-time-goes-back.iolog": "goes back 1 time:",
        "no-last-line-end.iolog": "no line end",
        "periodic.thpmaps": "3 snapshots",
        "little-endian.pagemap": "swapped out: 1 page",
    }
    for name, words in noted.items():
        notes = read(specimens.INPUTS / name, specimens.READ[name][0]).notes
        assert any(words in note for note in notes), (name, notes)
    assert read(specimens.INPUTS / "plain.lackey", "touches").notes == ()


def test_one_process_of_several_mappings() -> None:
    path = specimens.INPUTS / "two-processes.thpmaps"
    assert load_orders(path, Only(pid=42)) == {3: 1, 4: 2}
    assert load_orders(path, Only(pid=43)) == {4: 4}
    with pytest.raises(InputError, match=r"no mapping of process 44[\s\S]*42, 43"):
        load_orders(path, Only(pid=44))


def test_a_format_without_processes_refuses_one() -> None:
    with pytest.raises(InputError, match="--pid 7: the lines of a lackey recording name no pid"):
        read(specimens.INPUTS / "plain.lackey", "touches", Only(pid=7))


def test_an_unlikely_byte_order_is_not_taken(tmp_path: Path) -> None:
    """Reserved pages alone fit both byte orders: little-endian is taken, and no folio is user memory in either."""
    path = tmp_path / "words"
    path.write_bytes((1 << 32).to_bytes(8, "little") * 4)
    recording = read(path, "orders")
    assert recording.counts() == {"folios": 0, "pages": 0}
    assert not any("big-endian" in note for note in recording.notes)
    with pytest.raises(InputError, match=r"no folio of user memory[\s\S]*left out: 4 folios of other than user memory"):
        load_orders(path)


@pytest.mark.parametrize("magic", CONTAINERS)
@pytest.mark.parametrize("packed", [False, True])
def test_a_recording_in_another_form_is_named(tmp_path: Path, magic: bytes, packed: bool) -> None:
    path = tmp_path / "it's"
    data = magic + bytes(range(200))
    path.write_bytes(gzip.compress(data) if packed else data)
    what, command = CONTAINERS[magic]
    with pytest.raises(InputError) as error:
        importer_of(path)
    assert what in error.value.what
    assert error.value.then == command.format(f"'{tmp_path}/it'\"'\"'s'")
