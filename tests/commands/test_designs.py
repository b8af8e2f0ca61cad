"""Each command takes a scenario or a policy of the design guest_memfd, or refuses it with a reason."""

import json
import re
import shlex

import click
import pytest

from checking import ROOT
from ultrafolio.cli import cli, main
from ultrafolio.model.designs import NUMBERS
from ultrafolio.model.guest_memfd import machines

NAME, POLICY = "g16-vfio-pin", ["--policy", "gmem-7.4"]
TAKEN = {
    "check": ["check", NAME, *POLICY],
    "check all policies": ["check", NAME],
    "check json why": ["check", NAME, *POLICY, "--json", "--why"],
    "check two": ["check", NAME, "--diff-policy", "gmem-7.4", "gmem-no-drain"],
    "check both designs": ["check", NAME, "03-virtio", "--safety"],
    "check limit": ["check", NAME, *POLICY, "--max-states", "10", "--why"],
    **{
        f"check {form}": ["check", NAME, *POLICY, "--format", form]
        for form in ("mermaid", "itf", "chrome", "tap", "ktap", "prose")
    },
    "check machines": ["check", NAME, *POLICY, "--machine", "all"],
    "explore": ["explore", NAME, *POLICY, "--goto", "counterexample"],
    "promela": ["check", NAME, *POLICY, "--export", "promela"],
    "promela of another machine": ["check", NAME, *POLICY, "--machine", "tdx", "--export", "promela-fair"],
    "trace file": ["check", NAME, *POLICY, "--save", "story.json"],
    "explore machine": ["explore", NAME, *POLICY, "--machine", "cca", "--json"],
    "explore machines": ["explore", NAME, *POLICY, "--machine", "all", "--path", "0.0"],
    "explore json": ["explore", NAME, *POLICY, "--json"],
    "explore why not": ["explore", NAME, *POLICY, "--why-not", "mm[0].private == 1"],
    "run": ["run", NAME],
    "run json": ["run", NAME, *POLICY, "--json"],
    "run machine": ["run", NAME, *POLICY, "--machine", "snp", "--brief"],
    "run of the default workload": ["run", *POLICY, "--duration-us", "10"],
    "link": ["check", NAME, "--link", "--machine", "all"],
    "vary": ["check", NAME, *POLICY, "--vary", "vcpus=1..2"],
    "vary machines": ["check", NAME, *POLICY, "--vary", "order=0..1", "--machine", "all", "--json"],
    "scenario": ["scenario", NAME, "--short"],
    "policies": ["policies", "--json"],
    "rules": ["rules", "--design", "guest_memfd"],
    "proof": ["prove", *POLICY, "--kinds", "lru,speculative", "--property", "14"],
    "waits for every size": ["prove", *POLICY, "--kinds", "lru,speculative", "--hangs"],
}
REFUSED = {
    "two designs": ["check", "--all", "--diff-policy", "gmem-7.4", "split"],
    "policy of s390": ["check", NAME, "--policy", "split"],
    "policy of guest_memfd": ["check", "03-virtio", *POLICY],
    "symmetry": ["check", NAME, *POLICY, "--symmetry"],
    "nothing left": ["check", NAME, "--design", "s390"],
    "run of s390": ["run", NAME, "--policy", "split"],
    "machine of s390": ["check", "03-virtio", "--machine", "snp"],
    "explored machine of s390": ["explore", "03-virtio", "--policy", "split", "--machine", "snp"],
    "run machine of s390": ["run", "03-virtio", "--machine", "all"],
    "run machine of a plan": ["run", "--machine", "snp"],
    "machine that the guest cannot use": ["check", NAME, "--policy", "pkvm", "--machine", "snp"],
    "run of a plan of s390": ["run", "seed", "--workload", "disk", *POLICY],
    "monitor": ["export", "--format", "rv", "--scenario", NAME, *POLICY],
    "proof of both designs": ["prove", *POLICY, "--policy", "split"],
}


def test_the_document_has_a_row_for_each_command():
    rows = (ROOT / "docs/model.md").read_text().partition("### 9.11 ")[2]
    told = [name for first in re.findall(r"^\| (`.*?) \|", rows, re.M) for name in re.findall(r"`(\w+)`", first)]
    assert sorted(told) == sorted(cli.list_commands(click.Context(cli)))


def ended(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    return int(end.value.code or 0), capsys.readouterr()


@pytest.mark.parametrize("name", TAKEN)
def test_what_takes_the_design_says_something_of_it(name, capsys, tmp_path, monkeypatch):
    if name in ("proof", "waits for every size"):
        pytest.importorskip("z3", reason="the extra `prove` is not installed")
    monkeypatch.chdir(tmp_path)
    code, said = ended(TAKEN[name], capsys)
    assert code in (0, 1, 3) and said.out.strip() and "unexpectedly" not in said.err, said.err


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_take_it_refuses_it_and_writes_nothing(name, capsys, tmp_path, monkeypatch):
    if REFUSED[name][0] == "prove":
        pytest.importorskip("z3", reason="the extra `prove` is not installed")
    monkeypatch.chdir(tmp_path)
    code, said = ended(REFUSED[name], capsys)
    assert code == 2 and "design" in said.err and not list(tmp_path.iterdir()), said.err


def test_fields_constants_and_places_are_those_of_the_design(capsys):
    """Both layouts use the same numbers for other things: pt.present 2, and most places of rules."""
    code, said = ended(["explore", "g01-to-private", *POLICY, "--goto", "pt[0].present == MAPPED_PRIVATE"], capsys)
    assert code == 0 and "pt[0].present unmapped -> mapped as private" in " ".join(said.out.split())
    assert "task[0].pc fault-map -> vcpu-again" in " ".join(said.out.split()), said.out
    code, said = ended(
        ["explore", NAME, *POLICY, "--why-not", "task[1].pc == DMA_READY and mm[0].private == 1"], capsys
    )
    assert code == 0 and "task[1].pc is pin-start" in said.out, said.out
    code, said = ended(["explore", NAME, *POLICY, "--goto", "mm[0].arch == 1"], capsys)
    assert code == 2 and "no field 'arch' in mm" in said.err


RISKY = ["check", "g38-removal-fails", "g16-vfio-pin", "g24-second-huge-page-pinned", "g10-pinned-and-batched"]


def test_every_cell_of_the_table_of_risks_has_its_story(capsys):
    """Each command that the table names exits 1, and tells first what the cell says."""
    names = {f"property{number}": name for name, number in NUMBERS.items()}
    code, said = ended([*RISKY, "--machine", "all"], capsys)
    commands = dict(re.findall(r"^\[(\d+)\] ultrafolio (.*)$", said.out, re.M))
    cells = dict((number, what) for what, number in re.findall(r"(\S+) \[(\d+)\]", said.out.partition("\n[1] ")[0]))
    assert code == 1 and len(commands) > 20 and set(cells) == set(commands)
    rows = [line.split() for line in said.out.splitlines() if line.startswith("gmem-7.4")]
    assert {row[1] for row in rows} == set(machines.NAMES)
    for number, words in commands.items():
        code, story = ended(words.split(), capsys)
        first = " ".join(story.out.split()).partition(" # guest ")[0]
        assert code == 1 and names.get(cells[number], f"({cells[number]})") in first, words
    assert any("--machine snp" in words for words in commands.values())
    assert any("--story request" in words for words in commands.values()), "a hang behind a worse finding"


def test_the_table_of_risks_has_a_row_for_each_holder(capsys):
    """Of the first RFC: a pin, the batch of a CPU, both. Where nothing is at risk a policy has one row."""
    _, said = ended([*RISKY, "--machine", "all", "--policy", "gmem-no-drain", "--policy", "gmem-two-backings"], capsys)
    rows = [line.split() for line in said.out.splitlines() if " software " in line and not line.startswith("[")]
    assert [row[:4] for row in rows] == [
        ["gmem-no-drain", "software", "pin", "vmm-bound"],
        ["gmem-no-drain", "software", "pin+batch:cpu", "permanent"],
        ["gmem-two-backings", "software", "-", "-"],
    ]
    columns = said.out.splitlines()[0]
    for name in ("held by", "a conversion hangs", "a fault or pin hangs", "loses content", "exposes a page", "else"):
        assert name in columns


def test_a_refusal_is_told_with_the_page_that_it_names(capsys):
    """The branch of December 2025 names a page before the request, which begins with page 1."""
    for words, said in (
        (["g04-one-of-four-pinned", *POLICY], "convert-pinned: -EAGAIN at page 2\n"),
        (["error-before-the-request", "--policy", "gmem-hugetlb-2025-12"], "convert-count: -EAGAIN at page 0\n"),
        (["g23-no-memory-for-the-folio", "--policy", "gmem-hugetlb-2025-05"], "restructure: -ENOMEM at page 3\n"),
    ):
        assert said in ended(["check", *words], capsys)[1].out


def test_another_story_than_the_worst_is_printed_by_its_name(capsys):
    words = ["check", "g24-second-huge-page-pinned", "--policy", "gmem-hugetlb-2025-12"]
    code, said = ended([*words, "--story", "request"], capsys)
    assert code == 1 and "from here for ever" in said.out and "(vmm-bound)" in said.out
    assert "reproduce: ultrafolio check g24-second-huge-page-pinned" in said.out and "--story request" in said.out
    code, worst = ended([*words, "--story", "12"], capsys)
    assert code == 1 and "a refused request leaves every attribute as it was (safety)" in worst.out
    code, said = ended([*words, "--story", "23"], capsys)
    assert code == 2 and "12, request" in said.err and said.err.rstrip().endswith(shlex.join(["ultrafolio", *words]))
    code, said = ended(["check", "g24-second-huge-page-pinned", "--story", "request"], capsys)
    assert code == 2 and "--story prints one story" in said.err
    for other in (["--json"], ["--brief"], ["--why"]):
        code, said = ended([*words, "--story", "request", *other], capsys)
        assert code == 2 and "--story is told as text" in said.err


def test_a_walk_is_repeated_on_each_machine_that_the_policy_is_for(capsys):
    words = ["explore", "g38-removal-fails", *POLICY, "--machine", "all", "--path", "0.0"]
    code, said = ended([*words, "--json"], capsys)
    made = json.loads(said.out)
    assert code == 0 and {made["machine"], *(one["machine"] for one in made["in_step"])} == set(machines.NAMES)
    assert made["reproduce"] == shlex.join(["ultrafolio", *words])
    code, said = ended(words, capsys)
    assert "g38-removal-fails under gmem-7.4 on software: path 0.0" in said.out
    assert "the same under gmem-7.4 on snp" in said.out
    code, said = ended(["explore", "g47-kernel-takes-a-page", "--policy", "pkvm", "--machine", "all", "--json"], capsys)
    made = json.loads(said.out)
    assert made["machine"] == "pkvm" and made["in_step"] == []


def test_the_story_of_another_machine_is_that_of_check(capsys):
    """On snp the page that is not given back is shared all the same (property 19), on tdx the host meets it (17)."""
    for machine, wrong in (("snp", "no page that the machine has not given back"), ("tdx", "the host meets no page")):
        words = ["explore", "g38-removal-fails", *POLICY, "--machine", machine, "--goto", "counterexample"]
        code, said = ended(words, capsys)
        assert code == 0 and wrong in said.err + said.out and f"on {machine}: path" in said.out, said.out


def test_a_run_on_another_machine_says_so_and_is_the_same_again(capsys):
    words = ["run", "g38-removal-fails", *POLICY, "--duration-us", "200"]
    code, said = ended([*words, "--machine", "all", "--brief"], capsys)
    lines = said.out.splitlines()
    assert code == 1 and len(lines) == len(machines.NAMES) == len(set(lines))
    for name, line in zip(machines.NAMES, lines, strict=True):
        _, said = ended([*words, "--machine", name, "--brief"], capsys)
        assert said.out.splitlines() == [line]
    code, said = ended([*words, "--machine", "all"], capsys)
    assert [line for line in said.out.splitlines() if line.startswith("on ")] == [f"on {n}:" for n in machines.NAMES]
    assert "--machine snp" in said.out


def test_the_steps_of_one_machine_are_written(capsys, tmp_path):
    steps = tmp_path / "steps.ndjson"
    code, said = ended(["run", NAME, "--machine", "all", "--trace", str(steps)], capsys)
    assert code == 2 and "one run" in said.err and not steps.exists()
    code, said = ended(["check", NAME, *POLICY, "--machine", "all", "--export", "promela"], capsys)
    assert code == 2 and "--export writes one program" in said.err


def test_a_run_of_the_default_workload_takes_machine_and_holder_and_is_the_same_again(capsys):
    words = ["run", *POLICY, "--order", "4", "--duration-us", "300", "--set", "holder=vfio"]
    said = {name: ended([*words, "--machine", name], capsys)[1].out for name in ("snp", "tdx")}
    assert said["snp"] != said["tdx"]
    for out in said.values():
        again = shlex.split(re.findall(r"reproduce: ultrafolio (.+)", out)[0])
        assert ended(again, capsys)[1].out == out
    code, made = ended(["run", "--policy", "pkvm", "--duration-us", "300", "--machine", "all", "--brief"], capsys)
    assert code == 0 and len(made.out.splitlines()) == 1, "pkvm is for one machine"


@pytest.mark.parametrize(
    ("name", "policy", "machine"),
    [
        ("g16-vfio-pin", "gmem-7.4", "software"),
        ("g16-vfio-pin", "unmap-first", "software"),
        ("g13-gup-fast", "gmem-7.4", "software"),
        ("g38-removal-fails", "gmem-7.4", "snp"),
    ],
)
def test_a_story_is_certified_from_its_file_and_a_changed_one_is_not(name, policy, machine, capsys, tmp_path):
    """A wait that the VMM may end, one that ends, a livelock, and a broken property."""
    file = tmp_path / "story.json"
    ended(["check", name, "--policy", policy, "--machine", machine, "--save", str(file)], capsys)
    code, said = ended(["trace", "verify", str(file)], capsys)
    assert code == 0 and "certified" in said.out, said
    code, said = ended(["trace", "show", str(file)], capsys)
    assert code == 0 and name in said.out
    code, said = ended(["trace", "minimise", str(file)], capsys)
    made = json.loads(file.read_text())
    assert code == 0 and len(json.loads(said.out)["path"]) <= len(made["path"])
    for changed in (
        made | {"steps": [made["steps"][0] + "x", *made["steps"][1:]]},
        made | {"path": [99 << 16, *made["path"][1:]]},
        made | {"claim": made["claim"] | {"text": "another"}},
        made | {"start": "0" * 16},
    ):
        file.write_text(json.dumps(changed))
        code, said = ended(["trace", "verify", str(file)], capsys)
        assert code == 1 and "not certified" in said.out, said
    other = made["scenario"]["document"] | {"machine": "s390-uv"}
    file.write_text(json.dumps(made | {"scenario": made["scenario"] | {"document": other}}))
    code, said = ended(["trace", "verify", str(file)], capsys)
    assert code == 2 and "machine" in said.err
