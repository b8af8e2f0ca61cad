"""docs/search-found.md is what the search says, and the guide has its numbers."""

import re
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner

from ultrafolio.cli import cli
from ultrafolio.commands.search_page import QUESTIONS, page, typed
from ultrafolio.model.policies import find
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


def test_the_readme_says_what_the_page_says():
    readme = (ROOT / "README.md").read_text()
    told = " ".join(re.search(r"\*\*What the search found\*\*.*?\n\n", readme, re.DOTALL)[0].split())
    _, *split = re.split(r"^## (.*)$", FOUND, flags=re.MULTILINE)
    parts = dict(zip(split[::2], split[1::2], strict=True))
    s390, memfd = parts["s390"], parts["guest_memfd, each scenario on its own machine"]
    for design, part in (("s390", s390), ("guest_memfd", memfd)):
        searched, passing = (
            re.search(rf"^{design}: (\d+) policies", part, re.MULTILINE)[1],
            re.search(r"^(\d+) policies pass all else", part, re.MULTILINE)[1],
        )
        assert f"of {int(searched):,} policies {passing} pass" in told
    assert len(re.findall(r"^  \d\d-.*: ", s390.partition("pass all else")[0], re.MULTILINE)) == 12
    assert len(re.findall(r"^  g\d\d-.*: ", memfd.partition("pass all else")[0], re.MULTILINE)) == 3
    assert "`refs=page large=direct unmap=page`" in told and "all of them: refs=page large=direct unmap=page\n" in s390
    assert "`retries=1 stuck=kept`" in told and "all of them: convert=two-backings; or retries=1 stuck=kept\n" in memfd
    assert "refs=folio (69984)" in s390, "with one count a folio none passes"


def test_the_survivor_of_the_readme_is_among_those_that_no_other_one_beats():
    values, row = asdict(find("per-page,on_busy=sleep")), FOUND.partition("no other one beats:")[2].splitlines()[2]
    assert all(values[name] in said.split("|") for name, said in re.findall(r"(\w+)=(\S+)", row))


@pytest.mark.slow
def test_the_survivor_of_the_readme_is_proved():
    told = CliRunner().invoke(cli, ["prove", "--policy", "per-page,on_busy=sleep"]).output
    assert re.findall(r"^ +(\d+) .* proved$", told, re.MULTILINE) == [str(n) for n in range(1, 10)]


@pytest.mark.slow
def test_the_page_is_what_the_search_says(tmp_path):
    assert page(tmp_path) == FOUND
