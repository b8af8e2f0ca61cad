"""`trace show` reads every file of steps that ultrafolio writes, and refuses other files."""

import json

import pytest

from test_formats import run
from test_validate import SCENARIOS, engine, walked_stream  # noqa: F401  (engine is a fixture)
from ultrafolio import cli
from ultrafolio.commands import written
from ultrafolio.state import validate


def show(capsys, *words):
    code, out, err = run(capsys, "trace", "show", *words)
    return code, out.splitlines(), err


def test_a_counterexample(capsys, tmp_path):
    file = tmp_path / "c.json"
    run(capsys, "check", "03-virtio", "--policy", "whole-folio", "--save", file)
    code, lines, _ = show(capsys, file)
    assert code == 0 and lines[0] == f"{file}: counterexample" and lines[-1].endswith("page 1: FAULT")
    _, lines, _ = show(capsys, file, "--json")
    assert json.loads(lines[0])["policy"] == "whole-folio"
    assert [json.loads(line)["step"] for line in lines[1:]] == list(range(1, len(lines)))


def test_a_trace_of_a_run_and_one_that_is_cut(capsys, tmp_path):
    file = tmp_path / "steps.ndjson"
    run(capsys, "run", "--duration-us", "50", "--trace", file)
    code, lines, _ = show(capsys, file, "--json")
    count = len(file.read_text().splitlines())
    assert code == 0 and len(lines) == count > 10 and json.loads(lines[0])["kind"] == "trace of a run"
    assert json.loads(lines[1])["who"] in ("vcpu", "disk")
    assert len(show(capsys, file, "--first", "3", "--json")[1]) == 4
    file.write_text(file.read_text()[:-20])
    code, _, err = show(capsys, file)
    assert code == 2 and f"line {count} is damaged" in err
    file.write_text(file.read_text().replace('"version":1', '"version":9'))
    code, _, err = show(capsys, file)
    assert code == 2 and "another version" in err


def test_a_stream_of_a_cluster(engine, capsys, tmp_path):  # noqa: F811
    file = tmp_path / "run.stream"
    file.write_bytes(validate.saved([("g", walked_stream(engine, next(iter(SCENARIOS)), "per-page"))]))
    code, lines, _ = show(capsys, file, "--json")
    assert code == 0 and json.loads(lines[0])["kind"] == "stream of a cluster"
    assert any("outcome" in json.loads(line) for line in lines)


def test_the_report_of_a_defect(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def broken(*_, **__):
        raise ZeroDivisionError("a defect")

    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(cli.cli, "main", broken)
        cli.main(["check"])
    (file,) = tmp_path.glob("ultrafolio-defect-*.json")
    code, lines, _ = show(capsys, file)
    assert code == 0 and lines[0].endswith(": defect") and any("ZeroDivisionError" in line for line in lines)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff\xfe", b"{" * 50_000, b'{"format": "ultrafolio-trace"}'])
def test_any_other_file_is_refused_with_the_kinds_that_are_read(content, capsys, tmp_path):
    (tmp_path / "x").write_bytes(content)
    code, lines, err = show(capsys, tmp_path / "x")
    assert code == 2 and not lines and "trace import" in err
    assert all(kind in err for kind in written.KINDS)
