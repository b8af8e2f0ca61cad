"""The short form: what it says is what the TOML form says, and a damaged one is refused at its line."""

import random
from dataclasses import replace

import pytest

from checking import PATHS, story
from drawn_cases import fitting
from mutations import mutated
from test_observation import run
from ultrafolio.errors import InputError
from ultrafolio.model.scenario import parse
from ultrafolio.names import grammar, short


def again(one):
    return parse(short.document(short.write(one), "again"), "again")


@pytest.mark.parametrize("name", PATHS)
def test_a_shipped_scenario_comes_back_whole(name):
    assert again(story(name)) == story(name)


def test_every_short_name_comes_back_in_few_lines():
    for name in grammar.names(3):
        made = grammar.scenario(name)
        assert again(made) == made and len(short.write(made).splitlines()) <= 6


def test_random_systems_come_back():
    for number in range(200):
        told = parse(fitting(number, lambda _: True)[0].document, "drawn")
        assert again(told) == told, number


TITLES = [
    "",
    " ",
    "a",
    '"quoted"',
    "a  b",
    "tab\there",
    "line\nbreak",
    "ünïcode",
    "UF UF",
    "# no comment",
    "{ }",
    "a\\b",
]


@pytest.mark.parametrize("title", TITLES)
def test_every_title_comes_back(title):
    one = replace(story("03-virtio"), title=title)
    assert again(one) == one


def test_words_that_look_like_something_else_come_back():
    for word in ("true", "false", "12", "-1", "", "a b", 'a"b', "a,b", "a);", "}", "null", "ü"):
        one = replace(story("03-virtio"), expect={word: {"verdict": word, "depth": 3, "kind": "x"}})
        assert again(one) == one, word


@pytest.mark.parametrize("number", [0, -1, 10**9, -(10**10), 2**70])
def test_every_integer_comes_back(number):
    one = replace(story("03-virtio"), expect={"split": {"states": number}})
    assert again(one) == one


@pytest.mark.parametrize("entry", [{"states": [1]}, {"a b": 1}, {"states": 1.5}, {"A": 1}], ids=str)
def test_an_expectation_that_the_form_lacks_is_refused(entry):
    with pytest.raises(InputError):
        short.write(replace(story("03-virtio"), expect={"split": entry}))


WRONG = [
    "", "memory { folios(1); }", "UF", "UF a\nmemory", "UF a\nmemory { folios(1) }", "UF a\nmemory { folios 1; }",
    "UF a\nmemory { folios(1); }\nmemory { folios(1); }", "UF a\nmemory x { folios(1); }", "UF a\nexpect { depth(1); }",
    "UF a\nnobody { }", "UF a\nvcpu { cpu(1, 2); }", "UF a\nvcpu { cpu(); }", "UF a\nvcpu { cpu(1); cpu(1); }",
    'UF a\nexpect "x { depth(1); }', 'UF "a\nvcpu { }', 'UF a\nexpect "\\x" { depth(1); }', "UF a\nvcpu { } x",
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_short_form_is_refused(text):
    with pytest.raises(InputError) as refused:
        parse(short.document(text, "it"), "it")
    assert refused.value.allowed


def test_mutations_are_refused_or_read(tmp_path):
    """A damaged file is refused with a message, or is a scenario that comes back."""
    draw, file = random.Random(20261129), tmp_path / "it.uf"
    files = [short.write(story(name)).encode() for name in ("03-virtio", "36-patience", "33-bounce-pool-unaligned")]
    fates = {"refused": 0, "read": 0}
    for _ in range(1500):
        file.write_bytes(mutated(draw, draw.choice(files), draw.choice(files)))
        try:
            made = short.read(file)
        except InputError:
            fates["refused"] += 1
            continue
        fates["read"] += 1
        assert again(made) == made
    assert min(fates.values()) > 50, fates


def test_commands_read_and_write_it(capsys, tmp_path):
    file = tmp_path / "LPIN+neigh.uf"
    file.write_text(run(capsys, "scenario", "LPIN+neigh", "--short")[1])
    assert short.read(file) == grammar.scenario(grammar.read("LPIN+neigh"))
    by_file, by_name = (
        run(capsys, "check", word, "--policy", "whole-folio", "--brief") for word in (file, "LPIN+neigh")
    )
    assert by_file == by_name and by_file[0] == 1 and by_file[1].startswith("Observation LPIN+neigh whole-folio Hangs")
    assert run(capsys, "scenario", PATHS["36-patience"], "--short")[1] == short.write(story("36-patience"))
    code, _, err = run(capsys, "check", tmp_path / "none.uf", "--policy", "split")
    assert code == 2 and "none.uf: no such file" in err
    file.write_text("UF a\nnobody { }\n")
    code, _, err = run(capsys, "check", file, "--policy", "split")
    assert code == 2 and "LPIN+neigh.uf, line 2" in err and "Traceback" not in err
    for wrong in (["--short"], ["LPIN+neigh", "--short", "--json"], ["--words", "--short"]):
        assert run(capsys, "scenario", *wrong)[0] == 2


def test_a_large_file_is_refused(tmp_path):
    file = tmp_path / "it.uf"
    file.write_text(short.write(story("03-virtio")) + "#" * short.MOST_BYTES)
    with pytest.raises(InputError, match="too large"):
        short.read(file)
