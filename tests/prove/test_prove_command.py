"""`ultrafolio prove` and its pages: what is printed, told once, refused; that guides and facts are up to date."""

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("z3", reason="the extra `prove` is not installed")

from click.testing import CliRunner

from proving import FEW_KINDS, ONE
from ultrafolio.commands.check import check_command
from ultrafolio.commands.prove import prove_command
from ultrafolio.errors import InputError
from ultrafolio.model.designs import GUEST_MEMFD, S390
from ultrafolio.model.guest_memfd.layout import HOLE
from ultrafolio.prove import all_but, facts_page, judge
from ultrafolio.prove.state import Refused
from ultrafolio.prove.subjects import SUBJECTS

ROOT = Path(__file__).parents[2]
KINDS = ",".join(sorted(FEW_KINDS))
PAGE = ROOT / "docs/facts.md"
GUIDES = ("docs/prove.md", "docs/read-a-proof.md")


def invoked(*words):
    """The exit code and the output."""
    told = CliRunner().invoke(prove_command, [*words], standalone_mode=False)
    if told.exception:
        raise told.exception
    return told.return_value, told.output


def test_the_command_proves_a_property_with_few_kinds_of_actors():
    code, said = invoked("--policy", ONE, "--kinds", "vcpu", "--property", "2")
    assert code == 0 and re.search(r" 2 the arch bit .* proved", said)
    assert "assumed: no actor of kind disk, virtio, " in said and "not asked: " in said


def test_a_policy_of_guest_memfd_is_proved_on_a_machine(monkeypatch, kept_memfd):
    monkeypatch.setattr(judge, "prove_under", lambda *_, **given: kept_memfd[0])
    code, said = invoked("--policy", "gmem-7.4", "--machine", "tdx", "--kinds", "vcpu,user,pin")
    assert code == 0 and said.startswith("gmem-7.4 on tdx: ") and re.search(r" 23 a page of the file .* proved", said)
    assert "the hardware takes and gives back every page" in said
    code, said = invoked("--policy", "gmem-7.4", "--json", "--kinds", "vcpu,user,pin")
    record = json.loads(said)
    assert (record["design"], record["machine"], record["huge_pages"]) == ("guest_memfd", "software", False)
    assert {p["number"]: p["verdict"] for p in record["properties"]} == dict.fromkeys(range(12, 24), "proved")


def test_systems_with_huge_pages_have_an_answer_of_their_own(monkeypatch, kept_memfd):
    def proved_of_single_pages(cfg, **given):
        if cfg["block"]:
            assert HOLE in given["without"]
            raise Refused("rule convert-zap: a loop in a loop")
        return kept_memfd[0]

    monkeypatch.setattr(judge, "prove_under", proved_of_single_pages)
    monkeypatch.setattr("ultrafolio.prove.refuted.counterexamples", lambda *_: {})
    asked = "--policy", "gmem-hugetlb-2025-05", "--property", "14", "--kinds", "vcpu,user,pin"
    code, said = invoked(*asked)
    assert code == 3 and "no induction: huge pages are asked about with --huge" in said
    code, said = invoked(*asked, "--huge")
    assert code == 3 and "gmem-hugetlb-2025-05 on software, huge pages" in said
    assert re.search(r"^gmem-hugetlb-2025-05 on software, single pages +proved$", said, re.MULTILINE)
    assert re.search(r"^gmem-hugetlb-2025-05 on software, huge pages +not proved$", said, re.MULTILINE)
    assert "no induction: rule convert-zap: a loop in a loop" in said and "of any one order" in said


@pytest.mark.parametrize("words", [["gmem-7.4"], ["per-page"], ["gmem-hugetlb-2025-05", "--hangs"]])
def test_huge_is_for_properties_of_policies_with_huge_pages(words):
    with pytest.raises(InputError, match="--huge asks for properties of policies with huge pages"):
        invoked("--huge", "--policy", *words)


def test_a_rule_that_is_not_read_proves_nothing_and_is_named(monkeypatch):
    def refuse(*_, **given):
        raise Refused("rule gup-get: no formula for: x")

    monkeypatch.setattr(judge, "prove_under", refuse)
    monkeypatch.setattr("ultrafolio.prove.refuted.counterexamples", lambda *_: {})
    code, said = invoked("--policy", "gmem-7.4", "--property", "14")
    assert code == 3 and "not proved" in said and "no induction: rule gup-get: no formula for: x" in said


def test_one_object_a_policy_says_what_is_proved(monkeypatch, kept):
    monkeypatch.setattr(judge, "prove_under", lambda *_, **given: kept[0])
    code, said = invoked("--policy", ONE, "--json", "--kinds", KINDS)
    record = json.loads(said)
    verdicts = {p["number"]: p["verdict"] for p in record["properties"]}
    assert verdicts == dict.fromkeys(range(1, 10), "proved") | {10: "false", 11: "false"}
    assert code == 1 and record["assumed"] and record["facts"] == len(kept[0].problem.kept)
    assert all("ultrafolio check" in record["properties"][n - 1]["reproduce"] for n in (10, 11))


def test_what_is_false_under_every_policy_is_told_once(monkeypatch, kept):
    monkeypatch.setattr(judge, "prove_under", lambda *_, **given: kept[0])
    code, said = invoked("--policy", ONE, "--policy", "whole-folio", "--kinds", KINDS)
    assert code == 1 and said.count("10 no page is exported") == 1 and said.count("2 the arch bit") == 2
    once = said.index("false under every one of these policies:")
    assert once < said.index("10 no page is exported") and "breaks it in" in said[once:]
    assert re.search(r"^whole-folio( +proved){9}( +false){2}$", said, re.MULTILINE)


def test_a_property_that_is_neither_proved_nor_false_is_tried_without_the_facts_of_another_policy(monkeypatch, kept):
    given_earlier = []

    def prove(*_, earlier, **given):
        given_earlier.append(earlier)
        return kept[0]

    monkeypatch.setattr(judge, "prove_under", prove)
    monkeypatch.setattr("ultrafolio.prove.refuted.counterexamples", lambda *_: {})
    code, said = invoked("--policy", "split", "--policy", "split-writeback")
    assert code == 3 and "not proved" in said and "at import-export, vcpu: " in said
    assert [one is None for one in given_earlier] == [True, False, True]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "which policies"),
        (["--all", "--policy", ONE], "which policies"),
        (["--policy", ONE, "--kinds", "vcpu,mapping"], "--kinds"),
        (["--policy", ONE, "--facts", "--json"], "--facts and --json"),
        (["--policy", ONE, "--policy", "split", "--smt2", "x"], "one policy"),
        (["--policy", "gmem-7.4", "--machine", "all", "--smt2", "x"], "one policy"),
        (["--policy", ONE, "--policy", "gmem-7.4"], "two designs"),
        (["--policy", ONE, "--machine", "snp"], "s390 has one machine"),
        (["--policy", "pkvm", "--machine", "snp"], "--machine, and the policy pkvm"),
        (["--policy", "gmem-7.4", "--property", "3"], "12 to 23"),
        (["--policy", ONE, "--property", "14"], "1 to 11"),
        (["--policy", "gmem-7.4", "--design", "guest_memfd"], "--design with --all"),
    ],
)
def test_what_cannot_be_asked_is_refused(words, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=says):
        invoked(*words)
    assert not list(tmp_path.iterdir())


# ----------------------------------------------------------------------------------------------------- pages
def test_the_facts_are_told_rule_by_rule(kept):
    said = facts_page.page(ONE, kept[0], all_but(FEW_KINDS))
    at_freeze = said[said.index("### import-freeze") :].split("###")[1]
    assert "- its folio is in no writeback" in at_freeze.splitlines()
    assert "a page whose bit is clear is accessible" in said and "### split" not in said


def test_every_line_of_the_facts_page_is_a_rule_or_a_fact():
    text = PAGE.read_text()
    memfd = f"{facts_page.PAGE_MEMFD[0]} on {facts_page.PAGE_MEMFD[1]}"
    assert re.findall("^## (.+)$", text, re.MULTILINE) == [*facts_page.PAGE, memfd]
    at = text.index(f"## {memfd}")
    for part, design in ((text[:at], S390), (text[at:], GUEST_MEMFD)):
        subject = SUBJECTS[design.name]
        rules = {rule.name for rule in design.rules.values()} | {"dead", "Of every page", "Numbers"}
        assert set(re.findall("^### (.+)$", part, re.MULTILINE)) <= rules
        ranges = {subject.of_range.format(name) for name in subject.ranges}
        said = {line.strip().removeprefix("- ") for line in part.splitlines() if line.lstrip().startswith("- ")}
        found = {line for line in said if not line.startswith("of ") and "sum of what threads have" not in line}
        sums = {total.name for total in subject.sums}
        assert found <= {*subject.thread, *subject.pages, *subject.pairs, *ranges, *sums} and len(found) > 30


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_facts_page_is_what_proofs_print():
    assert PAGE.read_text() == facts_page.document(), "run: python -m ultrafolio.prove.facts_page > docs/facts.md"


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_names_options_and_files_that_exist(guide):
    text = (ROOT / guide).read_text()
    known = {option for command in (prove_command, check_command) for p in command.params for option in p.opts}
    assert set(re.findall(r"(?<!-)--[a-z][a-z0-9-]*", text)) <= known
    files = re.findall(r"`((?:src|tests)/[\w/.]+)`", text)
    assert files and all((ROOT / file).exists() for file in files)
