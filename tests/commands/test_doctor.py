"""doctor: versions compared with the package's requirements, missing parts, and the commands that install them."""

import contextlib
import importlib.metadata
import json
import sys
from types import SimpleNamespace

import pytest

from ultrafolio import errors
from ultrafolio.cli import main
from ultrafolio.commands import doctor


def run(capsys, *words):
    with pytest.raises(SystemExit) as left:
        main(["doctor", *words])
    out, err = capsys.readouterr()
    return left.value.code, out, err


def findings(capsys, *words):
    code, out, _ = run(capsys, *words, "--json")
    record = json.loads(out)
    assert record["ok"] == (code == 0)
    return code, record["findings"]


@pytest.mark.parametrize(
    ("version", "wanted", "right"),
    [
        ("2.4.6", "<2.6,>=2", True),
        ("2.6", "<2.6,>=2", False),
        ("2.6.0", "<2.6", False),
        ("1.9", ">=1.10", False),
        ("1.10", ">=1.9", True),
        ("9.1.2.post2", ">=9.1.2", True),
        ("3.0", "==3", True),
        ("3.0.1", "==3.0", False),
        ("8.0rc1", ">=8", True),
        ("1.0", "", True),
        ("2", "!=2.0", False),
        ("45.0.0", ">=45", True),
    ],
)
def test_versions_are_compared_as_numbers(version, wanted, right):
    assert doctor.fits(version, wanted) is right


def test_a_complete_core_is_exit_code_0_whatever_else_is_missing(capsys, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda program: None)
    code, found = findings(capsys)
    core = {one["name"] for one in found if one["part"] == "core"}
    assert code == 0 and {"python", "numba", "compiled rules"} <= core
    assert {one["state"] for one in found if one["part"] == "tools"} == {"missing"}
    code, out, _ = run(capsys, "spin")
    assert code == 1 and "apt-get install spin gcc" in out and "missing: spin" in out
    monkeypatch.setattr(doctor.shutil, "which", lambda program: f"/usr/bin/{program}")
    code, found = findings(capsys, "spin")
    assert (code, found[-1]["name"], found[-1]["state"], found[-1]["found"]) == (0, "spin", "ok", "/usr/bin/spin")


def test_every_extra_of_the_package_is_a_part_with_its_packages(capsys):
    extras = set(importlib.metadata.metadata("ultrafolio").get_all("Provides-Extra"))
    parts = doctor._parts()
    assert set(parts) == extras | {"core", "tools", "calibrate"} and next(iter(parts)) == "core"
    assert {one.name for one in parts["report"]()} == {"jinja2", "matplotlib"}
    assert {"grpcio", "redis", "cryptography"} <= {one.name for one in parts["cluster"]()}


def test_a_missing_and_an_old_package_say_what_to_type(capsys, monkeypatch):
    real = importlib.metadata.version

    def version(name):
        if name == "jinja2":
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.1" if name == "matplotlib" else real(name)

    monkeypatch.setattr(doctor.importlib.metadata, "version", version)
    code, found = findings(capsys, "report")
    assert code == 1
    states = {one["name"]: one["state"] for one in found if one["part"] == "report"}
    assert states == {"jinja2": "missing", "matplotlib": "wrong version"}
    code, out, _ = run(capsys, "report")
    assert code == 1 and errors.install("report") in out and "missing: jinja2, matplotlib" in out
    assert run(capsys)[0] == 0, "the core is complete, and nothing else was asked for"


@pytest.mark.parametrize(
    ("pip", "uv", "says"),
    [
        (True, True, "{python} -m pip install 'ultrafolio[web]'"),
        (False, True, "uv pip install --python {python} 'ultrafolio[web]'"),
        (False, False, "python3 -m pip --python {python} install 'ultrafolio[web]'"),
    ],
)
def test_an_extra_is_added_to_the_environment_that_runs(pip, uv, says, monkeypatch):
    monkeypatch.setattr(errors.importlib.util, "find_spec", lambda name: pip or None)
    monkeypatch.setattr(errors.shutil, "which", lambda name: "/usr/bin/uv" if uv else None)
    assert errors.install("web") == errors.missing("uvicorn").then == says.format(python=sys.executable)


def test_a_broken_core_is_exit_code_1(capsys, monkeypatch):
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.9.2")
    code, out, _ = run(capsys)
    assert code == 1 and "missing: python" in out


def test_the_cache_is_told_full_empty_and_unwritable(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("ULTRAFOLIO_CACHE", str(tmp_path / "deep" / "cache"))
    assert "the first use compiles" in next(doctor._cache()).found
    folder = tmp_path / "deep" / "cache"
    from ultrafolio.engine.load import cache_folder

    assert cache_folder().is_relative_to(folder)
    cache_folder().mkdir(parents=True)
    compiled_elsewhere = cache_folder() / "bfs.explore-306.py39.1.nbc"
    compiled_elsewhere.write_bytes(bytes(1_000_000))
    assert "the first use compiles" in next(doctor._cache()).found, "another interpreter's are of no use to this one"
    tag = f"py{sys.version_info[0]}{sys.version_info[1]}{sys.abiflags}"
    (cache_folder() / f"bfs.explore-306.{tag}.1.nbc").write_bytes(bytes(2_000_000))
    assert next(doctor._cache()).found.startswith("checker compiled, simulator not yet")
    monkeypatch.setattr(doctor.os, "access", lambda path, how: False)
    assert next(doctor._cache()).state == "missing"


def test_what_calibrate_needs_is_told_and_nothing_fails_without_it(capsys, monkeypatch):
    code, found = findings(capsys, "calibrate")
    names = {one["name"] for one in found if one["part"] == "calibrate"}
    assert names == {"Linux, 4 KiB pages", "two CPUs", "page flags", "folio counters", "large folios", "io_uring"}
    assert all(one["found"] for one in found) and code in (0, 1)

    def refused(*_):
        raise doctor.NotPossible("not here")

    monkeypatch.setattr(doctor.system, "libc", refused)
    code, found = findings(capsys, "calibrate")
    assert code == 1
    assert all(one["state"] == "missing" for one in found if one["name"] in ("page flags", "io_uring", "two CPUs"))


@pytest.mark.parametrize("flags", [{"ANON", "MMAP"}, {"ANON", "MMAP", "LRU"}])
def test_a_page_in_a_batch_is_told_like_a_page_on_the_list(monkeypatch, flags):
    """LRU comes and goes with the drains of other processes."""
    monkeypatch.setattr(doctor.system, "PageFlags", lambda: contextlib.nullcontext(SimpleNamespace(at=lambda _: flags)))
    assert doctor._page_flags() == "ANON MMAP read of a page"


def test_an_unknown_part_is_bad_input(capsys):
    code, out, err = run(capsys, "clutser")
    assert code == 2 and out == "" and "did you mean 'cluster'" in err
