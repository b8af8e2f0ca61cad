"""The library's calls: results, errors, and types of the installed package."""

import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import ultrafolio as uf
from ultrafolio.api.page import page as api_page

ROOT = Path(__file__).parents[2]
HANGS = """
title = "a pin beside a touch"
[memory]
folios = [1]
state = ["shared", "secure"]
[[virtio]]
page = 0
[[vcpu]]
touch = [1]
"""


def test_a_name_and_an_object_give_the_same():
    by_name = uf.check("03-virtio", policy="whole-folio")
    by_object = uf.check(uf.Scenario.find("03-virtio"), policy=uf.Policy.find("whole-folio"))
    assert by_name.record() == by_object.record() and by_name.verdict == "violated"


def test_what_no_command_gives_again_names_none(tmp_path):
    made = uf.check(uf.Scenario.parse(HANGS, "mine"), policy="whole-folio")
    assert made.verdict == "violated" and made.record()["reproduce"] is None
    own = uf.Policy.of("whole-folio", refs="page")
    assert uf.check("03-virtio", policy=own).record()["reproduce"] is None
    (tmp_path / "mine.toml").write_text(HANGS)
    named = uf.check(tmp_path / "mine.toml", policy="whole-folio").record()["reproduce"]
    assert str(tmp_path / "mine.toml") in named and "--policy whole-folio" in named


def test_a_result_is_a_table():
    result = uf.check("03-virtio", policy="whole-folio")
    table = result.table()
    assert table.num_rows == len(result.findings) and "held_by" in table.column_names
    assert "<table>" in result._repr_html_() and "violated" in result._repr_html_()
    assert [policy.name for policy in uf.policies()][:2] == ["per-page", "whole-folio"]
    assert uf.policies("split").table().to_pylist()[0]["large"] == "split"


def test_run_takes_a_scenario_a_plan_or_neither():
    assert uf.run("03-virtio", policy="whole-folio").hung
    assert not uf.run("03-virtio", policy="per-page").hung
    assert uf.run("seed", workload="virtio", order=1, duration_us=500).measures["events"] > 0
    own = uf.run(policy=uf.Policy.of("split", refs="page"), rings=1, duration_us=500)
    assert own.measures["events"] > 0 and own.table().num_rows == 1


def test_a_sweep_and_its_table(tmp_path):
    plan = tmp_path / "small.toml"
    plan.write_text('[fixed]\nduration_us = 200\n[grid]\npolicy = ["per-page", "split"]\nseed = "1-2"\n')
    done = uf.sweep(plan, tmp_path / "store", workers=0)
    assert done.summary.computed == 4 and done.table().num_rows == 4
    assert uf.sweep(plan, tmp_path / "store", workers=0).summary.stored == 4
    assert uf.sweep(plan, tmp_path / "store", workers=0, rerun="all").summary.computed == 4
    with pytest.raises(uf.InputError) as caught:
        uf.sweep(plan, tmp_path / "part", workers=0, limit=2).table()
    assert "2 cells" in str(caught.value)


def test_a_search_and_its_tables():
    found = uf.search("g38-removal-fails", require=["drain=once", "retries=1"], start="gmem-7.4,drain=once,retries=1",
                      workers=0)  # fmt: skip
    assert found.policies == 1440 and found.code == 0
    assert found.survivors == 1080
    rows = found.table().to_pylist()
    assert [(row["fails"], row["policies"]) for row in rows] == [("", 720), ("", 720)]
    assert {row["stuck"] for row in rows} == {"kept", "any"}
    assert "1440 policies, 1 scenario, 1080 survivors" in found._repr_html_()
    assert str(found).startswith("guest_memfd: 1440 policies with drain=once retries=1")
    assert uf.search("g42-never-delegated", workers=0).code == 1


def test_a_search_of_what_no_command_finds(tmp_path):
    made = uf.Scenario.parse(HANGS, "mine")
    found = uf.search(made, require=["large=direct", "unmap=page", "accessible=page"], workers=0)
    assert found.record["command"] == "" and {
        one["command"] for core in found.record["cores"] for one in core["fails"]
    } == {""}
    (tmp_path / "mine.toml").write_text(HANGS)
    named = uf.search(tmp_path / "mine.toml", require=["large=direct", "unmap=page", "accessible=page"], workers=0)
    assert named.record["scenarios"] == ["mine"]
    for one in (one for core in named.record["cores"] for one in core["fails"]):
        assert one["command"].startswith(f"ultrafolio check {tmp_path / 'mine.toml'} --policy ")


def test_a_walk():
    start = uf.explore("03-virtio", policy="whole-folio")
    there = start.goto("counterexample")
    assert start.path == "" and there.back().path == there.path.rpartition(".")[0]
    assert start.step(0).path == "0" and {row["actor"] for row in start.rows()} == {"vcpu 0", "virtio 1"}
    assert uf.explore("03-virtio", policy="whole-folio", path=there.path).record() == there.record()


@pytest.mark.parametrize(
    "misuse",
    [
        lambda: uf.check(3, policy="split"),
        lambda: uf.check("no-such", policy="split"),
        lambda: uf.check("03-virtio", policy=3),
        lambda: uf.check("03-virtio", policy="splt"),
        lambda: uf.check("03-virtio", policy="split", threads=0),
        lambda: uf.check("03-virtio", policy="split", max_states="9"),
        lambda: uf.run(ring=1),
        lambda: uf.run(3),
        lambda: uf.run("03-virtio", rings=2),
        lambda: uf.run("seed"),
        lambda: uf.run(policy=uf.Policy.of("split"), order=99),
        lambda: uf.sweep(3),
        lambda: uf.sweep("seed", workers=-1),
        lambda: uf.sweep("seed", limit=0),
        lambda: uf.sweep("seed", rerun="some"),
        lambda: uf.search(3),
        lambda: uf.search("g07-own-batch", design="arm"),
        lambda: uf.search("g07-own-batch", "g07-own-batch"),
        lambda: uf.search("g07-own-batch", require="drain=none"),
        lambda: uf.search("g07-own-batch", workers=-1),
        lambda: uf.search("g07-own-batch", max_states=0),
        lambda: uf.search("g07-own-batch", machine="tdy"),
        lambda: uf.search("g07-own-batch", start=3),
        lambda: uf.search("g07-own-batch", sweep="survivors"),
        lambda: uf.explore("03-virtio", policy="split", path="9.9"),
        lambda: uf.explore("03-virtio", policy="split").back(),
        lambda: uf.explore("03-virtio", policy="split").step("a"),
        lambda: uf.explore("03-virtio", policy="split").goto("]"),
        lambda: uf.explore("03-virtio", policy="per-page").goto("counterexample"),
        lambda: uf.Policy.of("nobody"),
        lambda: uf.Policy.of("split", refs="folios"),
        lambda: uf.Policy.of("split", colour=1),
        lambda: uf.policies("x"),
        lambda: uf.Scenario.parse("[memory"),
        lambda: uf.Scenario.parse(3),
        lambda: uf.Scenario.parse("title = 1"),
    ],
    ids=range(36),
)
def test_misuse_is_an_input_error(misuse):
    with pytest.raises(uf.InputError) as caught:
        misuse()
    assert caught.value.what


def test_the_examples_in_the_docstrings():
    for name in ("all_policies", "calls", "named"):
        found = doctest.testmod(importlib.import_module(f"ultrafolio.api.{name}"), extraglobs={"uf": uf})
        assert found.attempted and not found.failed, name


def test_the_page_is_fresh_and_its_examples_are_right():
    page = ROOT / "docs/api.md"
    assert page.read_text() == api_page(), "run: python -m ultrafolio.api.page > docs/api.md"
    found = doctest.testfile(str(page), module_relative=False)
    assert found.attempted >= 13 and not found.failed
    assert all(f"### uf.{name}" in page.read_text() for name in uf.CALLS)


def test_a_call_is_a_call_whatever_was_imported_before():
    code = "import ultrafolio.check.verdicts, ultrafolio.sweep.plan, ultrafolio as uf; print(uf.check, uf.sweep)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert said.count("<function") == 2


def test_the_package_is_typed(tmp_path):
    (tmp_path / "use.py").write_text(
        "import ultrafolio as uf\n"
        "result: uf.Result = uf.check('03-virtio', policy='split')\n"
        "worst: uf.Finding = result.worst\n"
        "names: list[str] = [policy.name for policy in uf.policies()]\n"
        "wrong: int = uf.check('03-virtio', policy='split').verdict\n"
    )
    said = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "use.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    assert "use.py:5: error" in said and said.count("error:") == 1, said
    assert (Path(uf.__file__).parent / "py.typed").is_file()
