"""`ultrafolio check` on the command line: exit codes, JSON, text, and bad input."""

import json
import re
import shlex
import textwrap

import pytest

from checking import PATHS, ROOT
from ultrafolio.cli import main
from ultrafolio.model.policies import PRESETS
from ultrafolio.model.properties import PROPERTIES
from ultrafolio.waits.words import LEADS_TO

KEYS = {
    "scenario",
    "policy",
    "verdict",
    "kind",
    "expected",
    "depth",
    "states",
    "edges",
    "waiter",
    "waits_for",
    "held_by",
    "released_by",
    "trace",
    "properties",
}
VIRTIO, DISK = str(PATHS["03-virtio"]), str(PATHS["01-direct-io"])
GOOD = """
    title = "mine"
    [memory]
    folios = [1]
    [[vcpu]]
    touch = [1]
"""


@pytest.fixture
def typed(capsys):
    def run(*words):
        with pytest.raises(SystemExit) as ended:
            main(["check", *map(str, words)])
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return run


def records(out):
    return [json.loads(line) for line in out.splitlines()]


def test_the_virtio_scenario_under_whole_folio_names_the_holder(typed):
    code, out, _ = typed(VIRTIO, "--policy", "whole-folio", "--json")
    (record,) = records(out)
    assert code == 1 and (record["verdict"], record["kind"]) == ("violated", "permanent")
    assert record["waiter"] == "vcpu 0 (touch page 1)"
    assert record["waits_for"] == "the extra references of the folio of page 1"
    assert record["held_by"] == "virtio 1's long-term pin on page 0, another page of the folio"
    assert record["released_by"].endswith("only with the guest's reboot or shutdown")


def test_direct_io_is_transient_and_per_page_holds(typed):
    code, out, _ = typed(DISK, "--policy", "whole-folio", "--json")
    assert code == 0 and [(r["verdict"], r["kind"]) for r in records(out)] == [("holds", "transient")]
    code, out, _ = typed(DISK, VIRTIO, "--policy", "per-page", "--json")
    assert code == 0 and [(r["verdict"], r["kind"]) for r in records(out)] == [("holds", None)] * 2


def test_the_wait_that_is_the_purpose_of_pin_shared_is_expected(typed):
    code, out, _ = typed(PATHS["08-unshare-under-pin"], "--json")
    assert code == 0
    assert {(r["verdict"], r["kind"], r["expected"]) for r in records(out)} == {("holds", "permanent", True)}
    assert [r["policy"] for r in records(out)] == list(PRESETS)


@pytest.mark.parametrize("policy", ["whole-folio", "whole-folio-literal", "per-page"])
def test_a_json_object_has_the_published_keys(typed, policy):
    (record,) = records(typed(VIRTIO, "--policy", policy, "--json")[1])
    assert set(record) >= KEYS
    assert len(record["properties"]) == len(PROPERTIES) - 1 + len(LEADS_TO)
    assert all(set(p) >= {"name", "verdict", "kind", "depth"} for p in record["properties"])
    assert all({"actor", "rule", "outcome"} <= set(step) for step in record["trace"])
    assert record["kind"] is None or record["depth"] == len(record["trace"])


def test_the_top_level_repeats_the_worst_property(typed):
    (record,) = records(typed(PATHS["39-busy-folio"], "--policy", "whole-folio-literal", "--json")[1])
    kinds = [p["kind"] for p in record["properties"] if p["kind"]]
    assert record["kind"] == "safety" and set(kinds) == {"safety", "permanent"}


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("03-virtio", "whole-folio"),
        ("18-iomap-two-vcpus", "split-writeback"),
        ("08-unshare-under-pin", "per-page"),
        ("36-patience", "gives-up"),
        ("33-bounce-pool-unaligned", "whole-folio"),
    ],
)
def test_a_story_fits_into_a_mail(typed, name, policy):
    _, out, _ = typed(PATHS[name], "--policy", policy)
    told = [line for line in out.splitlines() if not line.startswith("reproduce: ")]
    assert max(map(len, told)) <= 72
    assert "waits for ever for" in " ".join(out.split())
    assert "held by: " in out and "released by: " in out


def test_a_transient_wait_is_not_said_to_be_for_ever(typed):
    _, out, _ = typed(DISK, "--policy", "whole-folio")
    assert "waits for" in out and "for ever" not in out


ARTEFACTS = {
    "a story": ("scenarios/03-virtio.toml", "--policy", "whole-folio"),
    "a story that a limit ended": ("scenarios/07-over-indication.toml", "--policy", "split", "--max-states", "1000"),
    "a matrix": ("scenarios/03-virtio.toml", "--policy", "split", "--policy", "per-page", "--memory", "100"),
    "a difference": ("scenarios/03-virtio.toml", "--diff-policy", "split", "whole-folio", "--expect"),
    "records": ("scenarios/03-virtio.toml", "--policy", "whole-folio", "--json"),
    "a diagram": ("scenarios/03-virtio.toml", "--policy", "whole-folio", "--format", "mermaid"),
    "a trace of states": ("scenarios/03-virtio.toml", "--policy", "whole-folio", "--format", "itf"),
    "a program": ("scenarios/03-virtio.toml", "--policy", "whole-folio", "--export", "promela"),
}


@pytest.mark.parametrize("what", ARTEFACTS)
def test_the_line_that_reproduces_it_does(typed, monkeypatch, what):
    monkeypatch.chdir(ROOT)
    _, out, _ = typed(*ARTEFACTS[what])
    (line,) = re.findall(r'reproduce"?: "?(ultrafolio check [^"\n*]+)', out)
    assert typed(*shlex.split(line)[2:])[1] == out


def test_the_worst_of_several_stories_is_reproduced_alone(typed, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    several = "scenarios/03-virtio.toml", "scenarios/04-writeback.toml", "--policy", "split", "--policy", "whole-folio"
    _, out, _ = typed(*several, "--format", "mermaid", "--save", tmp_path / "trace.json")
    (line,) = re.findall(r"reproduce: ultrafolio check (.+)", out)
    assert line == "scenarios/03-virtio.toml --policy whole-folio --format mermaid"
    assert typed(*line.split())[1] == out
    saved = (tmp_path / "trace.json").read_bytes()
    words = shlex.split(json.loads(saved)["reproduce"])[2:]
    assert words[-1] == "trace.json"
    typed(*words[:-1], tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == saved


def test_tap_names_the_command_of_each_failure(typed, monkeypatch):
    monkeypatch.chdir(ROOT)
    _, out, _ = typed("scenarios/03-virtio.toml", "--format", "tap")
    lines = [json.loads(line) for line in re.findall(r"reproduce: (.+)", out)]
    assert lines == [
        f"ultrafolio check scenarios/03-virtio.toml --policy {name}"
        for name in ("whole-folio", "whole-folio-literal", "refuse-large")
    ]


def test_a_step_that_never_fires_is_reported_and_those_of_absent_actors_are_not(typed):
    (record,) = records(typed(VIRTIO, "--policy", "whole-folio", "--json")[1])
    never = record["never_fired"]
    assert {"import-call", "ring-teardown", "unpin"} <= set(never)
    assert not {"import-freeze", "reclaim-lock", "reboot-quiet", "lru-add", "writeback-start"} & set(never)
    said = " ".join(typed(VIRTIO, "--policy", "whole-folio")[1].split())
    assert f"steps that never fired: {', '.join(never)}" in said


def test_a_story_names_the_page_of_each_call_and_the_pin_that_fails(typed):
    _, out, _ = typed(VIRTIO, "--policy", "whole-folio")
    said = [" ".join(line.split()[1:]) for line in out.splitlines()]
    at = said.index("virtio 1 accessible-pin page 0")
    assert [line for line in said[at:] if line.startswith("virtio 1 accessible-")][1:3] == [
        "virtio 1 accessible-pin page 1 fails",
        "virtio 1 accessible-export page 1",
    ]


def test_twice_the_same_bytes(typed):
    words = PATHS["12-bitmap-writeback"], PATHS["18-iomap-two-vcpus"], "--json"
    assert typed(*words) == typed(*words)


def test_a_limit_gives_unknown_and_never_holds(typed):
    code, out, _ = typed(PATHS["07-over-indication"], "--policy", "per-page", "--max-states", 1000, "--json")
    (record,) = records(out)
    assert code == 3 and record["verdict"] == "unknown" and record["kind"] is None
    assert "1000" in record["reason"] and record["states"] >= 1000
    assert {p["verdict"] for p in record["properties"]} == {"unknown"}


def test_a_violation_found_before_the_limit_is_still_one(typed):
    words = PATHS["39-busy-folio"], "--policy", "whole-folio-literal", "--max-states", 5000, "--json"
    code, out, _ = typed(*words)
    (record,) = records(out)
    assert code == 1 and (record["verdict"], record["kind"]) == ("violated", "safety") and record["reason"]


def test_expect_compares_with_the_table(typed, tmp_path):
    assert typed(VIRTIO, "--expect")[0] == 0
    changed = tmp_path / "changed.toml"
    changed.write_text(PATHS["03-virtio"].read_text().replace("states = 62", "states = 63"))
    code, out, _ = typed(changed, "--expect")
    assert code == 1 and "whole-folio: states is 62, expected 63" in out
    changed.write_text(PATHS["03-virtio"].read_text().replace("states = 62", "stats = 62"))
    code, _, err = typed(changed, "--expect")
    assert code == 2 and "stats" in err and "states" in err


def test_the_matrix_and_what_differs_between_two_policies(typed, monkeypatch):
    monkeypatch.chdir(ROOT)
    code, out, _ = typed("--all", "--diff-policy", "split-writeback", "import-lock")
    named = {line.split()[0]: line.split()[1:3] for line in out.splitlines() if line[:2].isdigit()}
    assert code == 1
    assert named["53-two-first-imports"] == ["livelock", "waits"] and "18-iomap-two-vcpus" not in named
    assert named["30-import-mutex"] == ["holds", "waits"]
    assert "03-virtio" not in named


BAD = {
    "not TOML": ("title = \n", "line 1"),
    "an unknown table": (GOOD + "[[vpcu]]\n", "vcpu"),
    "an unknown field": (GOOD + "tuch = [1]\n", "touch"),
    "a single bracket": ("[memory]\nfolios = [0]\n[vcpu]\n", "[[vcpu]]"),
    "no memory": ('title = "mine"\n[[vcpu]]\n', "memory"),
    "nobody acts": ("[memory]\nfolios = [0]\n", "[[vcpu]]"),
    "a page that does not exist": (GOOD.replace("[1]\n    [[", "[0]\n    [["), "0 to 0"),
    "an unknown state": (GOOD.replace("folios", 'state = ["secrue"]\n    folios'), "secure"),
    "too few states": (GOOD.replace("folios = [1]", 'folios = [1]\n    state = ["secure", "secure", "secure"]'), "2"),
    "a folio that is not aligned": (GOOD.replace("[1]\n    [[", "[0, 1]\n    [["), "naturally aligned"),
    "an order that is too large": (GOOD.replace("[1]\n    [[", "[10]\n    [["), "9"),
    "an unknown backing": (GOOD.replace("folios", 'backing = "ext4"\n    folios'), "iomap"),
    "a budget out of range": (GOOD + "    starts = 256\n", "255"),
    "text for a number": (GOOD + '    cpu = "one"\n', "cpu"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_scenario_is_refused_with_one_clear_message(typed, tmp_path, what):
    text, hint = BAD[what]
    file = tmp_path / "mine.toml"
    file.write_text(textwrap.dedent(text))
    code, out, err = typed(file)
    assert (code, out) == (2, "")
    assert err.startswith("ultrafolio: ") and err.count("ultrafolio: ") == 1
    assert "mine.toml" in err and hint in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ([], "no scenario given"),
        (["nowhere.toml"], "nowhere.toml"),
        ([VIRTIO, "--policy", "splt"], "split"),
        ([VIRTIO, "--policy", "nowhere.toml"], "nowhere.toml"),
        ([VIRTIO, "--max-states", "0"], "max-states"),
    ],
)
def test_a_bad_command_is_refused_too(typed, words, hint):
    code, out, err = typed(*words)
    assert (code, out) == (2, "") and hint in err and "Traceback" not in err


def test_too_many_actors_are_refused(typed, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(textwrap.dedent(GOOD) + "[[vcpu]]\n" * 63)
    code, _, err = typed(file, "--policy", "per-page")
    assert code == 2 and "at most 63" in err
