"""The page of a search has every fact of its record; what is in a folder that cannot be shown is an error."""

import copy
import html
import json
import re

import pytest
from click.testing import CliRunner

import ultrafolio as uf
from browser import NEEDED, chromium, tab  # noqa: F401 (fixtures)
from test_report_page import Reader
from ultrafolio.cli import cli
from ultrafolio.errors import InputError
from ultrafolio.report import searched
from ultrafolio.search import files

FILES = ("g07-own-batch", "g42-never-delegated", "g38-removal-fails")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("search")
    uf.search(*FILES, start="gmem-7.4", out=out, workers=0)
    return out


@pytest.fixture(scope="module")
def record(folder):
    return files.read_answer(folder)


def typed(*words):
    result = CliRunner().invoke(cli, ["report", *map(str, words)], standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.output


def plain(page):
    """The text of a page, without tags and with single blanks."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page.partition("<main>")[2])).split())


def rows(page, name):
    """The cells of a table, row by row."""
    table = re.search(rf'<table id="{name}".*?<tbody>(.*?)</tbody>', page, re.DOTALL)[1]
    return [[html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)]
            for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)]  # fmt: skip


def test_the_report_has_text_page_and_json(folder, record):
    said = typed(folder)
    assert str(uf.search(*FILES, start="gmem-7.4", workers=0)) in said
    assert f"report   {folder / 'report.html'}" in said
    assert json.loads(typed(folder, "--json")) == record
    before = (folder / "report.html").read_text()
    assert before == searched.page(folder, record)
    typed(folder, "-o", folder / "again.html")
    assert (folder / "again.html").read_text() == before


def test_the_page_has_every_fact_of_the_record(folder, record):
    page = searched.page(folder, record)
    text = plain(page)
    assert "Every policy fails 1 of 3 scenarios. Of 5,760 policies 3,960 pass the other 2." in text
    assert "gmem-7.4 passes all else after: convert=two-backings; or stuck=kept." in text
    assert [row[0] for row in rows(page, "nobody-rows")] == [one["scenario"] for one in record["nobody_passes"]]
    heads = re.search(r'id="pass-rows".*?<thead>(.*?)</thead>', page, re.DOTALL)[1]
    names = re.findall(r'<th scope="col">(.*?)</th>', heads)
    shown = [dict(zip(names, row, strict=True)) for row in rows(page, "pass-rows")]
    for row, one in zip(shown, record["front"][0]["rows"], strict=True):
        said = {name: value.split(" | ") for name, value in row.items() if name != "policies" and value != "any"}
        assert said == {name: list(map(str, values)) for name, values in one["choices"].items()}
        assert row["policies"] == f"{one['policies']:,}"
    assert rows(page, "change-rows") == [
        ["g38-removal-fails", "convert=two-backings; or stuck=kept"],
        ["all of them", "convert=two-backings; or stuck=kept"],
    ]
    cores = rows(page, "core-rows")
    assert len(cores) == sum(len(core["fails"]) for core in record["cores"])
    core = ["convert=in-place stuck=ignored", "1,440", "g38-removal-fails", "1,440", "Unsafe property17:user0@0"]
    assert core in cores


def test_each_failure_has_its_story_and_its_command(folder, record):
    text = plain(searched.page(folder, record))
    fails = [*record["nobody_passes"], *(one for core in record["cores"] for one in core["fails"])]
    assert len(fails) > 2
    for one in fails:
        assert one["told"][0].startswith("The property ")
        assert " ".join(one["told"]) + " " + one["command"] in text


def test_the_page_needs_nothing_from_outside_and_says_how_to_make_it_again(folder, record):
    page = searched.page(folder, record)
    reader = Reader(page)
    assert not {tag for tag, _ in reader.tags} & {"script", "link", "img", "iframe", "object", "base", "image"}
    assert all(link.startswith("#") for link in reader.values("href", "src"))
    ids = list(reader.values("id"))
    assert len(ids) == len(set(ids))
    again = html.unescape(re.search(r'<pre class="again"[^>]*>(.*?)</pre>', page, re.DOTALL)[1]).splitlines()
    assert again == [
        f"ultrafolio search {' '.join(FILES)} --from gmem-7.4 --out {folder}", f"ultrafolio report {folder}",
    ]  # fmt: skip


def test_what_the_record_holds_cannot_become_markup(folder, record):
    evil = "<script>alert(1)</script>"

    def spoiled(value):
        if isinstance(value, dict):
            return {name: spoiled(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [spoiled(inner) for inner in value]
        return value + evil if isinstance(value, str) else value

    page = searched.page(folder, spoiled(copy.deepcopy(record)))
    assert html.escape(evil) in page and "<script" not in page


def test_runs_of_the_policies_that_pass(folder, record):
    front = [{"policies": 2, "measures": {"touches_per_ms": 12.5, "uv_ns_per_touch": 3.0}, "rows": [
        {"policies": 2, "choices": {"drain": ["none"]}}]}]  # fmt: skip
    swept = {"plan": "survivors", "cells": 24, "failed_in_runs": ["gmem-7.4"], "front": front}
    page = searched.page(folder, record | {"sweep": swept})
    assert rows(page, "run-rows") == [["2", "12.5", "3", "drain=none"]]
    text = plain(page)
    assert "24 runs of survivors." in text and "1 policy hung or broke a property in a run, and was" in text
    assert "--sweep survivors --out" in text
    assert "run-rows" not in searched.page(folder, record)


def test_no_policy_that_passes(folder, record):
    front = [{"fails": ["a", "b"], "policies": 3, "rows": [{"policies": 3, "choices": {"drain": ["none"]}}]},
             {"fails": ["c"], "policies": 1, "rows": [{"policies": 1, "choices": {}}]}]  # fmt: skip
    page = searched.page(folder, record | {"survivors": 0, "front": front, "cores": []})
    text = plain(page)
    assert "No policy passes the other 2; the least that one fails: a, b." in text
    assert "Policies that fail c, and nothing else." in text
    assert rows(page, "front-0") == [["3", "none"]]
    assert "core-rows" not in page


def test_a_policy_without_a_name_leaves_out_the_command(folder):
    own = uf.search(*FILES[:1], start=uf.Policy.of("gmem-7.4", stuck="kept"), workers=0)
    page = searched.page(folder, own.record)
    again = re.search(r'<pre class="again"[^>]*>(.*?)</pre>', page, re.DOTALL)[1]
    assert again == f"ultrafolio report {folder}"


def test_a_table_has_a_bound(folder, record, monkeypatch):
    monkeypatch.setattr(searched, "MOST_ROWS", 1)
    page = searched.page(folder, record)
    assert len(rows(page, "pass-rows")) == 1
    assert f"{len(record['front'][0]['rows']) - 1} more row" in plain(page)


def test_a_folder_without_an_answer_is_an_error(tmp_path, folder, monkeypatch):
    with pytest.raises(InputError, match="not a store"):
        typed(tmp_path)
    (tmp_path / files.STORES).mkdir()
    with pytest.raises(InputError, match="it is not there"):
        typed(tmp_path)
    (tmp_path / files.STORES).rmdir()
    (tmp_path / f"{FILES[0]}.search").write_bytes((folder / f"{FILES[0]}.search").read_bytes())
    with pytest.raises(InputError, match="it is not there"):
        typed(tmp_path)
    whole = (folder / files.ANSWER).read_bytes()
    for raw in (whole[:-1], whole[:60] + b"x" + whole[61:], b"{}", b"\0" * 99):
        (tmp_path / files.ANSWER).write_bytes(raw)
        with pytest.raises(InputError, match="damaged"):
            typed(tmp_path)
    monkeypatch.setattr(files, "VERSION", 2)
    files.write_answer(tmp_path, {"left": []})
    monkeypatch.undo()
    with pytest.raises(InputError, match="another version"):
        typed(tmp_path)


@NEEDED
def test_the_page_in_a_browser(folder, record, tab, tmp_path):  # noqa: F811 (fixture)
    page = tmp_path / "page.html"
    page.write_text(searched.page(folder, record))
    tab.goto(page.as_uri())
    story = tab.locator("details").first
    assert not story.locator("p").first.is_visible()
    story.locator("summary").click()
    assert story.locator("p").first.is_visible()
    for width in (1200, 390):
        tab.set_viewport_size({"width": width, "height": 800})
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
