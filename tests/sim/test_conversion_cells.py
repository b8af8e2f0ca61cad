"""Cells of a sweep of guest_memfd: the simulator over a recording, with a machine, a patience and a holder."""

from pathlib import Path

import pytest

from ultrafolio.errors import InputError
from ultrafolio.model import scenario
from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.model.guest_memfd.policy import PRESETS
from ultrafolio.sim import build, config, costs, load, memfd_build, memfd_cell, memfd_config
from ultrafolio.sim.designs import columns
from ultrafolio.sim.load import interpreted
from ultrafolio.sim.memfd_words import MEMFD_AXIS_MEANING

HERE = Path(__file__).parents[2] / "sweeps"
LOAD = {"touches": "../traces/sqlite-update.lackey.gz", "requests": "../traces/fio-randmix-4k.iolog.gz",
        "convert_rate": 0.01, "pool_pages": 8, "duration_us": 10_000}  # fmt: skip


def ran(**axes):
    """The measures of a cell."""
    return memfd_cell.run(memfd_config.resolve({**LOAD, **axes}, HERE), HERE)


def test_a_cell_has_the_columns_of_its_design_and_depends_on_its_configuration_only():
    first = ran(order=2)
    assert list(first) == list(columns(GUEST_MEMFD)) and first == ran(order=2)
    assert first["conversions"] > 10 and first["violations"] == 0 and first != ran(order=2, seed=2)


def test_the_interpreter_takes_the_same_steps():
    resolved = memfd_config.resolve({**LOAD, "policy": "gmem-hugetlb-2025-05", "order": 3, "machine": "tdx",
                                      "duration_us": 1000}, HERE)  # fmt: skip
    assert memfd_cell.run(resolved, HERE)["splits"] > 0
    state, world = memfd_build.build(resolved, HERE)
    load._over_arrays(interpreted(design=GUEST_MEMFD))(state, world, 1 << 40)
    measured = memfd_cell.run(resolved, HERE)
    assert {
        name: int(world.metric[0][name]) for name in ("events", "faults", "splits", "pages_lost", "tlb_misses")
    } == {name: measured[name] for name in ("events", "faults", "splits", "pages_lost", "tlb_misses")}


def test_a_fault_that_allocates_a_huge_page_in_steps_is_counted_and_charged_once():
    """The step after its last look-up comes 1,000 ns later where a fault costs so much more."""
    memory = {"folios": [1], "state": ["shared", "private"], "allocated": False}
    story = scenario.parse({"design": "guest_memfd", "memory": memory, "user": [{"page": [0]}]}, "it")
    mapped = []
    for fault in (5000, 6000):
        system = scenario.system(story, PRESETS["gmem-hugetlb-2025-12"][1])
        dear = costs.from_table({"fault": fault}, "dear")
        state, world = build.from_system(system, dear, seed=1, duration_us=200, trace=100)
        load._over_arrays(interpreted(design=GUEST_MEMFD))(state, world, 100)
        taken = {GUEST_MEMFD.rules[pc].name: ns for ns, _, _, pc, _ in world.event[: world.clock[0]["traced"]].tolist()}
        assert {"fresh-unlock", "fresh-split"} < set(taken) and world.metric[0]["user_faults"] == 1
        mapped.append(taken["user-map"])
    assert mapped[1] - mapped[0] == 1000


def test_without_huge_pages_an_order_changes_only_the_size_of_the_file():
    small, large = ran(order=0), ran(order=2)
    assert small["conversions"] == large["conversions"] and small["splits"] == large["splits"] == 0
    assert large["pages_total"] % 4 == 0


def test_huge_pages_save_faults_and_tlb_misses_and_pay_in_splits():
    """The pool has huge pages of its own, so that the program's are mapped whole."""
    single, huge = (ran(policy=policy, order=9, placement="aligned") for policy in ("gmem-7.4", "gmem-hugetlb-2025-12"))
    assert huge["faults"] < single["faults"] / 2 and huge["tlb_misses"] < single["tlb_misses"] / 5
    assert huge["splits"] > 0 == single["splits"] and huge["restructure_ns"] > 0
    # of 512 descriptors of 64 bytes HugeTLB keeps one page
    assert huge["extra_bytes"] == (512 * 64 - 4096) * 1 and single["extra_bytes"] == 0


def test_a_huge_page_of_few_pages_is_merged_again():
    few = ran(policy="gmem-hugetlb-2025-12", order=3, request_pages=8, pool_pages=16, placement="aligned")
    assert few["merges"] > 5 and few["splits"] - few["merges"] in (0, 1, 2)
    assert few["extra_bytes"] == 0, "eight descriptors are in a page that HugeTLB keeps"


@pytest.mark.parametrize(("machine", "lost"), [("software", 0), ("snp", 0), ("tdx", 511), ("cca", 0), ("pkvm", 0)])
def test_a_huge_page_that_is_unmapped_whole_loses_its_other_pages(machine, lost):
    """gmem-hugetlb-2025-05 splits no entry before, and TDX takes back what is unmapped; CCA splits it by itself."""
    measured = ran(policy="gmem-hugetlb-2025-05", order=9, placement="aligned", machine=machine, pool_pages=1)
    assert measured["pages_lost"] == lost and measured["splits"] > 1, "each page is counted once"
    assert bool(measured["broken"][6]) == (lost > 0), "property 18"
    assert ran(policy="gmem-hugetlb-2025-12", order=9, placement="aligned", machine=machine)["pages_lost"] == 0


def test_two_backings_have_two_frames_of_what_was_used_as_both():
    measured = ran(policy="gmem-two-backings")
    assert 0 < measured["extra_bytes"] <= 8 * 4096 and measured["extra_bytes"] % 4096 == 0
    assert ran()["extra_bytes"] == 0


def test_the_machine_is_called_for_each_page_and_costs_time():
    """The calls follow from what the hardware says of pages, and software has none."""
    calls = {machine: ran(machine=machine) for machine in ("software", "snp", "tdx", "cca", "pkvm")}
    assert calls["software"]["machine_calls"] == 0
    assert all(
        one["machine_ns"] == 2000 * one["machine_calls"] > 0 for name, one in calls.items() if name != "software"
    )
    # a huge page is one call, and CCA takes it granule by granule
    huge = {machine: ran(policy="gmem-hugetlb-2025-12", order=6, machine=machine, convert_rate=0.0)["machine_calls"]
            for machine in ("tdx", "cca")}  # fmt: skip
    assert huge["cca"] == 64 * huge["tdx"] > 0


# ----------------------------------------------------------------------------------------------- holders and patience
def test_a_long_term_pin_refuses_until_the_vmm_ends_it():
    held = {patience: ran(holder="vfio", patience=patience) for patience in memfd_config.PATIENCE}
    assert held["for-ever"]["hang_vmm_bound"] > 0 and held["for-ever"]["told_no"] == 0
    assert held["four-tries"]["told_no"] > 0 and held["four-tries"]["hang_vmm_bound"] == 0
    assert held["four-tries"]["refusals"] == 4 * held["four-tries"]["told_no"]
    assert held["one-try"]["refusals"] == held["one-try"]["told_no"] > 0
    assert held["unmap-first"]["refusals"] == 0 < held["unmap-first"]["conversions"]
    assert held["unmap-asked"]["refusals"] > 0 and held["unmap-asked"]["hang_vmm_bound"] == 0


def test_a_batch_is_drained_or_refuses_for_ever_and_a_drain_delays_faults():
    drained, refused = ran(holder="lru", convert_rate=0.05), ran(policy="gmem-no-drain", holder="lru")
    assert drained["drains_all"] > 5 and drained["drain_waits"] > 0 and drained["first_hang_ns"] == -1
    assert drained["refusals"] < drained["conversions"] / 4, "a page enters a batch again during a drain"
    assert drained["drain_wait_ns"] <= drained["lock_wait_ns"]
    assert drained["drain_wait_ns"] / drained["drain_waits"] > costs.DEFAULTS["drain_all"][0] / 4
    assert refused["hang_permanent"] > 0 == refused["drains_all"]
    assert ran(policy="gmem-no-drain", holder="mlock", holder_us=10)["refusals"] > 0


@pytest.mark.parametrize("holder", ["gup", "vmsplice", "walker"])
def test_other_holders_refuse_some_requests(holder):
    measured = ran(holder=holder, holders=8, holder_us=10, convert_rate=0.05, hold_us=50, walker_us=20)
    assert measured["refusals"] > 0 and measured["conversions"] > 0


def test_a_pause_gives_a_holder_time():
    """Four tries at once meet the same I/O; with 100 us between them it is over."""
    tries = [
        ran(holder="gup", patience=patience, holders=8, convert_rate=0.05) for patience in ("four-tries", "four-paused")
    ]
    assert tries[0]["told_no"] > 2 * tries[1]["told_no"]


# ---------------------------------------------------------------------------------------------------------- input
def test_orders_reach_a_folio_of_a_gigabyte():
    """Every page of it is mapped by one entry, and its splits are paid page by page."""
    measured = ran(policy="gmem-hugetlb-2025-12", order=18, machine="tdx", duration_us=200_000, touch_ns=2000)
    assert measured["pages_total"] == 1 << 18 and measured["splits"] == 1 and measured["violations"] == 0
    assert measured["restructure_ns"] == 1500 + (100 << 18) and measured["extra_bytes"] == (64 << 18) - 4096


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"order": 19}, "0 to 18"),
        ({"policy": "split"}, "another design"),
        ({"policy": "pkvm", "machine": "tdx"}, "cannot enforce"),
        ({"patience": "none"}, "unknown patience"),
        ({"holder": "dma"}, "holder"),
        ({"request_pages": 64}, "larger than the pool"),
        ({"touches": "../traces/nothing.gz"}, "cannot be read"),
    ],
)
def test_a_bad_axis_is_refused(axes, said):
    with pytest.raises(InputError) as wrong:
        ran(**axes)
    assert said in str(wrong.value)


def test_a_plan_may_define_patience_and_costs():
    tables = {"patience": {"two": {"retries": 2}}, "costs": {"dear": {"machine_call": 50_000}}}
    two = ran(patience="two", costs="dear", holder="vfio", machine="snp", tables=tables)
    assert two["refusals"] == 2 * two["told_no"] > 0 and two["machine_ns"] == 50_000 * two["machine_calls"]


@pytest.mark.parametrize("resolve", [config.resolve, memfd_config.resolve])
@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"polcy": {"mine": {}}}, ("unknown table [polcy]", "did you mean 'policy'?")),
        ({"stranger": {}}, ("unknown table [stranger]", "policy, workload, costs")),
        ({"workload": {"nobody-runs-it": {"vcpu": 1}}}, ("[workload.nobody-runs-it]", "did you mean 'vcpus'?")),
        ({"workload": {"mine": {"deep": {"vcpus": 1}}}}, ("[workload.mine]: unknown field 'deep'",)),
        ({"costs": {"dear": {"acess": 1}}}, ("[costs.dear]", "did you mean 'access'?")),
        ({"policy": {"mine": {"bse": "split"}}}, ("[policy.mine]", "did you mean 'base'?")),
        ({"policy": {"mine": 3}}, ("[policy.mine]", "a table")),
        ({"costs": 3}, ("costs", "a table")),
    ],
)
def test_a_definition_that_no_cell_uses_is_read_too(resolve, tables, said):
    with pytest.raises(InputError) as wrong:
        resolve({"tables": tables}, HERE)
    assert all(part in str(wrong.value) for part in said)


def test_patience_is_a_table_of_guest_memfd_alone():
    tables = {"patience": {"two": {"retrys": 2}}}
    for resolve, said in ((config.resolve, "unknown table [patience]"), (memfd_config.resolve, "'retries'?")):
        with pytest.raises(InputError) as wrong:
            resolve({"tables": tables}, HERE)
        assert said in str(wrong.value)


def test_the_definitions_of_a_plan_are_read_once():
    read, tables = [], {"costs": {"a": {}, "b": {}}}
    for _ in range(3):
        config.check_tables(tables, {"costs": lambda block, where: read.append(where)})
    assert read == ["[costs.a]", "[costs.b]"]


def test_every_axis_has_its_meaning_and_every_price_its_source():
    assert set(MEMFD_AXIS_MEANING) == (set(memfd_config.AXES) | set(memfd_config.WORKLOAD)) - {"tables"}
    assert all(
        "assumed" in text or "measured" in text or "no public figure" in text for _, text in costs.MEMFD.values()
    )
