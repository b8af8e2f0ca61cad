"""What a step is called in a story."""

import pytest

from checking import story, system
from ultrafolio.check.replay import replay
from ultrafolio.check.show import story as told
from ultrafolio.model.layout import ACTOR_KINDS, REBOOT

ENDS = [("25-reboot-with-device", "reboots"), ("26-shutdown-under-io", "shuts down")]


@pytest.mark.parametrize(("name", "ends"), ENDS)
def test_a_guest_reboots_or_shuts_down_and_touches_no_page_by_it(name, ends):
    actor = [kind for kind, _ in story(name).actors].index(REBOOT)
    steps, _ = replay(system(name, "per-page"), [actor << 16])
    assert told(steps)[0].split(None, 1) == ["1", f"{ACTOR_KINDS[REBOOT]} {actor} {ends}"]


def test_a_vcpu_touches_the_page_it_chose():
    steps, _ = replay(system("03-virtio", "per-page"), [0])
    assert "vcpu 0 touch page" in told(steps)[0]
