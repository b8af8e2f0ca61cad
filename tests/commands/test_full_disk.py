"""A file system that is full, really: one message, exit code 2, each file whole or as it was; with room it goes on."""

import os
import subprocess

import pytest

from test_half_written import SAVES, stream  # noqa: F401  (a fixture)
from test_validate import engine  # noqa: F401  (a fixture)
from ultrafolio.cli import main

PAGE = 4096
PLAN = '[fixed]\nduration_us = 100\n[grid]\npolicy = ["split", "per-page"]\norder = "0-9"\nseed = "1-9"\n'
MORE = {
    "explore": ["explore", "03-virtio", "--policy", "whole-folio", "--export", "{file}"],
    "trace import": ["trace", "import", "{folder}/two.perf", "--pid", "900", "--save", "{file}"],
    "trace minimise": ["trace", "minimise", "{folder}/hang.json", "--save", "{file}"],
}
"""What saves a file, beside SAVES."""


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A file system of 16 MiB of its own."""
    folder = tmp_path_factory.mktemp("disk")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "ultrafolio-test", str(folder)], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def here(tmp_path, monkeypatch, disk):
    """The current folder, beside the disk, which is empty."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    subprocess.run(["find", str(disk), "-mindepth", "1", "-delete"], check=True)


def leave(disk, pages):
    """Fill the disk but for so many pages."""
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    size = os.statvfs(disk)
    with open(filler, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(PAGE, (size.f_bavail - pages) * size.f_frsize))


def ours(capfd, *words):
    """The exit code of a command, and what it said on stderr."""
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return int(left.value.code or 0), capfd.readouterr().err


def files(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "filler"
    }


def told_once(code, err, path):
    """Whether a full disk was told as it should be."""
    assert code == 2 and "Traceback" not in err, (code, err)
    assert "No space left on device" in err or "disk is full" in err, err
    assert str(path) in err and err.count("  next ") == 1, err
    return True


@pytest.mark.parametrize("name", [*SAVES, *MORE])
def test_a_saved_file_is_whole_or_as_it_was(name, here, disk, stream, capfd):  # noqa: F811
    from specimens import INPUTS

    (here / "two.perf").write_bytes((INPUTS / "two-threads.perf").read_bytes())
    if name == "trace minimise":
        ours(capfd, "check", "03-virtio", "--policy", "whole-folio", "--save", here / "hang.json")
    file = disk / "saved"
    words = [word.format(stream=stream, file=file, folder=here) for word in {**SAVES, **MORE}[name]]
    assert ours(capfd, *words)[0] in (0, 1)
    need, refused = -(-file.stat().st_size // PAGE), 0
    file.unlink()
    for old in (None, b"the old one"):
        for pages in sorted({0, 1, need // 2, need - 1}):
            if old:
                file.write_bytes(old)
            leave(disk, pages)
            before = files(disk)
            code, err = ours(capfd, *words)
            if pages < need:
                refused += told_once(code, err, file)
                assert files(disk) == before
    assert refused >= 2
    (disk / "filler").unlink()
    assert ours(capfd, *words)[0] in (0, 1) and file.stat().st_size > len(b"the old one")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sweep_goes_on_where_the_disk_was_full(workers, here, disk, capfd):
    (here / "plan.toml").write_text(PLAN)
    words = ["sweep", "plan.toml", "--workers", workers, "--no-report", "--quiet", "-o"]
    assert ours(capfd, *words, here / "wanted") == (0, "")
    wanted = (here / "wanted" / "results.parquet").read_bytes()
    need = sum(-(-len(data) // PAGE) for data in files(here / "wanted").values())
    refused = 0
    for pages in sorted({0, 1, 2, 3, *range(4, need, max(1, need // 6)), need - 1}):
        store = disk / f"s{pages}"
        leave(disk, pages)
        code, err = ours(capfd, *words, store)
        refused += code == 2 and told_once(code, err, store)
        assert not (store / "results.parquet").exists() or (store / "results.parquet").read_bytes() == wanted
        assert not list(store.rglob("*.tmp")) and not list(store.rglob("*.part"))
        (disk / "filler").unlink()
        assert ours(capfd, *words, store) == (0, "")
        assert (store / "results.parquet").read_bytes() == wanted
        subprocess.run(["rm", "-r", str(store)], check=True)
    assert refused >= 5


def test_a_report_leaves_each_of_its_files_whole(here, disk, capfd):
    (here / "plan.toml").write_text(PLAN)
    store = disk / "s"
    assert ours(capfd, "sweep", "plan.toml", "--workers", 0, "--no-report", "--quiet", "-o", store)[0] == 0
    before = files(store)
    assert ours(capfd, "report", store)[0] == 0
    whole = files(store)
    need = sum(-(-len(data) // PAGE) for name, data in whole.items() if name not in before)
    for pages in (0, 1, need // 3, need // 2, need - 1):
        for name in whole.keys() - before.keys():
            (store / name).unlink(missing_ok=True)
        leave(disk, pages)
        told_once(*ours(capfd, "report", store), store)
        assert files(store).items() <= whole.items() and "report.html" not in {str(name) for name in files(store)}
    (disk / "filler").unlink()
    assert ours(capfd, "report", store)[0] == 0 and files(store) == whole


def test_the_shipped_files_are_there_all_or_not_at_all(here, disk, capfd):
    for pages in (0, 1, 200):
        leave(disk, pages)
        told_once(*ours(capfd, "init", disk / "lab"), disk / "lab")
        assert not files(disk)
