"""The line that decides: one form from every engine, one word a verdict, one hash a question."""

import re
from dataclasses import replace

import pytest

from checking import PATHS, checked, story
from drawn_cases import fitting
from plain_graph import TooLarge, explored
from ultrafolio.check.verdicts.verdict import KINDS
from ultrafolio.cli import main
from ultrafolio.export import observation
from ultrafolio.export.observation import facts_of, hash_of, of_result, word_of
from ultrafolio.model import scenario
from ultrafolio.model.policies import PRESETS, find
from ultrafolio.waits import words

FORM = re.compile(r"Observation (\S+) (\S+) ([A-Z][A-Za-z]+) (\d+) (\d+) (\S+) Hash=([0-9a-f]{16}) by=(\w+)")


def run(capsys, *typed):
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in typed])
    out = capsys.readouterr()
    return int(left.value.code or 0), out.out, out.err


LINES = {
    ("03-virtio", "whole-folio"): "Hangs 62 110 vcpu0<-pin:virtio1@0",
    ("03-virtio", "per-page"): "Holds 8 15 -",
    ("03-virtio", "whole-folio-literal"): "Unsafe 63 112 property3:virtio1@0",
    ("03-virtio", "refuse-large"): "Fatal 4 3 vcpu0<-einval:vcpu0",
    ("01-direct-io", "whole-folio"): "Waits 98 174 vcpu0<-pin:disk1@0",
    ("08-unshare-under-pin", "split"): "Expected 69 113 vcpu0<-pin:virtio1@0",
}


@pytest.mark.parametrize(("name", "policy"), LINES)
def test_a_verdict_in_one_line(capsys, name, policy):
    code, out, err = run(capsys, "check", name, "--policy", policy, "--brief")
    found = FORM.fullmatch(out.strip())
    assert found and out.count("\n") == 1 and err == "", out
    assert found.group(3, 4, 5, 6) == tuple(LINES[name, policy].split())
    assert found.group(1, 2, 8) == (name, policy, "check")
    assert code == int(found.group(3) in ("Hangs", "Unsafe", "Fatal"))


def test_a_livelock_names_who_takes_the_obstacle_again():
    result = checked("57-taken-away-again", "whole-folio")
    assert result.worst.kind == "livelock" and facts_of(result.worst) == "vcpu0<-page:disk1"


def test_a_file_and_its_path_have_the_same_line(capsys):
    names = "03-virtio", PATHS["03-virtio"]
    assert len({run(capsys, "check", name, "--policy", "split", "--brief")[1] for name in names}) == 1


def test_every_kind_has_a_word_of_its_own():
    spoken = [word_of("violated", kind, False) for kind in KINDS]
    assert len({*spoken, "Holds", "Expected", "Unknown"}) == len(KINDS) + 3
    assert word_of("unknown", "permanent", False) == "Unknown" and word_of("holds", "permanent", True) == "Expected"


def test_an_exploration_that_was_stopped_is_unknown(capsys):
    code, out, _ = run(capsys, "check", "03-virtio", "--policy", "split", "--max-states", "5", "--brief")
    assert code == 3 and FORM.fullmatch(out.strip()).group(3, 6) == ("Unknown", "-")


def test_equal_hashes_are_the_same_question(monkeypatch):
    made, policy = story("03-virtio"), find("split")
    same = hash_of(made, policy)
    assert hash_of(replace(made, title="another title", expect={}), policy) == same
    asked = {repr((one.memory, one.features, one.actors)): one for one in map(story, PATHS)}
    hashes = {hash_of(one, find(preset)) for one in asked.values() for preset in PRESETS}
    assert len(hashes) == len(asked) * len(PRESETS), "different questions have different hashes"
    memory = {**made.memory, "writable": False}
    assert len({same, hash_of(replace(made, memory=memory), policy), hash_of(made, find("per-page"))}) == 3
    monkeypatch.setattr(observation, "rules_digest", lambda: "other rules")
    assert hash_of(made, policy) != same


def test_a_name_stays_one_word():
    line = of_result(checked("03-virtio", "split"), "my own test", "0" * 16, "check")
    assert FORM.fullmatch(line).group(1) == "my-own-test"


def test_brief_and_another_format_are_refused(capsys):
    assert run(capsys, "check", "03-virtio", "--policy", "split", "--brief", "--json")[0] == 2
    assert run(capsys, "run", "--brief", "--json")[0] == 2


@pytest.mark.parametrize(
    ("name", "policy", "word", "facts"),
    [
        ("03-virtio", "whole-folio", "Hangs", "vcpu0<-pin:virtio1@0"),
        ("03-virtio", "split", "Holds", "-"),
        ("08-unshare-under-pin", "split", "Expected", "vcpu0<-pin:virtio1@0"),
        ("03-virtio", "refuse-large", "Fatal", "vcpu0<-einval:vcpu0"),
    ],
)
def test_a_run_says_the_same_words_with_the_same_hash(capsys, name, policy, word, facts):
    words_typed = ("run", PATHS[name], "--policy", policy, "--duration-us", "400", "--brief")
    found = FORM.fullmatch(run(capsys, *words_typed)[1].strip())
    assert found.group(1, 2, 3, 4, 5, 6, 8) == (name, policy, word, "1", "1", facts, "run")
    assert found.group(7) == hash_of(story(name), find(policy))


def test_a_run_that_broke_a_property_says_which(capsys):
    typed = ("run", PATHS["03-virtio"], "--policy", "whole-folio-literal", "--duration-us", "400", "--brief")
    assert FORM.fullmatch(run(capsys, *typed)[1].strip()).group(3, 6) == ("Unsafe", "property3")


def test_a_run_of_a_workload_has_a_line_too(capsys):
    one, other = (
        run(capsys, "run", "--policy", policy, "--duration-us", "100", "--brief")[1].strip()
        for policy in ("split", "per-page")
    )
    assert FORM.fullmatch(one).group(1, 2) == ("default", "split")
    assert FORM.fullmatch(one).group(7) != FORM.fullmatch(other).group(7)


def test_every_holder_has_a_brief_form():
    """Over random systems: whoever holds something is named in one word, and names the same actor."""
    seen = set()
    for number in range(12):
        made = fitting(number, lambda _: True)[0]
        try:
            states = explored(made.system(), most=1500).states
        except TooLarge:
            continue
        for s in states[:: 1 + len(states) // 100]:
            for t in range(len(s.task)):
                told = words.stall(s, t)
                for brief in told.wait.brief.split("+") if told else []:
                    assert re.fullmatch(r"[a-z]+(:[a-z]+\d+)?(@\d+)?", brief), (told.wait.line(), brief)
                    seen.add(brief.partition(":")[0])
    assert seen >= {"lock", "pin", "ref"}


def test_the_scenario_decides_and_not_its_text():
    text = {"memory": {"folios": [1], "state": ["secure"]}, "vcpu": [{}]}
    written = {"memory": {"folios": [1]}, "vcpu": [{"starts": 1, "cpu": 0}]}
    assert hash_of(scenario.parse(text, "a"), find("split")) == hash_of(scenario.parse(written, "b"), find("split"))
