"""Each property is violated under a policy, a bug of a kernel, or a broken rule: none is vacuous."""

import pytest

from simulated import everything
from ultrafolio.engine.interp import to_lists, write_back
from ultrafolio.model import scenario
from ultrafolio.model.policies import find
from ultrafolio.model.properties import PROPERTIES
from ultrafolio.sim import build, costs
from ultrafolio.sim.load import interpreted

COSTS = costs.from_table({}, "default")
SEEDS = range(1, 7)
MIXED = {"folios": [1], "state": ["shared", "secure"]}
TWO_GUESTS = {"folios": [0], "state": ["secure"]}

BROKEN = {
    "writeback without making accessible": (
        1, "per-page",
        {"make_accessible(s, t, s.task[t].page, True, WB_IO)": "s.task[t].pc = WB_IO"},
        {"memory": MIXED, "vcpu": [{"touch": [1]}], "writeback": [{"starts": 5}]},
    ),
    "direct I/O without making accessible": (
        1, "per-page",
        {"make_accessible(s, t, p, unit != ACC_UNIT_PAGE, PIN_GET)": "pass"},
        {"memory": MIXED, "vcpu": [{"touch": [1]}], "disk": [{"page": 1, "starts": 5}]},
    ),
    "the arch bit is not set before the import": (
        2, "per-page",
        {"    set_arch(s, s.task[t].page)\n": ""},
        {"memory": {"folios": [0], "state": ["exported"]}, "vcpu": [{"touch": [0]}]},
    ),
    "the arch bit is cleared before the export": (
        2, "per-page",
        {"    k.failed = k.i + 1\n": "    k.failed = k.i + 1\n    clear_arch(s, k.i)\n"},
        {"memory": {"folios": [0]}, "vcpu": [{"touch": [0]}], "disk": [{"page": 0, "starts": 3}]},
    ),
    "unshare-all without destroy": (
        2, "per-page",
        {"uv.state, uv.owner, uv.shared, uv.altered = NON_SECURE, 0, 0, 0": "uv.state = SECURE"},
        {"memory": {"folios": [0], "state": ["pinned_shared"]}, "vcpu": [{"touch": [0]}], "reboot": [{}]},
    ),
    "the posted loops, as posted": (
        3, "whole-folio-literal", {},
        {"memory": MIXED, "vcpu": [{"touch": [1]}], "disk": [{"page": 0, "starts": 3}]},
    ),
    "export without trying to pin": (
        3, "per-page",
        {"    if uv_pin(s, k.i) == UV_OK:\n        return page_done(s, t)\n    k.failed = k.i + 1\n":
         "    k.failed = 0\n"},
        {"memory": MIXED, "vcpu": [{"touch": [1]}], "disk": [{"page": 0, "starts": 3}]},
    ),
    "a fast pin that goes on past a page that failed": (
        1, "linux-6.17~d16a74f0f266", {},
        {"memory": {"folios": [0, 0], "refuses": [0]}, "vcpu": [{"touch": [1]}],
         "disk": [{"page": 0, "pages": 2, "starts": 5}]},
    ),
    "import without the reference check": (
        4, "per-page",
        {"    if extra_refs(s, k.page) > k.ref or never_matches(s, k.page):": "    if False:"},
        {"memory": {"folios": [0]}, "vcpu": [{"touch": [0]}], "disk": [{"page": 0, "starts": 5}]},
    ),
    "import without the writeback check": (
        4, "per-page",
        {"    if s.mm[head(s, k.page)].writeback != NO_WRITEBACK:\n        unlock": "    if False:\n        unlock"},
        {"memory": {"folios": [0]}, "vcpu": [{"touch": [0]}], "writeback": [{"starts": 5}]},
    ),
    "a second mapping, as in the kernel": (
        5, "import-lock", {},
        {"memory": {"folios": [0], "state": ["exported"]}, "vcpu": [{"touch": [0]}],
         "mapping": [{"starts": 200}], "reclaim": [{"starts": 50}]},
    ),
    "a pin that does not look whether the count is frozen": (
        5, "per-page",
        {"    if s.mm[counted(s, p)].frozen:\n        return frozen_met(s, t)\n": ""},
        {"memory": {"folios": [0], "state": ["exported"]}, "vcpu": [{"touch": [0]}],
         "disk": [{"page": 0, "starts": 50}]},
    ),
    "an import that freezes without the page-table lock": (
        5, "linux-7.0", {},
        {"memory": {"folios": [0], "state": ["exported"]}, "vcpu": [{"touch": [0]}],
         "disk": [{"page": 0, "starts": 100}]},
    ),
    "an ultravisor that does not check integrity": (
        6, "per-page",
        {"        if s.mm[p].altered:\n            return UV_INTEGRITY\n        uv.state": "        uv.state"},
        {"memory": {"folios": [0], "state": ["exported"]}, "vcpu": [{"touch": [0]}], "tamper": [{"starts": 1}]},
    ),
    "hardware that does not look at the owner": (
        7, "per-page",
        {"    return PGM_3F if uv.state == SECURE else PGM_3E\n": "    return ALLOWED\n"},
        {"memory": TWO_GUESTS, "vcpu": [{"guest": 0, "touch": [0]}, {"guest": 1, "touch": [0]}]},
    ),
    "an ultravisor call that fails during writeback": (
        8, "per-page", {},
        {"memory": {**MIXED, "refuses": [1]}, "vcpu": [{"touch": [0]}], "writeback": [{"starts": 1}]},
    ),
    "success after a split, without an import": (
        9, "split-false-success", {},
        {"memory": {"folios": [1], "state": ["non_secure"]}, "vcpu": [{"touch": [1]}]},
    ),
    "a split that 6.14 reports as success": (
        9, "linux-6.14", {},
        {"memory": {"folios": [1], "state": ["non_secure"]}, "vcpu": [{"touch": [1]}]},
    ),
    "a fault-in of 7.0 that finds its page unmapped": (
        9, "linux-7.0", {},
        {"memory": {"folios": [0], "state": ["exported"]}, "vcpu": [{"touch": [0]}], "reclaim": [{"starts": 200}]},
    ),
    "reclaim that does not ask for pins": (
        10, "per-page",
        {"    if h.backing == ANON and pinned(s, k.page):\n        return reclaim_over(s, t, E_LOCKED)\n": ""},
        {"memory": {"folios": [0], "state": ["shared"]}, "virtio": [{"page": 0}],
         "reclaim": [{"after": "virtio", "starts": 5}]},
    ),
    "reclaim of a file's page, as in the kernel": (
        10, "linux-6.18", {},
        {"memory": {"folios": [0], "state": ["shared"], "backing": "shmem"}, "virtio": [{"page": 0}],
         "reclaim": [{"after": "virtio", "starts": 5}]},
    ),
    "the posted loops under a ring": (
        11, "whole-folio-literal", {},
        {"memory": MIXED, "vcpu": [{"touch": [1]}], "virtio": [{"page": 0}]},
    ),
    "an export that is not tried as a pin first": (
        11, "per-page",
        {"    if uv_pin(s, k.i) == UV_OK:\n        return page_done(s, t)\n": ""},
        {"memory": {"folios": [0], "state": ["shared"]}, "vcpu": [{"touch": [0]}], "virtio": [{"page": 0}]},
    ),
}  # fmt: skip

SOUND = {
    "a fast pin that goes on past a page that failed": "linux-6.17",
    "the posted loops, as posted": "whole-folio",
    "an import that freezes without the page-table lock": "linux-7.0+42546fc642e9",
    "success after a split, without an import": "split-writeback",
    "a split that 6.14 reports as success": "linux-6.14+3ec8a8330a1a",
    "a fault-in of 7.0 that finds its page unmapped": "linux-7.0+9a1dfbbd3506",
    "the posted loops under a ring": "whole-folio",
}
"""Of those that need no broken rule: a policy under which the same is sound."""
OPEN = {
    "a second mapping, as in the kernel", "an ultravisor call that fails during writeback",
    "reclaim of a file's page, as in the kernel",
}  # fmt: skip
"""Those for which no policy has an answer."""
TOO_SHORT = {"a fault-in of 7.0 that finds its page unmapped"}
"""Races that the simulator's times leave no room for: a whole reclaim within one step of an import."""
CURED = [(name, SOUND.get(name, case[1])) for name, case in BROKEN.items() if case[2] or name in SOUND]


def violations(document, policy, changed):
    """Violations by property, summed over the seeds, under the rules with `changed` source."""
    simulate, total = interpreted(changed), [0] * len(PROPERTIES)
    for seed in SEEDS:
        system = scenario.system(scenario.parse(document, "test"), find(policy))
        state, around = build.from_system(system, COSTS, seed=seed, duration_us=1500)
        lists = to_lists(state), to_lists(around)
        simulate(*lists, 20_000)
        write_back(lists[1], around)
        total = [a + b for a, b in zip(total, everything(state, around)["broken"], strict=True)]
    return total


@pytest.mark.parametrize("name", [name for name in BROKEN if name not in TOO_SHORT])
def test_a_broken_rule_is_found(name):
    number, policy, changed, document = BROKEN[name]
    assert violations(document, policy, changed)[number] > 0, PROPERTIES[number]


@pytest.mark.parametrize(("name", "policy"), CURED)
def test_the_same_without_the_fault_is_sound(name, policy):
    assert violations(BROKEN[name][3], policy, {}) == [0] * len(PROPERTIES)


def test_every_property_has_a_broken_rule():
    assert {case[0] for case in BROKEN.values()} == set(range(1, len(PROPERTIES)))


def test_every_fault_is_named_with_its_cure_or_as_open():
    assert {name for name, _ in CURED} | OPEN == set(BROKEN) and not OPEN & (set(SOUND) | {n for n, _ in CURED})


def test_a_mutant_that_does_not_fit_the_rules_is_refused():
    with pytest.raises(ValueError, match="not found exactly once"):
        interpreted({"this text stands nowhere": "x"})
