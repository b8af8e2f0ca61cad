"""KTAP, as the kernel writes it, and as the kernel's own parser reads it where its source is at hand."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from checking import PATHS, checked, story
from judged import TREES
from ultrafolio.check.verdicts.verdict import Extent, check
from ultrafolio.cli import main
from ultrafolio.export.ktap import Reported, ktap
from ultrafolio.model.policies import PRESETS, find

PARSERS = [tree / "tools/testing/kunit" for tree in TREES]
RESULT = re.compile(r"( *)(ok|not ok) (\d+) ([^#]*?)(?: # (SKIP|XFAIL) (.*)| # (SKIP))?")


def reported(name, policy, differs=(), result=None):
    return Reported(result or checked(name, policy), name, f"Observation {name}", differs)


def stopped():
    return check(story("03-virtio"), "03-virtio", find("split"), "split", Extent(max_states=5))


MIXED = [
    reported("03-virtio", "split"), reported("03-virtio", "whole-folio"),
    reported("03-virtio", "per-page", ["edges is 15, expected 16"]), reported("03-virtio", "refuse-large", None),
    reported("03-virtio", "split", result=stopped()), reported("01-direct-io", "split", None),
    replace(reported("57-taken-away-again", "whole-folio"), name="a # sharp"),
]  # fmt: skip


def printed(capsys, *words):
    with pytest.raises(SystemExit) as left:
        main(["check", *map(str, words), "--format", "ktap"])
    return int(left.value.code or 0), capsys.readouterr().out


def test_each_result_is_ok_where_its_verdict_is_the_expected_one():
    found = [match.groups() for line in ktap(MIXED).split("\n") if (match := RESULT.fullmatch(line))]
    assert [(indent, word, name, skip or mark) for indent, word, _, name, mark, _, skip in found] == [
        ("  ", "ok", "split", None),
        ("  ", "ok", "whole-folio", "XFAIL"),
        ("  ", "not ok", "per-page", None),
        ("  ", "not ok", "refuse-large", None),
        ("  ", "ok", "split", "SKIP"),
        ("", "not ok", "03-virtio", None),
        ("  ", "ok", "split", None),
        ("", "ok", "01-direct-io", None),
        ("  ", "ok", "whole-folio", "XFAIL"),
        ("", "ok", "a : sharp", None),
    ]


def test_lines_have_the_form_of_the_document_and_stand_in_its_order():
    """A version line, the subtest's name, the plan; diagnostics before the result that they belong to."""
    lines = ktap(MIXED).split("\n")
    assert lines[:5] == ["KTAP version 1", "1..3", "  KTAP version 1", "  # Subtest: 03-virtio", "  1..5"]
    for line in lines:
        assert re.fullmatch(r" *(KTAP version 1|1\.\.\d+|# .*)", line) or RESULT.fullmatch(line), line
    for number, line in enumerate(lines):
        if line.startswith("  # ") and "Subtest" not in line:
            assert re.match(r"  (# |ok |not ok )", lines[number + 1]), "a diagnosis without its result"
    assert "  # edges is 15, expected 16" in lines


def test_a_scenario_of_which_nothing_was_explored_to_its_end_is_skipped():
    assert ktap([reported("03-virtio", "split", result=stopped())]).endswith("\nok 1 03-virtio # SKIP")


def test_every_shipped_scenario_is_as_its_file_expects(capsys):
    few = [PATHS[name] for name in ("03-virtio", "08-unshare-under-pin", "57-taken-away-again")]
    code, out = printed(capsys, *few)
    assert (
        code == 1
        and "not ok" not in out
        and out.count("XFAIL")
        == sum(story(file.stem).expect[policy]["verdict"] == "violated" for file in few for policy in PRESETS)
    )


def test_a_wrong_expectation_is_not_ok(capsys, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(PATHS["03-virtio"].read_text().replace("states = 62, edges = 110", "states = 62, edges = 111"))
    _, out = printed(capsys, file, "--policy", "whole-folio")
    assert "  not ok 1 whole-folio\nnot ok 1 mine" in out and "edges is 110, expected 111" in out


# ------------------------------------------------------------------------------------------- the kernel's own parser
@pytest.fixture(params=PARSERS, ids=lambda folder: folder.parent.parent.parent.name)
def parse(request, tmp_path):
    """What kunit.py says of a document, and its counts of passed, failed and skipped."""
    if not (request.param / "kunit.py").is_file():
        pytest.skip(f"{request.param} is not at hand: tools/kernel-trees.sh")

    def parsed(text):
        file = tmp_path / "results"
        file.write_text(text + "\n")
        command = [sys.executable, str(request.param / "kunit.py"), "parse", "--json", str(file)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert not re.search(r"\[ERROR\]|crashed|missing|error[s:]? [1-9]", done.stdout, re.IGNORECASE), done.stdout
        (counts,) = re.findall(r"Testing complete\..*?Ran \d+ tests: (.*)", done.stdout)
        return dict((name, int(n)) for name, n in re.findall(r"(\w+): (\d+)", counts)), done.stdout

    return parsed


def test_the_parser_of_the_kernel_counts_the_same(parse):
    counts, said = parse(ktap(MIXED))
    assert counts == {"passed": 4, "failed": 2, "skipped": 1}, said
    assert "edges is 15, expected 16" in said


def test_the_parser_of_the_kernel_reads_a_whole_run(parse, capsys):
    counts, said = parse(printed(capsys, PATHS["03-virtio"], PATHS["01-direct-io"])[1])
    assert counts == {"passed": 2 * len(PRESETS)} and json.dumps(said)


def test_a_damaged_document_is_noticed_by_the_parser(parse):
    """The parser would complain: what the tests above hold is held by something."""
    with pytest.raises(AssertionError):
        parse(ktap(MIXED).replace("1..5", "1..6"))
