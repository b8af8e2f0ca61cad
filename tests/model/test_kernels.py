"""Kernels as policies: every version has a preset, a fix can be added or taken away, and the rest is refused with the
reason. Each fix that the lab shows: its scenario fails without it, and holds with it."""

import itertools
import re

import pytest

from checking import PATHS, story
from ultrafolio.check.verdicts.verdict import check
from ultrafolio.errors import InputError
from ultrafolio.model import kernels
from ultrafolio.model.fixes import FIXES, order
from ultrafolio.model.policies import PRESETS, find, from_table
from ultrafolio.model.policy import VARIANTS

SHOWN = {row.commit: row for row in FIXES if row.shown_by and (row.without or row.having)}


def test_ranges_are_in_order_and_without_a_gap():
    bounds = [(order(k.first), order(k.last)) for k in kernels.KERNELS if k.last]
    assert all(first <= last for first, last in bounds)
    assert all(last < first for (_, last), (first, _) in itertools.pairwise(bounds))
    for version in ("5.7", "6.3", "6.4", "6.9", "6.10", "6.13", "6.14", "6.15", "6.16", "6.19", "7.0", "7.1", "7.2"):
        assert kernels.kernel_of(version)


@pytest.mark.parametrize(
    ("version", "name"), [("6.15", "6.14"), ("6.1.192", "5.7"), ("6.12.117", "6.10"), ("6.19", "6.16"), ("7.9", "7.2")]
)
def test_any_version_of_a_range_is_a_name_of_its_preset(version, name):
    assert find(f"linux-{version}") == find(f"linux-{name}")


def test_what_an_earlier_version_of_a_range_did_is_its_preset_without_a_fix():
    assert find("linux-6.17~d16a74f0f266").variants == ("gup-skips-failed-page",)
    assert find("linux-5.19~72b1daff2671").variants == ("gup-skips-failed-page", "import-without-export")
    assert find("linux-6.10~eef88fe45ac9~3f29f6537f54") == find("linux-6.9")
    for kernel in kernels.KERNELS:
        assert find(kernel.name) == find(f"linux-{kernel.newest}") == kernel.policy
        assert all(find(f"linux-{version}") == kernel.policy for version in kernel.each())


EACH = [(kernel, version) for kernel in kernels.KERNELS for version in kernel.each()]


@pytest.mark.parametrize(("kernel", "version"), EACH, ids=[version for _, version in EACH])
def test_every_fix_of_every_version_is_accepted_where_it_makes_sense(kernel, version):
    """From the table of fixes alone: who has a fix, lacks it or never needed it; and a change taken back is none."""
    start = find(f"linux-{version}")
    for row in FIXES:
        newest = order(kernel.newest)
        has = row.commit in kernel.carries or newest >= order(row.first_good)
        older = not has and bool(row.first_bad) and newest < order(row.first_bad)
        left_out = row.commit in dict(kernel.leaves)
        newer = [other for other in FIXES[FIXES.index(row) + 1 :] if newest >= order(other.first_good)]
        decided = {choice for other in newer for choice, _ in other.having}
        shown = bool({choice for choice, _ in (*row.without, *row.having)} - decided)
        for sign, other, sense in (("+", "~", not has and not older and not left_out), ("~", "+", has)):
            name = f"linux-{version}{sign}{row.commit}"
            if not (sense and shown):
                with pytest.raises(InputError, match="makes no difference"):
                    find(name)
                continue
            assert find(name) != start
            assert find(f"{name}{other}{row.commit}") == start
            with pytest.raises(InputError, match="the name"):
                find(f"{name}{sign}{row.commit}")


def test_the_order_of_changes_does_not_matter():
    for names in itertools.permutations(("+259e660d91d0", "+eef88fe45ac9", "+3f29f6537f54")):
        assert find("linux-6.3" + "".join(names)) == find("linux-6.11")
    assert find("linux-6.12~259e660d91d0~eef88fe45ac9") == find("linux-6.12~eef88fe45ac9~259e660d91d0")
    assert find("linux-6.12~259e660d91d0~eef88fe45ac9").large == "never"


def test_a_fix_more_and_a_fix_less():
    assert find("linux-6.14").after_split == "false-success"
    assert find("linux-6.14+3ec8a8330a1a").after_split == "retry"
    assert find("linux-7.1~42546fc642e9").variants == ("freeze-without-pte-lock",)
    assert find("linux-7.1~42546fc642e9~9a1dfbbd3506").variants == ("faultin-false-success", "freeze-without-pte-lock")
    assert find("linux-7.0+42546fc642e9+9a1dfbbd3506") == find("linux-7.1")
    assert find("linux-6.17~d16a74f0f266").variants == ("gup-skips-failed-page",)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("linux-7.1+42546fc642e9", "has this fix already"),
        ("linux-6.4+42546fc642e9", "never needed it"),
        ("linux-6.14~42546fc642e9", "never had the bug"),
        ("linux-7.0~42546fc642e9", "is without it as it is"),
        ("linux-7.1~123456789abc", "no fix of the lab"),
        ("linux-7.1~12345", "no commit"),
        ("linux-7.0+6ae67dcac742", "leaves its bug out"),
        ("linux-7.0~6ae67dcac742", "is without it as it is"),
        ("linux-6.14+3ec8a8330a1a+3ec8a8330a1a", "has this fix already, from an earlier"),
        ("linux-7.1~42546fc642e9~42546fc642e9", "without it already"),
        ("linux-6.17+d16a74f0f266", "itself is linux-6.17~d16a74f0f266"),
        ("linux-6.12~259e660d91d0", "a later fix"),
        ("linux-6.4+259e660d91d0", "last stable kernels"),
        ("linux-6.4+ab73b29efd36", "never needed it"),
        ("linux-5.25", "no kernel of the lab"),
        ("linux-7.0~f0a1a0615a6f", "never busy"),
        ("linux-4.4", "no kernel of the lab"),
        ("linux-six", "unknown kernel"),
        ("linux-7.1~", "unknown kernel"),
    ],
)
def test_what_makes_no_difference_is_refused_with_the_reason(name, why):
    with pytest.raises(InputError, match=why):
        find(name)


def test_a_policy_may_have_a_kernel_for_its_base_and_bugs_by_name():
    made = from_table({"base": "linux-7.1", "variants": ["faultin-false-success"]}, "mine")
    assert (made.import_lock, made.variants) == ("vm", ("faultin-false-success",))
    with pytest.raises(InputError, match="variants"):
        from_table({"variants": ["no-such-bug"]}, "mine")
    with pytest.raises(InputError, match="unknown policy"):
        from_table({"base": "mine.toml"}, "mine")


def test_every_variant_says_its_commits():
    for _, text in VARIANTS.values():
        assert "until" in text and re.search(r"\b[0-9a-f]{12}\b", text)


def kernel_before(row):
    """The first kernel with the fix; a stable one where only such has it."""
    found = next((k for k in kernels.KERNELS if kernels.stands(k.newest, row) == kernels.HAS), None)
    return found.name if found else ""


def test_at_least_ten_fixes_are_shown():
    assert len(SHOWN) >= 10
    asked = {"42546fc642e9", "9a1dfbbd3506", "d16a74f0f266", "6ae67dcac742", "72b1daff2671"}
    assert asked <= set(SHOWN)
    assert all(row.shown_by in PATHS for row in SHOWN.values())


@pytest.mark.parametrize("commit", SHOWN)
def test_a_fix_is_shown_by_its_scenario(commit):
    row = SHOWN[commit]
    kernel = kernel_before(row)
    made = story(row.shown_by)
    with_it = check(made, row.shown_by, find(kernel), kernel)
    without = check(made, row.shown_by, find(f"{kernel}~{commit}"), f"{kernel}~{commit}")
    assert without.verdict == "violated"
    expected = "violated" if commit == "259e660d91d0" else "holds"
    assert with_it.verdict == expected, "259e660d91d0 turns an endless import into a refusal"


def test_the_ideas_keep_their_names():
    assert list(PRESETS) == [
        "per-page",
        "whole-folio",
        "whole-folio-literal",
        "refuse-large",
        "split",
        "split-false-success",
        "split-writeback",
        "import-lock",
        "folio-bitmap",
        "folio-bitmap-pins",
    ]
