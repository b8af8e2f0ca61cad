"""--safety, --symmetry and --threads: what they compute, what they omit, and when they are refused."""

import json

import pytest
from click.testing import CliRunner

from ultrafolio.cli import cli
from ultrafolio.commands import check
from ultrafolio.errors import InputError

FLIPPED = "scenarios/11-posted-loops.toml"


def run(*words):
    done = CliRunner().invoke(cli, ["check", *words], standalone_mode=False)
    if done.exception:
        raise done.exception
    return done


def record(*words):
    return json.loads(run(*words, "--json").output)


@pytest.mark.parametrize("flags", [["--safety"], ["--safety", "--threads", "2"]])
def test_safety_alone_counts_and_finds_the_same_and_says_nothing_of_waiting(flags):
    whole, part = (record(FLIPPED, "--policy", "whole-folio-literal", *more) for more in ([], flags))
    for field in ("states", "edges", "levels"):
        assert part[field] == whole[field]
    always = [p for p in whole["properties"] if " leads to " not in p["name"]]
    assert [(p["name"], p["verdict"], p["depth"]) for p in part["properties"]] == [
        (p["name"], p["verdict"], p["depth"]) for p in always
    ]
    assert any(p["verdict"] == "violated" for p in always)
    assert (whole["leads_to"], part["leads_to"]) == (True, False)
    assert part["reproduce"].endswith("--safety --json")


def test_symmetry_keeps_verdict_and_depth_with_fewer_states(tmp_path):
    scenario = tmp_path / "alike.toml"
    scenario.write_text(
        '[memory]\nfolios = [0, 0, 0, 0]\nstate = ["shared"]\n[[disk]]\npage = 0\n[[tamper]]\n[[vcpu]]\n',
        encoding="utf-8",
    )
    whole, folded = (record(str(scenario), "--policy", "per-page", flag) for flag in ("--safety", "--symmetry"))
    assert folded["states"] < whole["states"]
    for field in ("verdict", "kind", "depth", "levels"):
        assert folded[field] == whole[field]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ([FLIPPED, "--policy", "whole-folio", "--symmetry"], "folio"),
        ([FLIPPED, "--expect", "--safety"], "--expect"),
        (["--all", "--diff-policy", "split", "import-lock", "--policy", "per-page"], "--diff-policy"),
    ],
)
def test_what_would_be_unsound_or_means_nothing_is_refused(words, what):
    with pytest.raises(InputError, match=what):
        run(*words)


def test_all_from_any_folder_means_the_shipped_scenarios(tmp_path, monkeypatch):
    here = [path.stem for path in check.all_scenarios()]
    of_s390 = [path.stem for path in check.all_scenarios() if path.parent.name != "guest_memfd"]
    monkeypatch.chdir(tmp_path)
    assert [str(path) for path in check.all_scenarios()] == here and len(here) > 60
    done = run("--all", "--policy", "per-page", "--max-states", "2", "--json")
    asked = [json.loads(line)["scenario"] for line in done.output.splitlines()]
    assert asked == of_s390, "a policy is asked about the scenarios of its design"
