"""check --workers: the same output as by one process, and clear errors from several."""

import json
import os
import signal
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from ultrafolio.cli import cli
from ultrafolio.commands import check_pairs
from ultrafolio.errors import Defect, InputError
from ultrafolio.forked import in_order

FILES = ["03-virtio", "11-posted-loops", "scenarios/guest_memfd/error-before-the-request.toml"]


def run(*words):
    done = CliRunner().invoke(cli, ["check", *words], standalone_mode=False)
    if done.exception:
        raise done.exception
    return done


@pytest.fixture
def many(monkeypatch):
    """Several processes are worth it for a few pairs, whether the functions are in the cache or not. Returns the
    designs that were to be compiled before; they are not, since these systems are small."""
    asked = []
    monkeypatch.setattr(check_pairs, "MANY", check_pairs.SOME)
    monkeypatch.setattr(check_pairs, "graph", SimpleNamespace(compiled=lambda design: asked.append(design.name)))
    return asked


@pytest.mark.parametrize("form", ["json", "tap", "prose"])
def test_the_output_is_the_same_from_one_process_and_from_three(form, many, monkeypatch):
    asked = []
    own = check_pairs.in_order
    monkeypatch.setattr(check_pairs, "in_order", lambda *given: asked.append(given[2]) or own(*given))
    alone, shared = (run(*FILES, "--format", form, "--workers", n).stdout for n in ("1", "3"))
    assert alone.replace("--workers 1", "--workers 3") == shared
    assert asked == [3]
    assert many == (["guest_memfd", "s390"] if check_pairs.rules.can_compile() else [])


def test_each_result_is_of_its_own_scenario_and_policy(many):
    records = [json.loads(line) for line in run(*FILES, "--json", "--workers", "2").stdout.splitlines()]
    assert len(records) >= check_pairs.SOME
    assert len({(r["scenario"], r["policy"]) for r in records}) == len(records)
    assert all(r["policy"] in r["reproduce"] for r in records)


def test_threads_of_one_exploration_take_the_place_of_processes(many, monkeypatch):
    monkeypatch.setattr(check_pairs, "in_order", lambda *given: pytest.fail("processes beside threads"))
    assert run(*FILES, "--brief", "--threads", "2").stdout.count("\n") >= check_pairs.SOME


def test_results_come_in_order_and_an_error_ends_them():
    def task(number):
        if number == 7:
            raise InputError("number", value=number, allowed="another")
        return number, os.getpid()

    made = []
    with pytest.raises(InputError, match="number"):
        for result in in_order(task, 20, 2, "-"):
            made.append(result)
    assert [number for number, _ in made] == list(range(7))
    assert os.getpid() not in {process for _, process in made}


def test_a_process_that_the_system_ends_is_named_with_what_to_type():
    def task(number):
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    with pytest.raises(InputError, match="was ended") as found:
        list(in_order(task, 8, 2, "ultrafolio check --all --workers 1"))
    assert "--workers 1" in str(found.value)


def test_a_defect_of_a_process_keeps_its_report():
    def task(number):
        raise Defect("the certificate contradicts a verdict", {"number": number})

    with pytest.raises(Defect) as found:
        list(in_order(task, 2, 2, "-"))
    assert found.value.report == {"number": 0}


def test_sizes_of_several_policies_are_the_same_from_one_process_and_from_two(many, monkeypatch):
    asked = []
    own = check_pairs.in_order
    monkeypatch.setattr(check_pairs, "in_order", lambda *given: asked.append(given[2]) or own(*given))
    words = ["18-iomap-two-vcpus", "--policy", "split", "--policy", "per-page", "--policy", "whole-folio"]
    words += ["--vary", "vcpus=1..2", "--vary", "order=1..2"]
    alone, shared = (run(*words, "--json", "--workers", n).stdout for n in ("1", "2"))
    assert alone.replace("--workers 1", "--workers 2") == shared
    assert shared.count("\n") >= check_pairs.SOME
    assert asked == [2]
