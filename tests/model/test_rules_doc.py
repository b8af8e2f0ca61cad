"""docs/rules.md is up to date, and has every rule, property and page state."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from ultrafolio.commands import rules as command
from ultrafolio.model.layout import EXPORTED, NON_SECURE, PAGE_STATES, PINNED_SHARED, SECURE, SHARED
from ultrafolio.model.properties import PROPERTIES
from ultrafolio.model.rule import RULES

PAGE = Path(__file__).parents[2] / "docs" / "rules.md"


def printed():
    return CliRunner().invoke(command.rules, [], catch_exceptions=False).output


def test_the_page_is_fresh():
    assert PAGE.read_text() == printed(), "run: ultrafolio rules > docs/rules.md"


def tables():
    """The tables of the page: a list of rows each, cells split."""
    found = re.findall(r"(?:^\|.*\n)+", PAGE.read_text(), re.M)
    return [[re.split(r"(?<!\\)\|", row)[1:-1] for row in table.strip().split("\n")] for table in found]


def test_tables_are_even():
    assert len(tables()) == 5
    for table in tables():
        assert len({len(row) for row in table}) == 1


def test_every_rule_and_property_is_there_in_order():
    rules, properties = tables()[:2]
    assert [row[1].strip(" `") for row in rules[2:]] == [RULES[pc].name for pc in sorted(RULES)]
    assert all(row[2].strip() and row[6].strip() for row in rules[2:])
    assert [row[1].strip() for row in properties[2:]] == list(PROPERTIES[1:])


CELLS = [
    ("import (host)", NON_SECURE, "SECURE"),
    ("import (host)", SECURE, "="),
    ("import (host)", EXPORTED, "SECURE (unchanged, secure when exported); SHARED (unchanged, shared when exported); "
     "integrity error (a byte changed)"),
    ("export (host)", PINNED_SHARED, "EXPORTED"),
    ("pin shared (host)", SECURE, "error"),
    ("unpin (host)", PINNED_SHARED, "SECURE"),
    ("unshare all and destroy (host)", EXPORTED, "NON_SECURE"),
    ("share (guest)", EXPORTED, "0x3e first"),
    ("unshare (guest)", SHARED, "SECURE"),
    ("unshare (guest)", PINNED_SHARED, "exit to the host"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "state", "said"), CELLS)
def test_the_calls_are_those_of_the_model(call, state, said):
    assert command.cell(call, state, command.OWNER) == said


def test_a_condition_that_does_not_matter_is_not_named():
    assert command.cell("import (host)", EXPORTED, command.OTHER) == "SECURE of that guest"
    moved = "error (no ownership transfer); SECURE of that guest (ownership transfer)"
    assert command.cell("import (host)", SHARED, command.OTHER) == moved


def test_the_diagram_reaches_every_state():
    lines = command._diagram()
    assert lines[:2] == ["stateDiagram-v2", "    [*] --> NON_SECURE"]
    edges = [re.fullmatch(r"    (\w+) --> (\w+): ([\w, ]+)", line) for line in lines[2:]]
    assert all(edges)
    assert {edge[1] for edge in edges} == {edge[2] for edge in edges} == set(PAGE_STATES)
    assert ("SHARED", "PINNED_SHARED", "pin shared") in {edge.groups() for edge in edges}
