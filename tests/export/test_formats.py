"""Verdicts as ITF, Mermaid and TAP, and trace files that are certified again."""

import itertools
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from ultrafolio.check.search.graph import explore
from ultrafolio.check.verdicts.replay import replay
from ultrafolio.check.verdicts.verdict import Extent, check
from ultrafolio.cli import main
from ultrafolio.engine.load import interpreted
from ultrafolio.export import formats, trace_file
from ultrafolio.model import scenario
from ultrafolio.model.layout import OUTCOMES, OWNERS, SECTIONS
from ultrafolio.model.policies import find
from ultrafolio.model.properties import PROPERTIES
from ultrafolio.model.rule import RULES

PAIR = {"memory": {"folios": [1], "state": ["shared", "secure"]}}
RING = {**PAIR, "vcpu": [{"touch": [1]}], "virtio": [{"page": 0}]}
DISK = {**PAIR, "vcpu": [{"touch": [1]}], "disk": [{"page": 0}]}
LARGE = {"memory": {"folios": [2]}, "vcpu": [{}, {}], "disk": [{"page": 0, "starts": 3}], "writeback": [{"starts": 3}]}
TABLES = {"sleeps": {"base": "whole-folio", "on_busy": "sleep"}}
STORIES = {
    "hangs": (RING, "whole-folio"),
    "unsafe": (RING, "whole-folio-literal"),
    "waits": (DISK, "whole-folio"),
    "holds": (RING, "per-page"),
    "rests": (RING, "sleeps"),
    "fatal": ({**PAIR, "vcpu": [{"touch": [1]}], "disk": [{"page": 1}]}, "refuse-large"),
    "expected": ({**PAIR, "vcpu": [{"unshare": [0]}], "virtio": [{"page": 0}]}, "per-page"),
    "livelock": ({"memory": {"folios": [1], "backing": "iomap", "state": ["non_secure"]}, "vcpu": [{"touch": [0]}],
                  "writeback": [{"page": [0], "starts": 255}]}, "split"),
}  # fmt: skip


def made(name):
    """(scenario, policy, system) of one of STORIES."""
    document, policy = STORIES[name]
    story, chosen = scenario.parse(document, name), find(policy, TABLES)
    return story, chosen, scenario.system(story, chosen)


@pytest.fixture(scope="module")
def results():
    return {name: check(*(made(name)[0], f"{name}.toml", made(name)[1], STORIES[name][1])) for name in STORIES}


def run(capsys, *words):
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    out = capsys.readouterr()
    return int(left.value.code or 0), out.out, out.err


WITH_STORY = [name for name in STORIES if name != "holds"]


def test_the_stories_are_of_every_kind(results):
    kinds = {name: result.worst.kind for name, result in results.items()}
    assert kinds == {
        "hangs": "permanent",
        "unsafe": "safety",
        "waits": "transient",
        "holds": None,
        "rests": "permanent",
        "fatal": "fatal",
        "expected": "permanent",
        "livelock": "livelock",
    }
    assert results["expected"].worst.expected and not results["rests"].worst.cycle
    assert [name for name in STORIES if formats.has_story(results[name].worst)] == WITH_STORY


# --------------------------------------------------------------------------------------------------- ITF
def packed(state):
    """An ITF state's variables as the checker packs a state."""
    names = {section: SECTIONS[section].names for section in OWNERS}
    return tuple(tuple(tuple(record[n] for n in names[section]) for record in state[section]) for section in OWNERS)


@pytest.mark.parametrize("name", WITH_STORY)
def test_itf_states_are_those_of_the_replay(results, name):
    result, system = results[name], made(name)[2]
    worst = result.worst
    trace = json.loads(json.dumps(formats.itf(result, worst)))
    steps, _ = replay(system, [step.by for step in [*worst.steps, *worst.cycle]])
    states = trace["states"]
    assert [packed(state) for state in states] == [steps[0].before, *(step.after for step in steps)]
    assert [state["step"]["rule"] for state in states] == ["start", *(step.rule for step in steps)]
    assert [state["#meta"]["index"] for state in states] == list(range(len(states)))
    assert set(trace["vars"]) == set(states[0]) - {"#meta"} and all(set(s) == set(states[0]) for s in states)


@pytest.mark.parametrize("name", WITH_STORY)
def test_itf_loops_where_the_cycle_does(results, name):
    result = results[name]
    worst = result.worst
    trace = formats.itf(result, worst)
    if worst.verdict == "holds" or worst.kind == "safety":
        assert "loop" not in trace
        return
    loop, states = trace["loop"], trace["states"]
    if not worst.cycle:
        assert loop == len(states) - 1, "where all rests, the last state is followed by itself"
        return
    # the last state goes on at states[loop] by the very step that is written there
    before = [packed(states[-1]), packed(states[loop - 1])]
    assert before[0] == before[1]
    assert states[loop]["step"]["rule"] == worst.cycle[0].rule
    assert len(states) - loop == len(worst.cycle)


# ----------------------------------------------------------------------------------------------- Mermaid
ENTITY = r"(?:[^#;\n]|#\d+;)*"
LINES = [r"sequenceDiagram", r" {4}%% reproduce: ultrafolio check [\w. -]+",
         r" {4}autonumber", r" {4}participant [GHUD] as [\w ]+", r" {4}loop for ever", r" {4}end",
         rf" +[GHUD]-?->>[GHUD]: {ENTITY}", rf" +Note over [GHUD](,[GHUD])?: {ENTITY}"]  # fmt: skip


@pytest.mark.parametrize("name", STORIES)
def test_mermaid_is_well_formed(results, name):
    worst = results[name].worst
    lines = formats.mermaid(results[name], worst).split("\n")
    assert lines[0] == "sequenceDiagram"
    for line in lines:
        assert any(re.fullmatch(pattern, line) for pattern in LINES), line
    messages = [line for line in lines if ">>" in line]
    assert len(messages) == len(worst.steps) + len(worst.cycle), "a message a step"
    assert lines.count("    loop for ever") == lines.count("    end") == bool(worst.cycle)
    assert any("held by" in line for line in lines) == bool(worst.wait)


def test_mermaid_shows_ultravisor_calls_and_their_outcomes(results):
    text = formats.mermaid(results["hangs"], results["hangs"].worst)
    assert "    H->>U: virtio 1 accessible-export page 1\n    Note over U: page 1 SECURE to EXPORTED\n" in text
    assert "G->>H: vcpu 0 touch page 1: FAULT" in text and "D->>H: virtio 1 device-start" in text
    assert "waits for ever for the extra references of the folio of page 1<br/>held by virtio 1" in text


def test_mermaid_sends_the_guests_own_calls_to_the_ultravisor():
    story = scenario.parse({**PAIR, "vcpu": [{"unshare": [0], "touch": [0]}]}, "own")
    graph = explore(scenario.system(story, find("per-page")))
    target = next(int(graph.space.to[e]) for e in range(graph.edges) if graph.space.via[e] & 0xFFFF == 1)
    steps, _ = replay(graph.system, graph.path(target))
    told = SimpleNamespace(verdict="holds", name="", kind=None, expected=False, steps=steps, cycle=[], wait=None)
    sent = formats.mermaid(SimpleNamespace(command="", verdict="holds", scope={}), told)
    assert "G->>U: vcpu 0 unshare page 0\n    Note over U: page 0 SHARED to SECURE" in sent


def test_the_calls_of_the_host_are_the_rules_that_call_the_ultravisor():
    calling = re.compile(r"\buv_(import|export|pin|unpin|reset)\(")
    found = {
        rule.name
        for rule in RULES.values()
        if rule.actor == "host" and any(calling.search(line) for line in source_of(rule.function.__name__))
    }
    assert found == set(formats.CALLS)


def source_of(function):
    code = getattr(interpreted(), function).__code__
    text = Path(code.co_filename).read_text().split("\n")[code.co_firstlineno :]
    return itertools.takewhile(lambda line: not line.startswith(("def ", "@")), text)


def test_mermaid_escapes_what_would_end_a_line():
    assert formats._escaped("a; b #1") == "a#59; b #35;1"


# --------------------------------------------------------------------------------------------------- TAP
def parsed(text):
    """A small TAP 14 reader: [(ok, number, description, comment, diagnosis)]."""
    lines = text.split("\n")
    assert lines[0] == "TAP version 14" and re.fullmatch(r"1\.\.\d+", lines[1])
    points, at = [], 2
    while at < len(lines):
        point = re.fullmatch(r"(not )?ok (\d+) - ((?:[^#\\]|\\[#\\])*?)(?: # (.*))?", lines[at])
        assert point, lines[at]
        at += 1
        fields = {}
        if at < len(lines) and lines[at] == "  ---":
            end = lines.index("  ...", at)
            pairs = (line.strip().split(": ", 1) for line in lines[at + 1 : end])
            fields = {key: json.loads(value) for key, value in pairs}
            at = end + 1
        words = re.sub(r"\\([#\\])", r"\1", point[3])
        points.append((not point[1], int(point[2]), words, point[4], fields))
    assert len(points) == int(lines[1][3:])
    return points


def test_tap_says_what_passed_and_why_not(results):
    points = parsed(formats.tap(list(results.values())))
    assert [point[1] for point in points] == list(range(1, len(STORIES) + 1))
    by = {name: point for name, point in zip(results, points, strict=True)}
    assert [name for name in STORIES if not by[name][0]] == ["hangs", "unsafe", "rests", "fatal", "livelock"]
    assert by["expected"][3] == "expected" and by["waits"][3] is None
    assert by["hangs"][4]["held_by"].startswith("virtio 1's long-term pin") and by["hangs"][4]["kind"] == "permanent"
    assert by["unsafe"][4]["property"].startswith("a page that is shared throughout")


def test_tap_counts_unknown_as_not_passed_and_escapes_names():
    story, few = scenario.parse(LARGE, "large"), Extent(max_states=4096)
    result = check(story, r"a\b.toml", find("per-page"), "mine.toml#mine", few)
    (point,) = parsed(formats.tap([result]))
    assert point[0] is False and point[2] == r"a\b.toml under mine.toml#mine"
    assert point[4]["verdict"] == "unknown" and "limit" in point[4]["reason"]


# ------------------------------------------------------------------------------------------- trace files
@pytest.fixture
def saved(results, tmp_path):
    """Write a story's trace file, changed by `change`; return its path."""

    def save(name, change=lambda file: None):
        result = results[name]
        file = trace_file.trace_file(result, result.worst, *made(name)[:2])
        change(file)
        path = tmp_path / "trace.json"
        path.write_text(trace_file.file_text(file))
        return path

    return save


@pytest.mark.parametrize("name", WITH_STORY)
def test_a_trace_file_is_certified_again(results, saved, capsys, name):
    story, policy, system = made(name)
    trace = trace_file.read(saved(name))
    worst = results[name].worst
    assert trace.path == [step.by for step in [*worst.steps, *worst.cycle]]
    assert trace_file.start_digest(trace.system) == trace_file.start_digest(system)
    assert trace.system.choices == system.choices
    code, out, _ = run(capsys, "trace", "verify", saved(name))
    assert code == 0 and ": certified: " in out and worst.name in out


@pytest.mark.parametrize("path", sorted(Path("scenarios").glob("*.toml")), ids=str)
def test_a_scenario_file_survives_being_written_as_a_document(path):
    story = scenario.read(path)
    again = scenario.parse(scenario.document(story), "again")
    assert (again.memory, again.features, again.actors) == (story.memory, story.features, story.actors)


def swap(file, at):
    for field in ("path", "steps", "states"):
        file[field][at], file[field][at + 1] = file[field][at + 1], file[field][at]


def cut(file, keep):
    for field in ("path", "steps", "states"):
        del file[field][keep:]
    if "loop" in file:
        file["loop"] = min(file["loop"], keep)


TAMPERED = {
    "a step that is not possible": ("hangs", lambda f: swap(f, 9), "step 10"),
    "a step of nobody": ("hangs", lambda f: f["path"].__setitem__(3, 9 << 16), "there is no actor 9, only 0 to 1"),
    "a step of a high number": ("hangs", lambda f: f["path"].__setitem__(0, 2**31 - 1), "there is no actor 32767"),
    "a choice that is not there": ("hangs", lambda f: f["path"].__setitem__(0, 1 << 16 | 5), "virtio 1 has no choice"),
    "a choice where there is none": ("hangs", lambda f: f["path"].__setitem__(1, 1 << 16 | 1), "has no choice 1 there"),
    "another outcome": ("hangs", lambda f: f["steps"].__setitem__(2, "nothing"), "step 3 is 'virtio 1 accessible-test"),
    "another state": ("hangs", lambda f: f["states"].__setitem__(2, "00"), "leads to another state"),
    "a cycle that does not close": ("hangs", lambda f: cut(f, 20), "the claim fails: the cycle does not close"),
    "a cycle that is not fair": ("livelock", lambda f: f["claim"].update(number=1), "the claim fails"),
    "a rest that is none": ("hangs", lambda f: cut(f, 10), "the cycle is empty, but fair steps are enabled"),
    "a waiter that does not wait": ("rests", lambda f: f["claim"].update(number=1), "actor 1 is not waiting there"),
    "a waiter that is not there": ("hangs", lambda f: f["claim"].update(number=7), "there is no actor 7"),
    "another property": ("unsafe", lambda f: f["claim"].update(number=1), "does not break property 1"),
    "a story without its end": ("unsafe", lambda f: cut(f, 3), "does not break property 3"),
    "no story at all": ("unsafe", lambda f: cut(f, 0), "does not break property 3"),
    "a stall that is none": ("waits", lambda f: cut(f, 3), "actor 0 is not waiting there"),
    "another policy": ("hangs", lambda f: f["policy"]["values"].update(refs="page"), "the initial state is not"),
    "another scenario": ("hangs", lambda f: f["scenario"]["document"]["vcpu"][0].update(touch=[0]), "the initial"),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_a_changed_trace_file_is_not_certified(saved, capsys, what):
    name, change, said = TAMPERED[what]
    code, out, err = run(capsys, "trace", "verify", saved(name, change))
    assert code == 1 and not err, err
    assert ": not certified: " in out and said in out


MALFORMED = {
    "another format": (lambda f: f.update(format="pcap"), "format", "ultrafolio-trace"),
    "a newer version": (lambda f: f.update(version=4), "version", "an integer from 1 to 3"),
    "an unknown field": (lambda f: f.update(pth=[]), "'pth'", "path"),
    "a missing field": (lambda f: f.pop("path"), "'path' is missing", "a list of integers"),
    "a negative step": (lambda f: f["path"].__setitem__(0, -1), "path", "integers from 0"),
    "a step too many": (lambda f: f["steps"].append(""), "steps", "one for each step of path, in all 23"),
    "a loop outside": (lambda f: f.update(loop=99), "loop", "from 0 to 23"),
    "no loop": (lambda f: f.pop("loop"), "loop", "from 0 to 23"),
    "a loop of a property": (lambda f: f["claim"].update(kind="property"), "loop", "has no loop"),
    "an unknown claim": (lambda f: f["claim"].update(kind="hang"), "claim: kind", "property, wait, stall"),
    "an unknown policy value": (lambda f: f["policy"]["values"].update(refs="pag"), "refs", "did you mean 'page'?"),
    "a bad scenario": (lambda f: f["scenario"]["document"].update(memory={}), "scenario: document", "folios"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_trace_file_is_bad_input(saved, capsys, what):
    change, field, allowed = MALFORMED[what]
    code, out, err = run(capsys, "trace", "verify", saved("hangs", change))
    assert code == 2 and not out and field in err and allowed in err


def test_a_property_number_is_one_to_nine(saved, capsys):
    code, _, err = run(capsys, "trace", "verify", saved("unsafe", lambda f: f["claim"].update(number=12)))
    assert code == 2 and f"a property from 1 to {len(PROPERTIES) - 1}" in err


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'"text"', b"[" * 100_000])
def test_what_is_no_trace_file_is_bad_input(tmp_path, capsys, content):
    path = tmp_path / "trace.json"
    path.write_bytes(content)
    assert run(capsys, "trace", "verify", path)[0] == 2
    assert run(capsys, "trace", "verify", tmp_path / "none.json")[0] == 2
    assert run(capsys, "trace", "verify", tmp_path)[0] == 2


def test_a_trace_of_other_rules_is_replayed_and_refused(saved, capsys):
    other = {"rules": "0" * 32, "start": "0" * 16}
    code, _, err = run(capsys, "trace", "verify", saved("hangs", lambda f: f.update(other)))
    assert code == 2 and "made under other rules" in err and "it certifies all the same" in err

    def diverges(file):
        file.update(other)
        file["steps"][4] = file["steps"][4].replace("OK", "EBUSY")

    code, _, err = run(capsys, "trace", "verify", saved("hangs", diverges))
    assert code == 2 and "made under other rules" in err and "step 5 is 'virtio 1 accessible-pin" in err


# ------------------------------------------------------------------------------------------- the command
@pytest.fixture
def toml(tmp_path):
    path = tmp_path / "ring.toml"
    memory = '[memory]\nfolios = [1]\nstate = ["shared", "secure"]\n'
    path.write_text(memory + "[[vcpu]]\ntouch = [1]\n[[virtio]]\npage = 0\n")
    return path


def test_check_writes_each_format(toml, capsys):
    words = ("check", toml, "--policy", "per-page", "--policy", "whole-folio", "--format")
    assert json.loads(run(capsys, *words, "itf")[1])["#meta"]["policy"] == "whole-folio"
    assert run(capsys, *words, "mermaid")[1].startswith("sequenceDiagram\n")
    assert [point[0] for point in parsed(run(capsys, *words, "tap")[1].rstrip("\n"))] == [True, False]
    code, out, _ = run(capsys, *words, "json")
    assert code == 1 and out == run(capsys, *words[:-1], "--json")[1]
    code, _, err = run(capsys, *words[:-1], "--format", "xml")
    assert code == 2 and "'xml'" in err
    assert run(capsys, *words, "tap", "--json")[0] == 2


def test_check_has_no_story_to_write_where_nothing_fails(toml, capsys, tmp_path):
    file = tmp_path / "none.json"
    code, out, err = run(capsys, "check", toml, "--policy", "per-page", "--format", "itf", "--save", file)
    assert code == 0 and not out and "no story" in err and not file.exists()
    assert "Note over G,D: holds" in run(capsys, "check", toml, "--policy", "per-page", "--format", "mermaid")[1]


def test_check_saves_what_verify_certifies(toml, capsys, tmp_path):
    file = tmp_path / "hang.json"
    code, _, err = run(capsys, "check", toml, "--policy", "per-page", "--policy", "whole-folio", "--save", file)
    assert code == 1 and "trace verify" in err
    code, out, _ = run(capsys, "trace", "verify", file)
    assert code == 0 and "under whole-folio, 23 steps" in out
    assert [path.name for path in tmp_path.iterdir() if "hang" in path.name] == ["hang.json"]


def test_check_saves_in_folders_that_exist(toml, capsys, tmp_path):
    code, _, err = run(capsys, "check", toml, "--policy", "whole-folio", "--save", tmp_path / "no" / "hang.json")
    assert code == 2 and "a folder that exists" in err


def test_outcome_words_are_plain_for_every_format():
    assert not any(set(word) & set('#;"\n') for word in OUTCOMES)
