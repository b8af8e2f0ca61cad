"""docs/map.md and its picture: made from the tables, and its answers are those of the checker."""

import random
import re
from pathlib import Path

import pytest

from ultrafolio.commands import map_page
from ultrafolio.commands.map_page import FAILS, LETTERS, MOST_WORDS, answers, document, lines, named
from ultrafolio.export.observation import WORDS
from ultrafolio.model import kernels, policies
from ultrafolio.names import grammar
from ultrafolio.report.answers import matrix

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "map.md").read_text()
PRESETS, KERNELS = list(policies.PRESETS), kernels.names()


def written(section):
    """The answers that a section's code block holds."""
    block = PAGE.split(f"## {section}")[1].split("```")[1]
    return dict(line.split() for line in block.strip().splitlines())


ASKED, BY_KERNEL = written("What was asked, and answered"), written("By kernel")


def test_the_page_is_made_of_its_answers():
    assert document(ASKED, BY_KERNEL) == PAGE, "python -m ultrafolio.commands.map_page > docs/map.md"


def test_the_page_asks_every_short_name_and_every_shipped_one():
    assert list(ASKED) == [str(name) for name in grammar.names(MOST_WORDS)]
    assert {len(letters) for letters in ASKED.values()} == {len(PRESETS)}
    assert {len(letters) for letters in BY_KERNEL.values()} == {len(KERNELS)}
    assert {str(name) for name in named()} <= set(BY_KERNEL)
    assert {str(name) for name in grammar.names(2)} <= set(BY_KERNEL)


def test_the_answers_are_those_of_the_checker(request):
    """Some names, drawn with a fixed seed; with --long all of them."""
    long, draw = request.config.getoption("--long"), random.Random(20261129)
    for found, chosen in ((ASKED, PRESETS), (BY_KERNEL, KERNELS)):
        some = list(found) if long else draw.sample(list(found), 12)
        assert answers(map(grammar.read, some), chosen) == {name: found[name] for name in some}


def test_each_word_of_the_line_has_a_letter():
    assert {*WORDS.values(), "Holds", "Expected", "Unknown"} == set(LETTERS) and set(LETTERS) > FAILS
    assert len(set(LETTERS.values())) == len(LETTERS)
    assert "?" not in "".join([*ASKED.values(), *BY_KERNEL.values()]), "an answer of the page is unknown"


def test_the_counts_are_those_of_the_lines():
    table = PAGE.split("## What was asked")[1].split("```")[0]
    for at, policy in enumerate(PRESETS):
        counts = [int(n) for n in re.search(rf"^\| `{policy}` \| (.*) \|$", table, re.M)[1].split(" | ")]
        assert counts == [sum(a[at] == letter for a in ASKED.values()) for letter in LETTERS.values()]
        assert sum(counts) == len(ASKED)


def test_a_pair_is_broken_and_then_fixed():
    rows = re.findall(r"^\| `(\S+)` \| `(\S+)` \| (\w+) \| `(\S+)` \| (\w+) \|$", PAGE.split("### Broken")[1], re.M)
    assert len(rows) > 5
    for name, broken, was, fixed, now in rows:
        at = KERNELS.index(broken)
        assert KERNELS[at + 1] == fixed and was in FAILS and now not in FAILS
        assert (LETTERS[was], LETTERS[now]) == (BY_KERNEL[name][at], BY_KERNEL[name][at + 1])


def test_a_changed_answer_changes_the_page():
    name = next(iter(ASKED))
    assert document(ASKED | {name: "H" * len(PRESETS)}, BY_KERNEL) != PAGE


def test_a_code_block_has_a_line_a_name():
    assert lines({"DIO+self": "..", "DIO+neigh": "H."}) == ["```", "DIO+self   ..", "DIO+neigh  H.", "```"]


def test_the_picture_is_that_of_the_answers(tmp_path):
    file = tmp_path / "map.png"
    map_page.picture({str(name): ASKED[str(name)] for name in grammar.names(2)}, file)
    assert file.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    kept = (ROOT / "docs" / "images" / "map.png").read_bytes()
    assert kept[:24] == file.read_bytes()[:24], "the picture has another size"


def test_the_picture_tells_each_word_apart():
    words = {"one": list(LETTERS), "two": ["Holds"] * len(LETTERS)}
    svg, _ = matrix(words, [f"p{n}" for n in range(len(LETTERS))], LETTERS, "a note")
    for word, letter in LETTERS.items():
        assert f">{letter}<" in svg and f"{letter} {word}" in svg
    assert matrix(words, ["p"] * len(LETTERS), LETTERS, "")[1] == matrix(words, ["p"] * len(LETTERS), LETTERS, "")[1]
    with pytest.raises(KeyError):
        matrix({"one": ["Maybe"]}, ["p"], LETTERS, "")
