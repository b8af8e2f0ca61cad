"""Cells on the live cluster: the services take the simulator's steps and end in its state; a difference is reported."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from running_cluster import running
from ultrafolio.cli import cli
from ultrafolio.errors import InputError
from ultrafolio.model.layout import OK, SUCCESS
from ultrafolio.rpc import follow
from ultrafolio.rpc.cluster import Cluster
from ultrafolio.sim.config import AXES, resolve

CELL = {
    "order": 2,
    "duration_us": 60,
    "pages": 256,
    "pool_pages": 16,
    "rings": 1,
    "share_rate": 0.1,
    "writeback_us": 20,
}


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    with running(tmp_path_factory.mktemp("f")) as where:
        yield where


@pytest.fixture
def cluster(where):
    with Cluster.at(where) as cluster:
        yield cluster


@pytest.mark.parametrize("policy", ["whole-folio", "split-writeback"])
def test_a_cell_takes_the_same_steps_to_the_same_state(cluster, policy):
    done = follow.follow(cluster, resolve(CELL | {"policy": policy}, Path()), Path(), most=120)
    assert done == follow.Followed(120, "")


def test_a_difference_is_reported_at_its_step(cluster, monkeypatch):
    cell = resolve(CELL | {"policy": "per-page"}, Path())
    start, steps = follow.recorded(cell, Path())
    wrong = [*steps[:9], steps[9]._replace(outcome=OK if steps[9].outcome != OK else SUCCESS)]
    monkeypatch.setattr(follow, "recorded", lambda settings, base: (start, wrong))
    done = follow.follow(cluster, cell, Path(), most=100)
    assert done.steps == 9
    assert done.differs.startswith("step 9, ") and "the cluster" in done.differs


def test_a_plan_runs_on_the_cluster(where, tmp_path):
    (tmp_path / "where.json").write_text(json.dumps(where))
    fixed = "".join(f"{name} = {value}\n" for name, value in CELL.items())
    (tmp_path / "plan.toml").write_text(f'[fixed]\n{fixed}[grid]\npolicy = ["per-page", "import-lock"]\n')
    words = ["sweep", str(tmp_path / "plan.toml"), "--engine", "cluster", "--cluster", str(tmp_path / "where.json")]
    done = CliRunner().invoke(cli, [*words, "--steps", "60"])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [f"policy={p}: 60 steps, no difference" for p in ("per-page", "import-lock")]


def test_the_line_of_a_cell_is_that_of_its_run(where, tmp_path):
    (tmp_path / "where.json").write_text(json.dumps(where))
    small = CELL | {"duration_us": 2}
    fixed = "".join(f"{name} = {value}\n" for name, value in small.items())
    (tmp_path / "plan.toml").write_text(f'[fixed]\n{fixed}[grid]\npolicy = ["per-page", "whole-folio"]\n')
    words = ["sweep", str(tmp_path / "plan.toml"), "--engine", "cluster", "--cluster", str(tmp_path / "where.json")]
    run = CliRunner()
    lines = run.invoke(cli, [*words, "--brief"]).output.splitlines()
    for line, policy in zip(lines, ("per-page", "whole-folio"), strict=True):
        axes = [f"--{name.replace('_', '-')}={value}" for name, value in small.items() if name in AXES]
        fields = [word for name, value in small.items() if name not in AXES for word in ("--set", f"{name}={value}")]
        alone = run.invoke(cli, ["run", f"--policy={policy}", *axes, *fields, "--brief"]).output.strip()
        assert line == alone.replace("by=run", "by=cluster") and f"Observation default {policy} " in line
    cut = run.invoke(cli, [*words, "--brief", "--steps", "3"]).output.splitlines()
    assert [one.split()[3] for one in cut] == ["Unknown", "Unknown"]
    assert [one.split()[-2] for one in cut] == [one.split()[-2] for one in lines]


def test_a_cluster_must_be_named(tmp_path):
    (tmp_path / "plan.toml").write_text('[grid]\npolicy = ["per-page"]\n')
    done = CliRunner().invoke(cli, ["sweep", str(tmp_path / "plan.toml"), "--engine", "cluster"], standalone_mode=False)
    assert isinstance(done.exception, InputError) and "--cluster FILE" in str(done.exception)


def test_a_cell_that_is_no_group_is_refused(cluster):
    with pytest.raises(InputError, match="too many pages"):
        follow.follow(cluster, resolve({"pages": 1 << 16, "duration_us": 1}, Path()), Path(), most=1)
