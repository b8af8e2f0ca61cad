"""Rounds of faults, also of the store's clock and of clients; each step is recorded once."""

import re
from pathlib import Path

import pytest

import chaos_rounds
import test_faults
from running_cluster import ROOT
from ultrafolio.model import scenario
from ultrafolio.model.policies import find
from ultrafolio.rpc.client import stamp
from ultrafolio.rpc.v1 import guest_pb2
from ultrafolio.state.validate import validate

KILLS = {name: fault for name, fault in chaos_rounds.FAULTS.items() if name.startswith("kill")}


def rounds(folder, seed, number, faults, replicas=1):
    with chaos_rounds.own_clock(folder) as clock:
        usable = {name: fault for name, fault in faults.items() if clock or not name.startswith("jump")}
        return test_faults.rounds_of_faults(folder, seed, number, faults=usable, replicas=replicas)


@pytest.fixture(autouse=True)
def hung(monkeypatch):
    """Every cluster has a group in which every touch waits; the validator accepts its stream at the end."""
    plain = chaos_rounds.cluster_at

    @chaos_rounds.contextmanager
    def with_a_hang(folder, replicas=1):
        with plain(folder, replicas) as cluster, cluster.client() as client:
            story = scenario.read(ROOT / "scenarios/25-reboot-with-device.toml")
            client.lay_out("gone", scenario.system(story, find("whole-folio", story.tables)), story.title)
            client.guest.Configure(stamp(guest_pb2.ConfigureRequest(group="gone", actor=1, page=0)))
            yield cluster
            verdict = validate(client.store.history("gone"), lambda: client.state("gone"))
            assert verdict.accepted, verdict

    monkeypatch.setattr(chaos_rounds, "cluster_at", with_a_hang)


def test_the_clock_jumps_and_clients_vanish(tmp_path):
    """The five rounds of this seed move the clock both ways, lose a client and kill a part."""
    assert rounds(tmp_path, 21, 5, chaos_rounds.OF_THE_WORLD | KILLS)["steps"] > 50


def test_owners_die_and_pause(tmp_path):
    """Two ultravisors and two hosts. The four rounds of this seed kill and pause an owner of each."""
    figures = rounds(tmp_path, 6, 4, chaos_rounds.OF_OWNERS, replicas=2)
    assert figures["steps"] > 50 and len(figures["faults"]) == 4


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_owners_die_and_pause_for_long(tmp_path):
    faults = chaos_rounds.OF_OWNERS | chaos_rounds.OF_THE_WORLD | {"kill redis": chaos_rounds.Proxied.kill_redis}
    assert rounds(tmp_path, 20_001, 200, faults, replicas=2)["steps"] > 5_000


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_clock_jumps_and_clients_vanish_for_long(tmp_path):
    assert rounds(tmp_path, 20_000, 200, chaos_rounds.OF_THE_WORLD | chaos_rounds.FAULTS)["steps"] > 20_000


def test_every_line_of_the_guide_has_its_test():
    tests = Path(__file__).parents[1]
    text = (tests.parent / "docs" / "faults.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", text))
    code = "".join(path.read_text() for path in tests.rglob("test_*.py"))
    there = set(re.findall(r"^def (test_\w+)", code, re.MULTILINE))
    assert len(named) > 10 and named <= there, named - there
