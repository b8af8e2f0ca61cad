"""`ultrafolio search`: its text and JSON, the same from one process and several, resumed or not; what it refuses."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from ultrafolio.api.survivors import plan_of
from ultrafolio.check.verdicts.verdict import check
from ultrafolio.cli import cli
from ultrafolio.errors import InputError
from ultrafolio.model.policies import find_any
from ultrafolio.names.find import found

FILES = ("g07-own-batch", "g42-never-delegated", "g38-removal-fails")


def typed(*words):
    result = CliRunner().invoke(cli, ["search", *words], standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.return_value, result.output


def test_the_answer_is_the_same_from_processes_and_from_stored_tables(tmp_path):
    code, said = typed(*FILES, "--json", "--out", str(tmp_path / "one"), "--from", "gmem-7.4")
    assert code == 0
    again = [
        typed(*FILES, "--json", "--from", "gmem-7.4", "--workers", "2", "--out", str(tmp_path / "two")),
        typed(*FILES, "--json", "--from", "gmem-7.4", "--out", str(tmp_path / "one")),
    ]
    (tmp_path / "one" / "g07-own-batch.search").unlink()
    again.append(typed(*FILES, "--json", "--from", "gmem-7.4", "--out", str(tmp_path / "one")))
    assert again == [(0, said)] * 3
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
    made = json.loads(said)
    assert made["policies"] == 5_760
    assert [one["scenario"] for one in made["nobody_passes"]] == ["g42-never-delegated"]
    assert made["survivors"] == 3_960 <= sum(row["policies"] for row in made["front"][0]["rows"])
    assert [one["scenario"] for one in made["from"]["fails"]] == ["g38-removal-fails"]
    assert made["from"]["survives_after"] == [
        {"changes": {"convert": "two-backings"}, "then_fails": []}, {"changes": {"stuck": "kept"}, "then_fails": []},
    ]  # fmt: skip


def test_the_text_has_commands_that_show_the_stories(tmp_path):
    code, said = typed(*FILES, "--require", "drain=none", "--require", "stuck=ignored")
    assert code == 0
    assert "guest_memfd: 1440 policies with drain=none stuck=ignored, 3 scenarios" in said
    commands = [line.split() for line in said.splitlines() if line.strip().startswith("ultrafolio check")]
    assert len(commands) == 2
    for _, _, name, _, policy in commands:
        assert check(found(Path(name)), name, find_any(policy), policy).verdict == "violated"


def test_no_survivor_tells_the_least_that_fails():
    required = ("large=split-after-store|none", "drain=none", "hold=mapped", "convert=in-place")
    words = [word for one in required for word in ("--require", one)]
    code, said = typed("g23-no-memory-for-the-folio", "g07-own-batch", *words)
    assert code in (0, 1)
    assert ("no policy passes all else" in said) == (code == 1)


@pytest.mark.parametrize(
    "words, said",
    [
        (["g07-own-batch", "03-virtio"], "two designs"),
        (["g07-own-batch", "--require", "drain"], "CHOICE=VALUE"),
        (["g07-own-batch", "--require", "drain=never"], "none, once"),
        (["g07-own-batch", "--require", "convert=by-guest"], "no policy is left"),
        (["g07-own-batch", "--from", "split"], "another design"),
        (["g07-own-batch", "--from", "gmem-7.4", "--require", "drain=none"], "--from is not one"),
        (["g07-own-batch", "--from", "gmem-7.4,retries=7"], "retries"),
        (["g07-own-batch", "--set-aside", "03-virtio"], "not searched"),
        (["03-virtio", "--machine", "tdx"], "one machine"),
        (["no-such-scenario"], "no-such-scenario"),
    ],
)
def test_what_is_refused(words, said):
    with pytest.raises(InputError, match=said):
        typed(*words)


def test_nothing_is_left_where_every_policy_fails():
    code, said = typed("g42-never-delegated")
    assert code == 1
    assert said.endswith("no scenario is left to ask\n")


def test_bugs_of_a_kernel_are_left_out():
    _, said = typed("40-gup-skips-a-page", "--from", "linux-6.14", "--json", "--require", "large=split",
                    "--require", "import_ref=held", "--require", "drain=all", "--require", "import_lock=none",
                    "--require", "on_busy=refault", "--require", "large_at=before-lock")  # fmt: skip
    made = json.loads(said)["from"]
    assert made["policy"] == "linux-6.14"
    assert made["without_bugs"] == bool(find_any("linux-6.14").variants)


PLAN = """
[fixed]
duration_us = 200
[grid]
order = [0, 1]
policy = ["split"]
seed = "1-2"
"""


def test_a_sweep_of_the_survivors(tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN)
    required = ("large=direct", "refs=page", "accessible=page", "unmap=page", "interrupt=get", "import_ref=none",
                "large_at=before-lock", "on_busy=refault", "import_lock=none")  # fmt: skip
    words = ["29-lru-other-cpu", *(word for one in required for word in ("--require", one))]
    code, said = typed(*words, "--sweep", str(plan), "--out", str(tmp_path / "out"), "--json")
    made = json.loads(said)
    assert code == 0
    assert made["survivors"] == 6
    assert made["sweep"]["cells"] == 6 * 2 * 2
    front = made["sweep"]["front"]
    assert 1 <= sum(one["policies"] for one in front) <= 6
    measures = [tuple(one["measures"].values()) for one in front]
    for one in measures:
        assert not any(other[0] >= one[0] and all(o <= m for o, m in zip(other[1:], one[1:], strict=True))
                       for other in measures if other != one)  # fmt: skip
    _, text = typed(*words, "--sweep", str(plan), "--out", str(tmp_path / "out"))
    assert "24 runs, no other one beats:" in text
    with pytest.raises(InputError, match="--out DIR"):
        typed(*words, "--sweep", str(plan))


def test_a_plan_that_drops_policies_is_refused(tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN + '[[skip]]\npolicy = "split"\n')
    with pytest.raises(InputError, match="skip"):
        plan_of(plan, ["per-page"])
