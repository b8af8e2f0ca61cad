"""`ultrafolio trace import` and `formats`: counts, parts, what is saved; counts by an independent command."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import specimens
from ultrafolio.cli import cli
from ultrafolio.errors import InputError
from ultrafolio.trace.importer import Only
from ultrafolio.trace.load import load_requests, load_touches, read
from ultrafolio.trace.registry import REGISTRY

INPUTS = specimens.INPUTS


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, ["trace", *map(str, words)])


ONE_LINERS = {
    "faults.perf": ("touches", "touches", "/page_fault/ && !/ffff888/ && !/0x7f0000001ff8/ {n++} END {print n}"),
    "software-faults.perf": ("touches", "touches", "/page-faults/ && !/7f0000002ff0/ {n++} END {print n}"),
    "faults.trace-cmd": ("touches", "writes", "/error_code=0x6/ {n++} END {print n}"),
    "tgid.trace-cmd": ("touches", "touches", "/page_fault/ {n++} END {print n}"),
    "blocks.perf": ("requests", "bytes", "$5 ~ /rq_issue/ && $7 ~ /^F?[RW]/ {for (i = 8; i < NF; i++) if ($i == \"+\") "
                    "n += $(i + 1) * 512} END {print n}"),
    "blocks.trace-cmd": ("requests", "bytes", "/rq_issue/ {n += $7} END {print n}"),
    "plain.blkparse": ("requests", "bytes", '$6 == "D" && $7 ~ /^F?[RW]/ && $9 == "+" {n += $10 * 512} END {print n}'),
    "damon.perf": ("touches", "touches", "{split($8, a, /[-:]/); if ($9 > 0) n += (a[2] - a[1]) / 4096} END {print n}"),
    "plain.smaps": ("orders", "order-9", "/^(AnonHuge|ShmemPmd|FilePmd)/ {n += $2} END {print n / 2048}"),
    "plain.mthp": ("orders", "folios", 'BEGIN {FS = ":"} /nr_anon/ {n += $2} END {print n}'),
    "plain.lackey": ("touches", "writes", "/^ [SM]/ {n++; if (/ffc,8/) n++} END {print n}"),
    "v3-time-goes-back.iolog": ("requests", "bytes", '$3 ~ /read|write/ {n += $5} END {print n}'),
    "43-letters-5.15.page-types": ("orders", "pages", "NR > 1 {n += $3} END {print n}"),
    "two-processes.thpmaps": ("orders", "pages", "/thp-pte-aligned/ {n += $2 / 4} END {print n}"),
}  # fmt: skip
"""Specimen → kind, the count, and an awk program that counts the same without knowing the format."""


@pytest.mark.parametrize("name", ONE_LINERS)
def test_a_one_liner_counts_the_same(name: str) -> None:
    kind, count, program = ONE_LINERS[name]
    out = subprocess.run(["awk", program, INPUTS / name], capture_output=True, text=True, check=True).stdout
    assert int(out) == read(INPUTS / name, kind).counts()[count]


@pytest.mark.parametrize("order", ["little", "big"])
def test_a_loop_over_the_words_counts_the_same(order: str) -> None:
    data = (INPUTS / f"{order}-endian.pagemap").read_bytes()
    words = [int.from_bytes(data[at : at + 8], order) for at in range(0, len(data), 8)]
    there = [word >> 55 & 1 for word in words if word >> 62]
    counts = read(INPUTS / f"{order}-endian.pagemap", "touches").counts()
    assert (counts["touches"], counts["writes"]) == (len(there), sum(there))
    data = (INPUTS / f"{order}-endian.kpageflags").read_bytes()
    words = [int.from_bytes(data[at : at + 8], order) for at in range(0, len(data), 8)]
    pages = sum(word >> 5 & 1 or word >> 16 & 1 for word in words)
    assert read(INPUTS / f"{order}-endian.kpageflags", "orders").counts()["pages"] == pages


@pytest.mark.parametrize("name", [name for name, (kind, _) in specimens.READ.items() if kind != "orders"])
def test_what_is_saved_reads_the_same(name: str, tmp_path: Path) -> None:
    kind, counts = specimens.READ[name]
    saved = tmp_path / "saved"
    result = run("import", INPUTS / name, "--as", kind, "--save", saved, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.output)
    assert (told["as"], told["counts"]) == (kind, counts)
    again = read(saved, kind)
    assert np.array_equal(again.rows, read(INPUTS / name, kind).rows)
    assert again.notes == ()


def test_a_layout_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a folio layout cannot be saved"):
        CliRunner().invoke(
            cli,
            ["trace", "import", str(INPUTS / "plain.mthp"), "--save", str(tmp_path / "x")],
            catch_exceptions=False,
            standalone_mode=False,
        )
    assert not (tmp_path / "x").exists()


def test_one_process_of_several() -> None:
    path = INPUTS / "two-processes.perf"
    assert load_touches(path, Only(pid=950)).tolist() == [(0, 1), (1, 1)]
    assert load_touches(path, Only(pid=900)).tolist() == [(0, 0)]
    assert load_touches(INPUTS / "two-threads.perf", Only(pid=901)).tolist() == [(0, 1)]
    with pytest.raises(InputError, match=r"no page fault of process 7[\s\S]*950 \(other, 2 faults\), 900 \(prog"):
        load_touches(path, Only(pid=7))
    assert len(load_requests(INPUTS / "plain.blkparse", Only(pid=701))) == 2
    with pytest.raises(InputError, match=r"by process 7[\s\S]*700, 701"):
        load_requests(INPUTS / "plain.blkparse", Only(pid=7))


def test_one_device_and_one_target_of_several() -> None:
    assert len(load_requests(INPUTS / "two-devices.perf", Only(device="8,0"))) == 2
    assert len(load_requests(INPUTS / "two-devices.perf", Only(device="253,0"))) == 1
    with pytest.raises(InputError, match=r"no request of device 9,9[\s\S]*8,0, 253,0"):
        load_requests(INPUTS / "two-devices.perf", Only(device="9,9"))
    assert len(load_touches(INPUTS / "two-targets.damon.json", Only(target="1"))) == 6
    with pytest.raises(InputError, match=r"no target 3[\s\S]*0 \(4 regions\), 1 \(4 regions\)"):
        load_touches(INPUTS / "two-targets.damon.json", Only(target="3"))


def test_the_command_that_a_refusal_names_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every refusal of several streams ends with a command that can be typed as it stands."""
    monkeypatch.chdir(tmp_path)
    tried = 0
    for name in specimens.REFUSED:
        command = CliRunner().invoke(cli, ["trace", "import", str(INPUTS / name)], standalone_mode=False).exception
        assert isinstance(command, InputError)
        if command.then.startswith("ultrafolio trace import"):
            result = CliRunner().invoke(cli, command.then.split()[1:], catch_exceptions=False)
            assert result.exit_code == 0, (name, result.output)
            tried += 1
    assert tried == 6


def test_the_first_kind_that_a_recording_holds_is_read() -> None:
    assert "read as requests: requests 4, writes 2, bytes 29184" in run("import", INPUTS / "blocks.perf").output
    faults = run("import", INPUTS / "faults.perf").output
    assert "read as touches: touches 4" in faults
    assert "note  left out: 1 fault at kernel addresses" in faults


def test_formats_are_listed() -> None:
    lines = run("formats", "--json").output.splitlines()
    assert [json.loads(line)["format"] for line in lines] == [importer.name for importer in REGISTRY]
    text = run("formats").output
    assert all(importer.made_by in text for importer in REGISTRY)
