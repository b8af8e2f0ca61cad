"""The expected results of model.md §8 in the simulator, with numbers."""

import pytest

from simulated import measured
from ultrafolio.model import scenario
from ultrafolio.model.layout import E_REFS, EXPORTED, IMPORT_FREEZE, PINNED_SHARED, SECURE, VCPU
from ultrafolio.model.policies import PRESETS, find
from ultrafolio.model.policy import Policy
from ultrafolio.sim import build, cell, costs

SEEDS = range(1, 9)
HANGS = ("hang_permanent", "hang_livelock", "hang_fatal")
COSTS = costs.from_table({}, "default")


def hung(result):
    return {name for name in HANGS if result[name]}


def played(document, policy, *, seed=1, duration_us=20_000, **choices):
    """(columns, state, world) of a small scenario under a preset, or a Policy."""
    chosen = policy if isinstance(policy, Policy) else find(policy)
    system = scenario.system(scenario.parse(document, "test"), chosen)
    state, around = build.from_system(system, COSTS, seed=seed, duration_us=duration_us)
    hangs = cell.simulate_all(state, around)
    config = {"duration_us": duration_us, "policy": {"track": chosen.track}}
    return cell.finish(config, state, around, hangs), state, around


PAIR = {"memory": {"folios": [1], "state": ["shared", "secure"]}, "vcpu": [{"touch": [1]}]}


def test_1_per_page_direct_io_leaves_the_neighbours_alone():
    document = {**PAIR, "disk": [{"page": 0, "starts": 200}]}
    result, state, _ = played(document, "per-page")
    assert result["io_done"] > 50
    assert (result["stalls"], result["exports"], result["imports"]) == (0, 0, 0)
    assert state.uv["state"].tolist() == [PINNED_SHARED, SECURE]


def test_2_whole_folio_direct_io_stalls_the_neighbour_until_the_io_is_done():
    result, state, around = played({**PAIR, "disk": [{"page": 0, "starts": 1}]}, "whole-folio")
    assert result["stalls"] == 1 and not hung(result) and result["open_stalls"] == 0
    assert result["exports_collateral"] == 1 and result["imports_collateral"] == 1
    assert result["stall_ns"] >= COSTS["drain_all"], "it met the pin and came back"
    assert state.uv["state"].tolist() == [PINNED_SHARED, SECURE]


def test_3_whole_folio_virtio_hangs_the_neighbour_for_ever_and_names_the_holder():
    result, state, around = played({**PAIR, "virtio": [{"page": 0}]}, "whole-folio")
    assert hung(result) == {"hang_permanent"} and result["open_stalls"] == 1
    assert state.uv["state"].tolist() == [PINNED_SHARED, EXPORTED]
    assert state.mm["arch"][0] == 0 and state.mm["refs"][0] == 1
    words = result["hung"]
    assert words.startswith("permanent: vcpu 0 (touch page 1) waits for the extra references of the folio of page 1;")
    assert "held by virtio 1's long-term pin on page 0" in words and words.endswith("the guest's reboot or shutdown")
    assert int(around.hang[0]["reason"]) == E_REFS
    assert played({**PAIR, "virtio": [{"page": 0}]}, "per-page")[0]["stalls"] == 0


def test_3_the_reboot_that_would_release_it_does():
    document = {**PAIR, "virtio": [{"page": 0}], "reboot": [{"shutdown": False, "starts": 1}]}
    ended = [played(document, "whole-folio", seed=seed)[0] for seed in SEEDS]
    assert all(result["reboots"] == 1 for result in ended)
    hangs = [result for result in ended if result["hang_permanent"]]
    assert hangs, "a reboot came first in every seed"
    assert all(result["open_stalls"] == 0 and result["dropped_stalls"] == 1 for result in hangs)


@pytest.mark.parametrize("policy", [name for name in PRESETS if name != "refuse-large"])
def test_4_writeback_makes_the_whole_folio_accessible_and_then_lets_go(policy):
    document = {
        "memory": {"folios": [2], "state": ["shared", "secure", "secure", "secure"]},
        "vcpu": [{"touch": [0, 1, 2, 3]}],
        "writeback": [{"starts": 20}],
    }
    result, state, _ = played(document, policy, duration_us=100_000)
    assert result["writebacks"] == 20 and result["late_failures"] == 0
    assert not hung(result) and result["open_stalls"] == 0
    assert result["imports"] > 0, "its pages were exported, and imported again"
    if find(policy).large != "split":
        assert result["exports"] >= 20


def test_5_a_page_that_cannot_be_made_accessible_is_found_too_late():
    document = {
        "memory": {"folios": [2], "refuses": [2]},
        "vcpu": [{"touch": [0]}],
        "writeback": [{"page": [0], "starts": 1}],
    }
    for policy in ("per-page", "whole-folio", "folio-bitmap"):
        result, state, _ = played(document, policy)
        assert result["late_failures"] == 1 and result["broken"][8 - 1] == 1
        assert state.uv["state"][2] == SECURE


def test_6_every_touch_of_an_exported_page_imports_it_and_unshare_exits():
    document = {"memory": {"folios": [0], "state": ["exported"]}, "vcpu": [{"touch": [0]}]}
    result, state, _ = played(document, "per-page", duration_us=100)
    assert result["imports"] == 1 and state.uv["state"][0] == SECURE
    document = {"memory": {"folios": [0], "state": ["pinned_shared"]}, "vcpu": [{"unshare": [0], "starts": 1}]}
    result, state, around = played(document, "per-page", duration_us=1000)
    assert state.uv["state"][0] == SECURE and around.fired[IMPORT_FREEZE] == 1 and state.mm["arch"][0] == 1


def test_7_the_bit_over_indicates_in_small_windows_and_is_never_clear_on_a_secure_page():
    result = measured(policy="per-page", order=2, writeback_us=100, disks=4)
    assert result["over_page_ns"] > 0 and result["broken"][2 - 1] == 0


@pytest.mark.parametrize("policy", PRESETS)
def test_8_unsharing_a_ring_page_waits_for_the_device_and_is_not_held_against_the_policy(policy):
    document = {
        "memory": {"folios": [0], "state": ["pinned_shared"]},
        "virtio": [{"page": 0}],
        "vcpu": [{"unshare": [0], "starts": 1}],
    }
    results = [played(document, policy, seed=seed)[0] for seed in SEEDS]
    waited = [result for result in results if result["hang_expected"]]
    assert waited, "the device was never configured before the unshare"
    assert not any(hung(result) for result in results)


def test_9_split_hangs_on_a_pin_taken_before_the_first_import_and_on_no_later_one():
    early = {"memory": {"folios": [1], "state": ["non_secure"]}, "pin": [{"page": 0}], "vcpu": [{"touch": [1]}]}
    late = {**early, "memory": {"folios": [1], "state": ["shared", "secure"]}}
    before = [played(early, "split", seed=seed)[0] for seed in SEEDS]
    assert any(result["hang_permanent"] for result in before)
    assert not any(hung(played(late, "split", seed=seed)[0]) for seed in SEEDS)
    assert not any(hung(played(early, "per-page", seed=seed)[0]) for seed in SEEDS)


DIRTY = {"memory": {"folios": [1], "state": ["non_secure"], "backing": "iomap"}, "vcpu": [{"touch": [0]}]}


def test_10_a_dirty_iomap_folio_never_splits_until_it_is_written_back_in_the_same_call():
    endless = {**DIRTY, "writeback": [{"page": [0], "starts": 255}]}
    assert hung(played(DIRTY, "split")[0]) == {"hang_permanent"}
    assert hung(played(endless, "split")[0]) == {"hang_livelock"}
    cured, state, _ = played(DIRTY, "split-writeback")
    assert not hung(cured) and cured["splits_done"] == 1 and state.uv["state"][0] == SECURE
    clean = {**DIRTY, "memory": {**DIRTY["memory"], "backing": "anon"}}
    assert played(clean, "split-false-success")[0]["broken"][9 - 1] == 1


def test_11_the_posted_loops_export_the_ring_page_under_its_own_pin():
    document = {
        "memory": {"folios": [1], "state": ["shared", "secure"]},
        "virtio": [{"page": 0}],
        "vcpu": [{"touch": [0]}],
    }
    result, state, _ = played(document, "whole-folio-literal")
    assert result["broken"][3 - 1] > 0 and state.uv["state"].tolist() == [EXPORTED, EXPORTED]
    assert hung(result) == {"hang_permanent"}


def test_12_the_bit_was_half_of_the_cause_and_the_count_the_other_half():
    quiet = {**PAIR, "virtio": [{"page": 0}], "disk": [{"page": 0, "starts": 20}]}
    stirred = {**quiet, "writeback": [{"page": [0], "starts": 20}]}
    assert played(quiet, "folio-bitmap")[0]["stalls"] == 0
    assert hung(played(stirred, "folio-bitmap")[0]) == {"hang_permanent"}
    cured = played(stirred, "folio-bitmap-pins", duration_us=100_000)[0]
    assert not hung(cured) and cured["open_stalls"] == 0


def test_13_a_folio_mapped_twice_is_frozen_under_a_plain_get():
    broke = set()
    for policy in PRESETS:
        axes = {"policy": policy, "mapping_us": 3, "pages": 1, "disks": 0, "vcpus": 2, "reclaim_us": 20}
        if measured(duration_us=50_000, **axes)["broken"][5 - 1]:
            broke.add(policy)
    assert broke == set(PRESETS)


CLEAN = ("per-page", "split-writeback", "import-lock")


@pytest.mark.parametrize("policy", CLEAN)
@pytest.mark.parametrize("order", [0, 2, 5])
def test_the_sound_policies_violate_nothing_whatever_runs(policy, order):
    for imported in (True, False):
        result = measured(
            policy=policy,
            order=order,
            rings=2,
            disks=4,
            writeback_us=150,
            reclaim_us=100,
            lru_us=80,
            speculative_us=60,
            reboot_us=1500,
            share_rate=0.02,
            io_us=40,
            io_pages=2,
            seed=order,
            imported=imported,
            guests=2,
            one_address_space=True,
            backing="anon" if order else "iomap",
            duration_us=6000,
        )
        assert result["violations"] == 0, result["broken"]
        assert min(result[n] for n in ("writebacks", "reclaims", "io_done", "imports", "drains_all", "reboots")) > 0


@pytest.mark.parametrize("order", [1, 3, 5])
def test_per_page_neighbours_stall_only_for_a_writeback(order):
    axes = {"policy": "per-page", "order": order, "rings": 2, "disks": 4, "io_us": 30, "vcpus": 1}
    quiet = measured(**axes)
    assert quiet["io_done"] > 20 and quiet["stalls"] == 0 and quiet["imports"] == 0
    stirred = measured(writeback_us=100, **axes)
    assert stirred["stalls"] > 0
    assert stirred["stall_refs"] == 0, "never for the reference of an I/O or a ring page"
    assert stirred["stalls"] == stirred["stall_writeback"] + stirred["stall_lock"]
    assert not hung(stirred)


def test_whole_folio_direct_io_is_transient_and_grows_with_the_folio():
    stalls = []
    for order in (0, 2, 4, 6):
        results = [measured(policy="whole-folio", order=order, seed=seed, io_us=100) for seed in SEEDS]
        assert not any(hung(result) for result in results)
        stalls.append(sum(r["stall_ns"] + r["open_stall_ns"] for r in results) / sum(r["touches"] for r in results))
    assert stalls[0] == 0
    assert stalls == sorted(stalls) and stalls[-1] > 4 * stalls[1] > 0


def test_whole_folio_virtio_hangs_the_sooner_the_more_pages_a_folio_has():
    first = []
    for order in (0, 2, 3, 4):  # of larger folios the time until the ring is configured counts, too
        axes = {"policy": "whole-folio", "order": order, "rings": 2, "disks": 0, "pages": 8192}
        results = [measured(seed=seed, duration_us=20_000, **axes) for seed in range(1, 49)]
        if order == 0:
            assert not any(hung(result) for result in results)
            continue
        assert all(hung(result) == {"hang_permanent"} for result in results)
        first.append(sum(result["first_hang_ns"] for result in results) / len(results))
    assert first == sorted(first, reverse=True) and first[0] > 2 * first[-1]


def test_placement_decides_how_many_neighbours_are_hit():
    def hangs(placement):
        axes = {"policy": "whole-folio", "order": 4, "rings": 2, "ring_pages": 1, "disks": 0, "pages": 500}
        return sum(measured(placement=placement, seed=seed, **axes)["exports_collateral"] for seed in SEEDS)

    assert hangs("scattered") > hangs("contiguous") > 0
    assert not any(
        measured(policy="whole-folio", order=4, rings=2, placement="aligned", seed=seed, pages=512)["hang_permanent"]
        for seed in SEEDS
    )


def test_a_hang_is_found_when_it_starts_and_not_at_the_end():
    result, _, around = played({**PAIR, "virtio": [{"page": 0}]}, "whole-folio", duration_us=1_000_000)
    assert result["events"] < 5_000, "a hung vCPU does not poll to the end of time"
    assert int(around.hang[0]["time"]) == result["first_hang_ns"] < 200_000


def test_policies_of_the_users_own_reach_the_rules():
    mutexed = find("mine", {"mine": {"base": "whole-folio", "import_lock": "vm", "on_busy": "sleep"}})
    two = {**PAIR, "vcpu": [{"touch": [1]}, {"touch": [1]}], "virtio": [{"page": 0}]}
    result, state, around = played(two, mutexed)
    assert result["hang_permanent"] == 2 and result["stall_mutex"] == 1, "the sleeper holds the mutex"
    told = find("mine", {"mine": {"base": "whole-folio", "on_busy": "give-up", "give_up": 3}})
    result, state, _ = played({**PAIR, "virtio": [{"page": 0}]}, told)
    assert result["hang_fatal"] == 1
    assert state.who["kind"][0] == VCPU
