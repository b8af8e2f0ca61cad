"""Simulations of the design guest_memfd: steps of the graph, the hangs that check reports, counts, parked requests."""

import contextlib
import functools
import json
import tomllib
from collections import Counter

import pytest

from memfd_cases import SHIPPED as ASKED
from memfd_cases import STORIES, drawn, system
from memfd_opinion import opinion
from plain_graph import TooLarge, explored, row
from simulated import everything
from ultrafolio.api import run as run_once
from ultrafolio.cli import main
from ultrafolio.engine.interp import to_lists, write_back
from ultrafolio.export.timeline import of_run
from ultrafolio.model import scenario
from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.model.guest_memfd import layout as at
from ultrafolio.model.guest_memfd.policy import PRESETS
from ultrafolio.sim import build, cell, costs, memfd_records
from ultrafolio.sim.load import compiled, interpreted
from ultrafolio.sim.records import PARKED
from ultrafolio.waits import load as waits

SHIPPED = [(name, policy) for name, policy, machine in ASKED
           if machine == "software" and (policy in STORIES[name].tables or policy in ("gmem-7.4", "gmem-no-drain"))
           and not any(STORIES[name].memory["folios"])]  # fmt: skip
"""Scenarios of single pages on the machine `software`, under the first presets and their own policies."""
SEEDS, MANY, BOTH = range(1, 6), range(1, 61), [one for one in SHIPPED if one[1] in PRESETS]
MOST, PLAIN = 1000, interpreted(design=GUEST_MEMFD)
FEW = (24, *range(40, 63), 115, 337)
"""Numbers of random systems, in which requests wait and hang in every way."""
COSTS = costs.from_table({}, "default")
NAMES = {rule.name: pc for pc, rule in GUEST_MEMFD.rules.items()}


def begun(made, seed=1, us=200):
    return build.from_system(made, COSTS, seed=seed, duration_us=us, trace=MOST)


def plainly(state, around):
    """Runs to the end, or MOST steps, interpreted. Returns the state and the world."""
    lists = to_lists(state), to_lists(around)
    PLAIN(*lists, MOST)
    return write_back(lists[0], state), write_back(lists[1], around)


def events(around):
    """(ns, actor, page, rule, outcome) of each traced step, refused ones too."""
    return around.event[: int(around.clock[0]["traced"])].tolist()


def hangs(around):
    return around.hang[: int(around.clock[0]["hangs"])].tolist()


def told(around):
    """(waiter, class) of each hang."""
    return {(waiter, memfd_records.HANG_CLASSES[kind]) for _, waiter, _, kind, _ in hangs(around)}


@functools.cache
def run_of(name, policy, seed=1, us=200):
    return plainly(*begun(system(name, policy), seed, us))


@functools.cache
def seen_by_check(name, policy):
    """{(waiter, class)} of every wait of a shipped system that a fair run cannot leave."""
    return {(wait.actor, wait.kind) for wait in opinion(system(name, policy)).waits}


# ------------------------------------------------------------------------------------------------- one simulator
@pytest.mark.parametrize(("name", "policy"), SHIPPED)
def test_compiled_equals_interpreted(name, policy):
    state, around = begun(system(name, policy), seed=3)
    compiled(GUEST_MEMFD)(state, around, MOST)
    fast, plain = everything(state, around), everything(*run_of(name, policy, seed=3))
    for part in fast:
        assert fast[part] == plain[part], part
    assert sum(fast["fired"]) > 5


def rows(lists, kind):
    """A state of lists as the plain graph has it."""
    return kind(*(tuple(row(type(one).__slots__)(*(getattr(one, f) for f in one.__slots__)) for one in section)
                  for section in lists))  # fmt: skip


@pytest.mark.parametrize(("name", "policy"), BOTH)
def test_every_step_of_a_run_is_a_step_of_the_graph(name, policy, monkeypatch):
    made, taken = system(name, policy), []
    graph, kind, step = explored(made), type(made.state), PLAIN.__globals__["step"]
    number = {state: n for n, state in enumerate(graph.states)}

    def noting(s, t, op, page):
        before, pc = number[rows(s, kind)], s.task[t].pc
        outcome = step(s, t, op, page)
        if outcome > 0:
            taken.append((before, t, pc, outcome, number[rows(s, kind)]))
        return outcome

    monkeypatch.setitem(PLAIN.__globals__, "step", noting)
    for seed in (1, 2):
        taken.clear()
        _, around = plainly(*begun(made, seed, us=50))
        for before, t, pc, outcome, after in taken:
            assert any(e[0] == t and e[2] == pc and e[4] == outcome and e[7] == after for e in graph.edges[before])
        traced = [(actor, pc, outcome) for _, actor, _, pc, outcome in events(around) if outcome > 0]
        assert traced == [one[1:4] for one in taken] and taken


# --------------------------------------------------------------------------------------------------------- hangs
@pytest.mark.parametrize(("name", "policy"), SHIPPED)
def test_a_run_hangs_only_as_check_says(name, policy):
    for seed in SEEDS:
        assert told(run_of(name, policy, seed)[1]) <= seen_by_check(name, policy), seed


@pytest.mark.slow
@pytest.mark.parametrize(("name", "policy"), SHIPPED)
def test_many_runs_hang_only_as_check_says(name, policy):
    for seed in MANY:
        assert told(run_of(name, policy, seed)[1]) <= seen_by_check(name, policy), seed


def test_runs_meet_the_hangs():
    """Each scenario that check calls permanent or vmm-bound hangs so in one of the runs."""
    expected = [(name, policy, STORIES[name].expect[policy]["kind"]) for name, policy in SHIPPED]
    found = Counter()
    for name, policy, kind in expected:
        if kind in ("permanent", "vmm-bound"):
            kinds = {one for seed in SEEDS for _, one in told(run_of(name, policy, seed)[1])}
            assert kind in kinds, (name, policy)
            found[kind] += 1
    assert found["permanent"] >= 5 and found["vmm-bound"] >= 8


SAME_PROCESS = """
design = "guest_memfd"
memory = { folios = [0, 0], state = ["shared"] }
[[vmm]]
page = 0
to = "private"
after = "pin"
[[pin]]
page = 1
[[user]]
page = [0]
starts = 255
[[speculative]]
page = [0]
starts = 255
"""
"""A pin on page 1, whose process also maps page 0, which a request wants: the request removes that entry itself."""


def refused(made):
    """Yields (actor, class from one state) after each refusal in the graph of a system."""
    run, graph = waits.interpreted(GUEST_MEMFD), explored(made, most=1000)
    for edges in graph.edges:
        for edge in edges:
            if edge.outcome == at.E_AGAIN:
                yield edge.actor, memfd_records.HANG_CLASSES[run.class_of(graph.states[edge.to], edge.actor)]


def same_process():
    return scenario.system(scenario.parse(tomllib.loads(SAME_PROCESS), "test"), PRESETS["gmem-7.4"][1])


@pytest.mark.parametrize(("name", "policy"), SHIPPED)
def test_no_refusal_looks_like_a_hang_that_check_does_not_find(name, policy):
    """Over every refusal of a system, not only those that runs meet."""
    assert {one for one in refused(system(name, policy)) if one[1] != "waiting"} <= seen_by_check(name, policy)


def test_a_mapping_of_the_pins_process_is_no_hang():
    assert {wait.kind for wait in opinion(same_process()).waits} == {"livelock"}
    assert {kind for _, kind in refused(same_process())} == {"waiting"}


def again(case):
    """Whether a pin or a pipe of the case may take a page again without end: then check calls livelock what is
    vmm-bound while the VMM does not end it, since it may end and begin again."""
    return any(one["starts"] == at.ENDLESS for kind in ("pin", "vmsplice") for one in case.document.get(kind, []))


@pytest.mark.parametrize("number", [*FEW, *(pytest.param(n, marks=pytest.mark.slow) for n in range(100, 400))])
def test_a_random_system_hangs_only_as_check_says(number):
    case = drawn(number)
    try:
        seen = {(wait.actor, wait.kind) for wait in opinion(case.system(), most=1000).waits}
    except TooLarge:
        return
    seen |= {(actor, "vmm-bound") for actor, kind in seen if kind == "livelock" and again(case)}
    assert {one for one in refused(case.system()) if one[1] != "waiting"} <= seen
    assert told(plainly(*begun(case.system(), 1, us=40))[1]) <= seen


def test_most_random_systems_are_small_and_some_hang():
    small, kinds = 0, set()
    for number in FEW:
        with contextlib.suppress(TooLarge):
            kinds |= {kind for _, kind in refused(drawn(number).system())}
            small += 1
    assert small > 16 and kinds == {"waiting", "permanent", "vmm-bound"}


# --------------------------------------------------------------------------------------- requests that are parked
def test_a_request_that_hangs_is_not_repeated():
    state, around = run_of("g16-vfio-pin", "gmem-7.4", us=1_000_000)
    assert int(around.metric[0]["events"]) < 50 and around.wait["reason"][0] == PARKED
    assert (int(around.metric[0]["refusals"]), state.task["pc"][0]) == (1, at.VMM_RETRY)


@pytest.mark.parametrize("name", ["g04-one-of-four-pinned", "g16-vfio-pin", "g50-unmapped-by-a-refusal"])
def test_a_parked_request_is_converted_when_the_vmm_ends_its_mapping(name):
    """A mapping that ends after 50 us: the request hangs until then, and is asked again at the unpin."""
    for seed in SEEDS:
        state, around = begun(system(name, "gmem-7.4"), seed, us=400)
        pin = state.who["kind"].tolist().index(at.PIN)
        around.load["latency"][pin] = 50_000
        state, around = plainly(state, around)
        metric = around.metric[0]
        if not metric["hang_vmm_bound"]:
            continue
        assert metric["conversions"] == 1 and around.wait["hung"].tolist() == [0] * len(around.wait)
        (unpinned,) = [ns for ns, t, _, pc, _ in events(around) if t == pin and pc == at.UNPIN]
        asked = [ns for ns, _, _, pc, _ in events(around) if pc == at.CONVERT_LOCK]
        assert min(ns for ns in asked if ns >= unpinned) <= unpinned + 1000, "no poll, no delay"
        return
    raise AssertionError("no run met the hang")


def test_a_standing_mapping_stays_to_the_end():
    state, around = run_of("g16-vfio-pin", "gmem-7.4")
    assert state.task["pc"][1] == at.DMA_STANDS and around.fired[at.DMA_STANDS] == 0


def test_a_mapping_that_the_vmm_ends_first_hangs_nobody():
    for policy in ("unmap-first", "unmap-on-eagain", "three-tries"):
        metric = run_of("g16-vfio-pin", policy)[1].metric[0]
        assert metric["conversions"] + metric["told_no"] == 1 and metric["first_hang_ns"] == -1


# -------------------------------------------------------------------------------------------------------- counts
def counted(state, around):
    """The measures that a trace tells, counted from it. Waits for the lock: from the refusal to the next step."""
    found, met, asked, before = Counter(), {}, {}, {}
    drained, behind = False, set()
    for ns, t, _, pc, outcome in events(around):
        kind = state.who["kind"][t]
        word, rule = GUEST_MEMFD.outcomes[outcome] if outcome > 0 else "", GUEST_MEMFD.rules[pc].name
        if outcome == at.W_LOCK:
            behind |= {t} if drained and t not in met else set()
            met.setdefault(t, ns)
        if outcome < 0:
            continue
        if t in met and rule in ("fault-lock", "user-lock"):
            found["lock_waits"] += 1
            found["lock_wait_ns"] += ns - met[t]
            found["drain_waits"] += t in behind
            found["drain_wait_ns"] += (ns - met[t]) * (t in behind)
        met.pop(t, None)
        behind.discard(t)
        if rule.startswith("convert-drain"):
            drained, behind = True, set(met)
        elif rule.startswith("convert") and word in ("0", "-EAGAIN"):
            drained = False
        if rule in ("vmm-start", "vcpu-run") and word in ("OK", "exit"):
            asked[t] = ns
        found["requests"] += rule == "vmm-start" or (
            before.get(t) == "vcpu-run" and rule in ("convert-lock", "vmm-unmap")
        )
        if rule.startswith("convert") and word == "0":
            found["conversions"] += 1
            found["convert_ns"] += ns - asked[t]
            found["conversions_needless"] += rule == "convert-test"
        found["refusals"] += word == "-EAGAIN"
        found["retries"] += rule == "vmm-retry" and word == "OK"
        found["told_no"] += word == "told no"
        found["faults"] += rule == "fault-snapshot"
        found["fault_retries"] += rule == "fault-map" and word.startswith("retry")
        found["exits"] += word == "memory-fault exit"
        found["user_faults"] += rule == "user-lookup" and word != "DONE"
        found["sigbus"] += word == "SIGBUS" and kind == at.USER
        found["pins_refused"] += word == "SIGBUS" and kind in (at.DISK, at.PIN)
        found["pins"] += rule == "gup-walk" and word == "DONE"
        found["pin_retries"] += rule == "gup-recheck" and word.startswith("retry")
        found["drains_own"] += rule == "convert-drain-own"
        found["drains_all"] += rule == "convert-drain-all"
        found["holes"] += rule == "hole-end"
        found["io_done"] += rule == "io-end"
        before[t] = rule
    return found


def test_the_measures_are_those_of_the_trace():
    """Of every shipped system, over some seeds; and each measure is met by one of them."""
    total = Counter()
    for name, policy in SHIPPED:
        for seed in SEEDS:
            state, around = run_of(name, policy, seed)
            metric, found = around.metric[0], counted(state, around)
            assert {n: int(metric[n]) for n in found} == dict(found), (name, policy, seed)
            assert around.latency.sum() == metric["conversions"]
            total.update({n: int(metric[n]) for n in metric.dtype.names})
    # the first two are measured at the end of a run; single pages of `software` have no machine that is called, no
    # folio that is split, and here no TLB: tests/sim/test_conversion_cells.py
    never = {"open_stalls", "open_stall_ns", "extra_bytes", "pages_lost", "tlb_misses", "walk_ns"}
    never |= {"stuck_faults", "machine_calls", "machine_ns", "splits", "merges", "restructure_ns"}
    assert {n for n in total if not total[n]} == never


def test_pages_are_counted_where_their_attribute_changes():
    """A request for three pages of which one changes, and one for a page that is what it asks for."""
    mixed = [run_of("g06-mixed-range", "gmem-7.4", seed)[1].metric[0] for seed in SEEDS]
    assert {(int(m["conversions"]), int(m["pages_converted"])) for m in mixed if m["conversions"]} == {(1, 1)}
    nothing = run_of("g03-nothing-to-do", "gmem-7.4")[1].metric[0]
    assert (nothing["conversions"], nothing["conversions_needless"], nothing["pages_converted"]) == (1, 1, 0)


def test_faults_wait_for_the_drains_of_a_conversion():
    """A fault that meets the lock waits at least as long as the drain of all CPUs that goes on, and no vCPU hangs."""
    found = []
    for seed in MANY:
        state, around = run_of("g08-other-batch", "gmem-7.4", seed, us=1000)
        m = around.metric[0]
        if m["lock_waits"] and m["drains_all"]:
            met = next(ns for ns, _, _, _, outcome in events(around) if outcome == at.W_LOCK)
            drain = next(ns for ns, _, _, pc, _ in events(around) if pc == at.CONVERT_DRAIN_ALL)
            found += [int(m["lock_wait_ns"])] if met < drain else []
            assert m["stall_lock"] == 1 and m["stalls"] == 1 and m["first_hang_ns"] == -1
        if len(found) == 2:
            break
    assert found and min(found) > COSTS["drain_all"]


# ------------------------------------------------------------------------------------------------- the command run
def ran(*words):
    """The exit code of a command."""
    with pytest.raises(SystemExit) as ended:
        main(["run", *words])
    return ended.value.code


def test_run_takes_a_name_and_the_designs_first_preset(capsys):
    path = "scenarios/guest_memfd/g16-vfio-pin.toml"
    lines = []
    for words in ([path, "--policy", "gmem-7.4"], ["g16-vfio-pin"]):
        assert ran(*words, "--brief") == 1
        lines.append(capsys.readouterr().out)
    assert lines[0] == lines[1]
    assert lines[0].startswith("Observation g16-vfio-pin gmem-7.4 VmmBound 1 1 vcpu0<-pin:pin1@0 Hash=")
    assert ran("g16-vfio-pin") == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "vmm-bound: vcpu 0 (request to private, page 0) waits for" in shown
    assert "released by dma-unmap of pin 1, which the VMM may take" in shown and "refusals, -EAGAIN 1" in shown


def test_the_line_of_a_run_asks_what_that_of_check_asks(capsys):
    assert ran("g04-one-of-four-pinned", "--brief") == 1
    mine = capsys.readouterr().out.split()
    with pytest.raises(SystemExit):
        main(["check", "g04-one-of-four-pinned", "--policy", "gmem-7.4", "--brief"])
    theirs = capsys.readouterr().out.split()
    assert (mine[3], mine[6], mine[7]) == (theirs[3], theirs[6], theirs[7])


def test_json_and_a_trace_have_the_words_of_the_design(tmp_path, capsys):
    steps = tmp_path / "steps.ndjson"
    assert ran("g16-vfio-pin", "--policy", "gmem-7.4", "--trace", str(steps), "--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["hang_vmm_bound"], said["refusals"], said["conversions"]) == (1, 1, 0) and len(said["hangs"]) == 1
    head, *events = map(json.loads, steps.read_text().splitlines())
    assert head["design"] == "guest_memfd" and [one["kind"] for one in head["actors"]] == ["vcpu", "pin"]
    assert len(events) == said["events"]
    assert ("convert-pinned", "-EAGAIN") in {(one["rule"], one["outcome"]) for one in events}


def test_a_trace_is_a_picture_with_the_wait_for_the_lock(tmp_path, capsys):
    """Case G8: a fault waits for the invalidate lock, and the conversion's last step lets it go on."""
    steps = tmp_path / "steps.ndjson"
    assert ran("g08-other-batch", "--trace", str(steps), "--json", "--duration-us", "400") == 0
    assert json.loads(capsys.readouterr().out)["lock_waits"] == 1
    head, *events = map(json.loads, steps.read_text().splitlines())
    made = of_run(head["actors"], events, GUEST_MEMFD)
    (flow,) = [flow for flow in made.flows if flow.name == "the inode's invalidate lock"]
    assert [actor for actor, _ in flow.points] == [0, 2]
    with pytest.raises(SystemExit) as ended:
        main(["trace", "show", str(steps), "--format", "chrome"])
    assert ended.value.code == 0 and "convert-drain-all" in capsys.readouterr().out


def test_a_property_has_its_number_of_the_design(capsys, monkeypatch):
    """Costs without chance meet no step that breaks a property, so one is counted by hand."""
    simulate = cell.simulate_all

    def breaking(state, world, *rest):
        texts = simulate(state, world, *rest)
        world.broken[2], world.metric["violations"] = 1, 1
        return texts

    monkeypatch.setattr(cell, "simulate_all", breaking)
    assert ran("g03-nothing-to-do", "--duration-us", "50") == 1
    assert "property 13, a refusal names a page of the request" in " ".join(capsys.readouterr().out.split())
    assert ran("g03-nothing-to-do", "--brief", "--duration-us", "50") == 1
    assert " Unsafe 1 1 property13 " in capsys.readouterr().out


def test_a_call_runs_it():
    made = run_once("g16-vfio-pin", duration_us=100)
    assert made.hung and made.measures["hang_vmm_bound"] == 1 and made.rows()[0]["refusals"] == 1
    assert not run_once("g16-vfio-pin", policy="unmap-first", duration_us=100).hung


def test_a_run_in_steps_has_each_hang_in_words():
    state, around = begun(system("g50-unmapped-by-a-refusal", "gmem-7.4"), us=400)
    texts = cell.simulate_all(state, around)
    assert len(texts) == len(hangs(around)) == 1
    assert texts[0].startswith("vmm-bound: vmm 2 (request to private, pages 0 to 1) waits for")
