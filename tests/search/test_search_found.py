"""docs/search-found.md is what the search says, and the guide has its numbers."""

import re
from pathlib import Path

import pytest

from ultrafolio.commands.search_page import QUESTIONS, page, typed
from ultrafolio.search import space

ROOT = Path(__file__).parents[2]
FOUND = (ROOT / "docs/search-found.md").read_text()


def test_the_page_answers_its_questions():
    headings = re.findall(r"^## (.*)$", FOUND, re.MULTILINE)
    assert headings == [heading for heading, _ in QUESTIONS]
    for _, options in QUESTIONS:
        assert typed(options) in FOUND


def test_the_page_is_about_all_policies_of_s390():
    assert f"s390: {int(space.of('s390').distinct.sum())} policies, " in FOUND


def test_the_guide_has_the_numbers_of_policies():
    guide = (ROOT / "docs/search.md").read_text()
    for design in ("s390", "guest_memfd"):
        assert f"{int(space.of(design).distinct.sum()):,}" in guide


@pytest.mark.slow
def test_the_page_is_what_the_search_says(tmp_path):
    assert page(tmp_path) == FOUND
