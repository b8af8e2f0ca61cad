"""scenarios/textbook: forty files that are what their names say, with results that the checker gives."""

import random
import re
from dataclasses import replace
from pathlib import Path

from checking import ROOT
from test_observation import run
from ultrafolio.commands.map_page import LETTERS
from ultrafolio.commands.textbook_page import TESTS, file_text, readme, results
from ultrafolio.export.observation import word_of
from ultrafolio.model import kernels
from ultrafolio.names import grammar, short

FOLDER = ROOT / "scenarios" / "textbook"
README = (FOLDER / "README.md").read_text()


def kept(name):
    return short.read(FOLDER / f"{name}.uf")


def told():
    """The letters of the README by name."""
    rows = re.findall(r"^\| \[`(\S+)`\]\(\S+\) \| (.*) \|$", README, re.M)
    return {name: "".join(cells.split(" | ")) for name, cells in rows}


def test_there_are_forty_and_no_other_file():
    assert len(set(TESTS)) == 40
    assert sorted(file.name for file in FOLDER.iterdir()) == sorted(["README.md", *(f"{name}.uf" for name in TESTS)])


def test_each_file_is_what_its_name_says():
    for name in TESTS:
        made = kept(name)
        assert replace(made, expect={}) == grammar.scenario(grammar.read(name)), name
        assert list(made.expect) == kernels.names()
        text = (FOLDER / f"{name}.uf").read_text()
        assert text == file_text(name, made.expect) and len(text.splitlines()) <= 20


def test_the_readme_is_made_of_the_files():
    letters = told()
    assert list(letters) == list(TESTS) and readme(letters) == README
    for name, seen in letters.items():
        for letter, entry in zip(seen, kept(name).expect.values(), strict=True):
            kind = None if entry["kind"] == "null" else entry["kind"]
            words = {word_of(entry["verdict"], kind, expected) for expected in (False, True)}
            assert letter in {LETTERS[word] for word in words}, name


def test_the_results_are_those_of_the_checker(request):
    """Some files, drawn with a fixed seed; with --long all of them."""
    letters = told()
    some = TESTS if request.config.getoption("--long") else random.Random(20261129).sample(TESTS, 8)
    for name in some:
        assert results(name) == (kept(name).expect, letters[name])


def test_a_wrong_expectation_is_found(capsys, tmp_path):
    text = (FOLDER / "LPIN+neigh.uf").read_text()
    typed = ("--expect", "--policy", "linux-6.4")
    assert run(capsys, "check", FOLDER / "LPIN+neigh.uf", *typed)[0] == 0
    wrong = Path(tmp_path / "LPIN+neigh.uf")
    wrong.write_text(text.replace("expect linux-6.4 { verdict(violated)", "expect linux-6.4 { verdict(holds)"))
    assert wrong.read_text() != text and run(capsys, "check", wrong, *typed)[0] == 1


def test_some_are_broken_and_fixed():
    pairs = README.split("## Broken")[1]
    assert len(re.findall(r"^\| `", pairs, re.M)) > 10
