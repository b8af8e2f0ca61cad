"""The table of kernel fixes: well-formed rows, lookups that refuse what they do not know, a page that is up to date."""

import re
from pathlib import Path

import pytest

from ultrafolio.commands.fixes_page import document
from ultrafolio.errors import InputError
from ultrafolio.model.complaints import COMPLAINTS
from ultrafolio.model.fixes import FIXES, fix, order, standing

PAGE = Path(__file__).parents[2] / "docs" / "kernel-fixes.md"
COMMITS = [commit for row in FIXES for commit in (row.commit, *row.also)]
BY_COMMIT = pytest.mark.parametrize("row", FIXES, ids=[row.commit for row in FIXES])
EVERY = pytest.mark.parametrize("row", [*FIXES, *COMPLAINTS])


def test_the_page_is_fresh():
    assert PAGE.read_text() == document(), "run: python -m ultrafolio.commands.fixes_page > docs/kernel-fixes.md"


def test_the_page_has_every_row_and_even_tables():
    text = document()
    tables = [table.strip().split("\n") for table in re.findall(r"(?:^\|.*\n)+", text, re.M)]
    assert [len(table) - 2 for table in tables] == [len(FIXES), len(COMPLAINTS)]
    for table in tables:
        assert len({len(re.split(r"(?<!\\)\|", line)) for line in table}) == 1
    assert [commit for commit in COMMITS if f"`{commit}`" not in text] == []


@pytest.mark.parametrize("commit", COMMITS)
def test_a_commit_is_twelve_hex_digits(commit):
    assert re.fullmatch("[0-9a-f]{12}", commit)


def test_a_commit_is_there_once_and_seven_digits_tell_it():
    assert len({commit[:7] for commit in COMMITS}) == len(COMMITS)


@BY_COMMIT
def test_versions_are_in_order(row):
    assert not row.first_bad or order(row.first_bad) < order(row.first_good)
    for release in row.stable:
        assert re.fullmatch(r"\d+\.\d+\.(\d+|y)", release)
        assert order(release.removesuffix(".y")) < order(row.first_good)


@EVERY
def test_a_row_is_shown_or_says_why_not(row):
    assert bool(row.shown_by) != bool(row.why_not)
    assert bool(row.shows) == bool(row.shown_by)
    for stem in filter(None, [row.shown_by]):
        assert re.fullmatch("[0-9]{2}(-[a-z]+)+", stem)


@BY_COMMIT
def test_a_shown_fix_names_what_a_kernel_without_it_does(row):
    assert row.without or not row.shown_by or row.commit == "98c6d259319e", "its scenario has policies of its own"
    assert {field for field, _ in row.having} >= {field for field, _ in row.without if field != "variants"}
    assert set(row.having).isdisjoint(row.without)


def test_at_least_ten_are_shown_these_among_them():
    shown = {row.commit for row in FIXES if row.shown_by}
    assert len(shown) >= 10
    assert shown >= {"42546fc642e9", "9a1dfbbd3506", "d16a74f0f266", "6ae67dcac742", "72b1daff2671"}


@BY_COMMIT
def test_a_commit_is_found_by_any_length(row):
    for commit in (row.commit, *row.also):
        assert fix(commit[:7]) is fix(commit) is fix(commit + "0" * 28) is row


@pytest.mark.parametrize("prefix", ["", "42546f", "42546FC642E9", "v6.14", "42546fc642e9 ", "g" * 12, "0" * 41])
def test_what_is_no_commit_is_refused(prefix):
    with pytest.raises(InputError, match="no commit") as error:
        fix(prefix)
    assert "7 to 40" in error.value.allowed


def test_an_unknown_commit_is_refused_with_the_nearest():
    with pytest.raises(InputError) as error:
        fix("42546fc642e0")
    assert error.value.value == "42546fc642e0"
    assert "'42546fc642e9'" in error.value.cause
    assert all(commit in error.value.allowed for commit in COMMITS)


def test_versions_compare_as_numbers():
    names = ["5.16", "6.2", "6.10", "6.14-rc1", "6.14-rc12", "6.14", "6.14.2", "6.14.10", "6.15", "7.0-rc1", "7.0"]
    assert sorted(reversed(names), key=order) == names


@pytest.mark.parametrize("version", ["", "6", "6.14.", "6.14-rc", "6.14-rc1.2", "v6.14", "6.12.y", "linux-6.14"])
def test_what_is_no_version_is_refused(version):
    with pytest.raises(InputError, match="no kernel version"):
        order(version)


STANDINGS = [
    ("42546fc642e9", "6.19", "is older than the bug"),
    ("42546fc642e9", "7.0", "has the bug"),
    ("42546fc642e9", "7.1", "has the fix"),
    ("d8dfda5af0be", "6.14", "has the fix"),
    ("d8dfda5af0be", "6.14-rc6", "has the bug"),
    ("d16a74f0f266", "5.7", "has the bug"),
    ("d16a74f0f266", "6.18", "has the fix"),
]


@pytest.mark.parametrize(("commit", "version", "said"), STANDINGS)
def test_how_a_version_stands_to_a_fix(commit, version, said):
    assert standing(fix(commit), version) == said
