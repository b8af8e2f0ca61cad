"""A verdict in English sentences: every step is told, in its order, with what it changed, in 72 columns."""

import re

import pytest

from checking import PATHS, checked
from test_formats import STORIES, results  # noqa: F401  (a fixture)
from ultrafolio.cli import main
from ultrafolio.export import prose
from ultrafolio.model.layout import OUTCOMES, PAGE_STATES
from ultrafolio.model.rule import RULES
from ultrafolio.screen import MAIL

WORDS = {state.lower().replace("_", " "): number for number, state in enumerate(PAGE_STATES)}


def test_every_rule_and_every_outcome_has_its_words():
    assert set(prose.PHRASES) == {rule.name for rule in RULES.values()} and set(prose.ADDED) == set(OUTCOMES)
    assert {rule for rule, _ in prose.OTHERWISE} <= set(prose.PHRASES)
    assert {outcome for _, outcome in prose.OTHERWISE} <= set(OUTCOMES)


def read_back(text):
    """(first step, last step, actor) of each turn, and the changes of pages that it tells."""
    flat = re.sub(r"\s+", " ", text)
    turns = re.findall(r"Steps? (\d+)(?: to (\d+))?: (\w+ \d+) ", flat)
    moved = re.findall(r"Page (\d+) was ([a-z ]+) and is ([a-z ]+) now\.", flat)
    return (
        [(int(a), int(b or a), who) for a, b, who in turns],
        [(int(page), WORDS[was], WORDS[now]) for page, was, now in moved],
    )


@pytest.mark.parametrize("name", STORIES)
def test_every_step_is_told_once_and_in_order(results, name):  # noqa: F811
    worst = results[name].worst
    steps = [*worst.steps, *worst.cycle]
    text = prose.prose(results[name])
    turns, moved = read_back(text)
    told = [who for first, last, who in turns for _ in range(first, last + 1)]
    assert told == [f"{step.kind} {step.actor}" for step in steps]
    assert [first for first, _, _ in turns[1:]] == [last + 1 for _, last, _ in turns[:-1]]
    wanted = []
    for first, last, _ in turns:
        before, after = steps[first - 1].before[0], steps[last - 1].after[0]
        wanted += [
            (page, was[0], now[0])
            for page, (was, now) in enumerate(zip(before, after, strict=True))
            if was[0] != now[0]
        ]
    assert moved == wanted


@pytest.mark.parametrize("name", STORIES)
def test_it_is_for_a_mail(results, name):  # noqa: F811
    result = results[name]
    text = prose.prose(result)
    lines = text.split("\n")
    assert all(len(line) <= MAIL for line in lines if line.strip() != result.command) and result.command in text
    assert not re.search(r"[{}]|None|touchs|  \S", text.replace(f"  {result.command}", ""))
    flat = re.sub(r"\s+", " ", text)
    assert (result.worst.name in flat) == bool(result.worst.kind)
    if result.worst.wait:
        assert result.worst.wait.waits_for in flat and result.worst.wait.held_by in flat


def test_what_a_cycle_repeats_is_told_behind_a_sentence_of_its_own():
    text = prose.prose(checked("57-taken-away-again", "whole-folio"))
    before, after = text.split("From here on the following goes round for ever.")
    result = checked("57-taken-away-again", "whole-folio").worst
    assert read_back(before)[0][-1][1] == len(result.steps) and read_back(after)[0][0][0] == len(result.steps) + 1


SAID = {
    ("import-freeze", "EBUSY"): "finds extra references on page 1", ("import-map", "ENXIO"): "and faults it in",
    ("import-freeze", "OK"): "freezes the count of page 1", ("import-trylock", "EAGAIN"): "finds the folio locked",
}  # fmt: skip
TOLD = (
    "03-virtio", "18-iomap-two-vcpus", "22-reclaim-and-swap", "56-neighbour-of-an-expected-wait",
    "57-taken-away-again",
)  # fmt: skip


@pytest.mark.parametrize(("rule", "outcome"), SAID)
def test_an_outcome_changes_what_is_said(rule, outcome):
    findings = [
        finding for name in TOLD for policy in ("whole-folio", "per-page") for finding in checked(name, policy).findings
    ]
    steps = [step for finding in findings for step in [*finding.steps, *finding.cycle]]
    found = [prose.phrase(step) for step in steps if (step.rule, step.outcome_word) == (rule, outcome)]
    assert any(SAID[rule, outcome] in phrase for phrase in found), found


def test_the_command_prints_it(capsys):
    with pytest.raises(SystemExit) as left:
        main(["check", str(PATHS["03-virtio"]), "--policy", "whole-folio", "--format", "prose"])
    out = capsys.readouterr().out
    assert left.value.code == 1 and out.startswith("Scenario ")
    assert "Step 10: vcpu 0 touches page 1, which faults." in out
