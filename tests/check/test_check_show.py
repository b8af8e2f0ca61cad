"""The words for a step in a story."""

import pytest

from checking import PATHS, checked, story, system
from ultrafolio.check.verdicts.replay import replay
from ultrafolio.check.verdicts.verdict import Extent, check
from ultrafolio.export.text import result_text
from ultrafolio.export.text import story as told
from ultrafolio.model.layout import ACTOR_KINDS, DISK, INTERRUPT, PIN, REBOOT, RING, VCPU
from ultrafolio.model.policies import find

ENDS = [("25-reboot-with-device", "reboots"), ("26-shutdown-under-io", "shuts down")]


@pytest.mark.parametrize(("name", "ends"), ENDS)
def test_a_guest_reboots_or_shuts_down_and_touches_no_page_by_it(name, ends):
    actor = [kind for kind, _ in story(name).actors].index(REBOOT)
    steps, _ = replay(system(name, "per-page"), [actor << 16])
    assert told(steps)[0].split(None, 1) == ["1", f"{ACTOR_KINDS[REBOOT]} {actor} {ends}"]


def test_a_vcpu_touches_the_page_it_chose():
    steps, _ = replay(system("03-virtio", "per-page"), [0])
    assert "vcpu 0 touch page" in told(steps)[0]


@pytest.mark.parametrize("name", ["60-two-first-touches", "03-virtio", "18-iomap-two-vcpus", "02-direct-io"])
@pytest.mark.parametrize("policy", ["split-writeback", "per-page", "whole-folio"])
def test_every_vcpu_and_device_is_reported(name, policy):
    """Either a finding names its wait, or a line says that it has none; never both."""
    (name,) = (known for known in PATHS if known[:2] == name[:2])
    result = checked(name, policy)
    waiting = {finding.actor for finding in result.waits}
    for number, (kind, _) in enumerate(story(name).actors):
        line = f"{ACTOR_KINDS[kind]} {number}: {'never waits' if kind == VCPU else 'no wait stays'}"
        told = line in result_text(result).splitlines()
        assert told == (kind in (VCPU, DISK, RING, PIN, INTERRUPT) and number not in waiting)


def test_the_other_vcpu_gets_through():
    (name,) = (known for known in PATHS if known.startswith("60"))
    assert "vcpu 1: never waits" in result_text(checked(name, "split-writeback")).splitlines()


def test_an_incomplete_graph_reports_no_actor_without_a_wait():
    few = check(story("03-virtio"), "03-virtio", find("per-page"), "per-page", Extent(max_states=5))
    safe = check(story("03-virtio"), "03-virtio", find("per-page"), "per-page", Extent(safety=True))
    assert not few.complete and not any("never waits" in result_text(some) for some in (few, safe))
