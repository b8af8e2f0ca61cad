"""The world of a configuration: layout of pages, shared pages, recordings."""

import tomllib
from pathlib import Path

import numpy as np
import pytest

from simulated import HERE, settings
from ultrafolio.engine.interp import to_lists
from ultrafolio.model.layout import DISK, NON_SECURE, RING, SECURE, SHARED, VCPU
from ultrafolio.sim import build as sim_world
from ultrafolio.sim import costs, once
from ultrafolio.sim.load import interpreted
from ultrafolio.sweep import cells
from ultrafolio.sweep.planfile import load
from ultrafolio.trace.load import load_orders, load_requests, load_touches

ROOT = Path(__file__).parents[2]
SHARING = {"rings": 3, "ring_pages": 3, "io_pages": 2, "pool_pages": 32, "disks": 4, "pages": 1000}


def shared_pages(**axes):
    state, _ = sim_world.build(settings(**SHARING, **axes), HERE)
    return state, np.flatnonzero(state.uv["state"] == SHARED)


@pytest.mark.parametrize("order", [0, 3, 6])
def test_placements_put_shared_pages_where_they_say(order):
    for seed in range(5):
        state, aligned = shared_pages(placement="aligned", order=order, seed=seed)
        assert len(aligned) == 32 + 9 and (np.diff(aligned) == 1).all() and aligned[0] % (1 << order) == 0
        assert aligned[0] >= 1000, "behind the private pages, in folios of their own"
        _, run = shared_pages(placement="contiguous", order=order, seed=seed)
        assert len(run) == 32 + 9 and (np.diff(run) == 1).all()
        _, scattered = shared_pages(placement="scattered", order=order, seed=seed)
        assert len(scattered) == 32 + 9, "no two overlap"
        assert (np.diff(scattered) > 1).sum() > 8
        assert len(state.mm) % (1 << order) == 0


def test_vcpus_touch_no_page_of_an_aligned_pool():
    state, around = sim_world.build(settings(placement="aligned", order=4, **SHARING), HERE)
    shared = np.flatnonzero(state.uv["state"] == SHARED)
    for t in np.flatnonzero(state.who["kind"] == VCPU):
        a = around.load[t]
        assert a["first"] + a["count"] <= shared[0] // 16 * 16


def test_orders_come_from_a_recording_and_folios_are_aligned():
    recording = ROOT / "traces/folios.mthp"
    state, _ = sim_world.build(settings(orders=str(recording), pages=60_000, seed=4), HERE)
    order = state.mm["order"].astype(int)
    heads = np.flatnonzero(np.arange(len(order)) >> order << order == np.arange(len(order)))
    assert (np.diff(np.append(heads, len(order))) == 1 << order[heads]).all(), "folio after folio, no gap"
    found, wanted = np.bincount(order[heads], minlength=10), load_orders(recording)
    assert set(np.flatnonzero(found)) >= set(wanted)
    assert found.argmax() == max(wanted, key=wanted.get)


def test_what_was_imported_before_the_run():
    state, _ = shared_pages(imported=False, policy="per-page", order=2)
    assert set(np.unique(state.uv["state"])) == {NON_SECURE, SHARED}
    assert (state.mm["arch"] == (state.uv["state"] == SHARED)).all()
    state, _ = shared_pages(imported=False, policy="split", order=2)
    folio = np.arange(len(state.mm)) // 4
    split = np.isin(folio, folio[state.uv["state"] == SHARED])
    assert (state.mm["order"][split] == 0).all() and (state.mm["order"][~split] == 2).all()
    state, _ = shared_pages(imported=False, early_rings=True, policy="split", order=2)
    assert (state.uv["state"] == SHARED).sum() == 32
    state, _ = shared_pages(policy="refuse-large", order=2)
    assert (state.uv["state"] == NON_SECURE).all(), "no page of a large folio was ever imported"
    state, _ = shared_pages(policy="whole-folio", order=2)
    assert (state.uv["state"] != NON_SECURE).all() and state.mm["arch"].sum() == len(state.mm) // 4
    assert (state.uv["state"] == SECURE).sum() == len(state.mm) - 41


def test_recordings_become_touches_of_private_pages_and_slot_sized_requests():
    touches, requests = ROOT / "traces/python-startup.lackey.gz", ROOT / "traces/fio-seqread-64k.iolog.gz"
    axes = {**SHARING, "pages": 0, "touches": str(touches), "requests": str(requests), "order": 3}
    state, around = sim_world.build(settings(**axes), HERE)
    recorded = load_touches(touches)
    assert len(around.touches) == len(recorded)
    assert len(np.unique(around.touches)) == len(np.unique(recorded["page"]))
    assert (state.uv["state"][np.unique(around.touches)] == SECURE).all()
    asked = load_requests(requests)
    assert around.requests["n"].sum() == (-(-asked["length"].astype(int) // 4096)).sum()
    assert around.requests["n"].max() == 2 and (np.diff(around.requests["at"]) >= 0).all()


def test_actors_are_as_many_as_asked_for():
    state, _ = sim_world.build(settings(guests=3, vcpus=5, reboot_us=10, **SHARING), HERE)
    kinds = np.bincount(state.who["kind"])
    assert (kinds[VCPU], kinds[DISK], kinds[RING]) == (15, 12, 9)


def test_an_lru_batch_can_name_every_cpu():
    state, _ = sim_world.build(settings(disks=300, lru_us=10), HERE)
    assert state.who["cpu"].max() + 1 == np.iinfo(state.mm["batch"].dtype).max


@pytest.mark.parametrize("plan", sorted((ROOT / "sweeps").glob("*.toml")), ids=lambda plan: plan.stem)
def test_every_cell_of_the_shipped_plans_resolves(plan):
    made = load(plan)
    assert made.count > 50
    for i in range(0, made.count, max(1, made.count // 50)):
        cells.of(made.design).resolve(made.handed(made.cell(i) or {}), plan.parent)


def test_the_shipped_profile_changes_what_it_names_and_nothing_else():
    default = costs.find("default", {}, HERE)
    slow = costs.find("profiles/slow-crypto.toml", {}, ROOT)
    named = tomllib.loads((ROOT / "profiles/slow-crypto.toml").read_text())["costs"]
    assert slow == default | named and slow != default


@pytest.mark.parametrize(("disks", "requests"), [(4, 2), (5, 1), (3, 3), (2, 7)])
def test_a_recording_is_passed_in_order_by_any_number_of_disks(tmp_path, disks, requests):
    """Disk `d` takes requests d, d + disks, … of the recording repeated without end, and none beyond its end."""
    lines = [f"/dev/sdb wait 1 0\n/dev/sdb write {4096 * n} 4096\n" for n in range(requests)]
    (tmp_path / "few.iolog").write_text("fio version 2 iolog\n/dev/sdb add\n/dev/sdb open\n" + "".join(lines))
    given = {
        "disks": disks,
        "requests": "few.iolog",
        "pages": 64,
        "vcpus": 1,
        "touch_ns": 1_000_000,
        "duration_us": 60_000,
    }
    made = once.of_plan({}, "", given, tmp_path)
    due = [int(row["at"]) for row in made.world.requests]
    mine = [made.world.load[t] for t, who in enumerate(made.state.who) if who["kind"] == DISK]
    for number, row in enumerate(mine):
        rounds, place = divmod(number, requests)
        assert (int(row["pos"]), int(row["base"])) == (place, rounds * due[-1])
    state, world = to_lists(made.state), to_lists(made.world)
    interpreted()(state, world, 1 << 40)
    for number, row in enumerate(row for row, who in zip(world.load, state.who, strict=True) if who.kind == DISK):
        rounds, place = divmod(row.base // due[-1] * requests + row.pos - number, disks)
        assert place == 0 and rounds >= 0
    assert world.metric[0].io_done > 0
