"""The search: its result depends neither on threads nor on capacities; which steps it memoises."""

import json
import subprocess
import sys

import numpy as np
import pytest

from checking import ROOT, graph, naive, story, system
from ultrafolio.check.search import allocation, atomics, packing, turns
from ultrafolio.check.search import graph as exploring
from ultrafolio.check.search.graph import explore
from ultrafolio.check.search.thread_local import far_functions, local_rules
from ultrafolio.errors import InputError
from ultrafolio.model.designs import S390
from ultrafolio.model.layout import pack
from ultrafolio.model.rule import RULES
from ultrafolio.model.scenario import System

sys.path.append(str(ROOT / "benchmarks"))
import check_spin

BUSY = ("39-busy-folio", "whole-folio")
KEPT = ("node", "parent", "by", "first", "to", "via", "pending", "enabled", "memories", "found", "met", "fired")


@pytest.fixture
def eager(monkeypatch):
    """Threads share even small rounds, whatever the clock says, so that small systems use every phase. Returns the
    times that the two ways took."""
    took = []
    monkeypatch.setattr(turns, "SHARE_FROM", 4)
    monkeypatch.setattr(allocation, "SHARED_ROUND", 8)
    monkeypatch.setattr(turns, "is_faster", lambda alone, shared: took.append((alone, shared)) or True)
    return took


def used(graph):
    """Returns the contents of a graph's arrays, without unused capacity."""
    count = graph.space.count[0]
    size = {"first": graph.states + 1, "to": graph.edges, "via": graph.edges}
    made = {name: getattr(graph.space, name)[: size.get(name, graph.states)].tobytes() for name in KEPT}
    kept = int(graph.space.memory_count.max())
    return made | {"memories": graph.space.memories[:, :kept].tobytes(), "count": int(count["states"])}


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize(("name", "policy"), [BUSY, ("25-reboot-with-device", "whole-folio-literal")])
def test_the_result_does_not_depend_on_threads(name, policy, threads, eager):
    one, several = graph(name, policy), explore(system(name, policy), threads=threads)
    assert eager or several.interpreted
    assert (one.states, one.edges, one.depth) == (several.states, several.edges, several.depth)
    assert used(one) == used(several)


@pytest.mark.parametrize(("limits", "reason"), [({"max_states": 1234}, "1234 states"), ({"max_mib": 3}, "3 MiB")])
def test_a_limit_is_met_at_the_same_state_by_any_number_of_threads(limits, reason, eager):
    made = [explore(system("39-busy-folio", "whole-folio-literal"), threads=n, **limits) for n in (1, 2, 3)]
    assert not made[0].complete and reason in made[0].reason
    assert len({(g.states, g.edges, g.reason) for g in made}) == 1
    assert used(made[0]) == used(made[1]) == used(made[2])


def test_too_many_parts_are_met_at_the_same_state_by_rounds_of_any_size(monkeypatch):
    monkeypatch.setattr(packing, "MAX_PARTS", 70)
    met = set()
    for size in (1, 8, 32):
        monkeypatch.setattr(packing, "ROUND", size)
        plain = exploring._loaded(lambda f: f, lambda f: f, atomics.plain(), S390, unsigned=False)
        calls = {name: lambda *a, f=plain[name]: exploring._over_arrays(f, *a) for name in exploring._ENTRIES}
        found = explore(system(*BUSY), functions=calls)
        met.add((found.states, found.edges, found.complete))
    assert len(met) == 1 and not met.pop()[2]


def test_more_memories_than_a_row_can_hold_are_unknown(monkeypatch):
    monkeypatch.setattr(exploring, "MAX_MEMORIES", 1024)
    found = explore(check_spin.made("benchmarks/eight-pages.toml", "per-page"), edges=False)
    assert not found.complete and "1024 different states of all pages" in found.reason


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("edges", [True, False])
def test_the_result_does_not_depend_on_the_width_of_a_row(edges, threads, eager, monkeypatch):
    """Rows start with tiny fields, are repacked often, and become several words wide."""
    usual = explore(system(*BUSY), edges=edges)
    small = ((packing, "WORD_BITS", 14), (allocation, "FIRST_IDS", 2))
    for module, name, value in small:
        monkeypatch.setattr(module, name, value)
    wide = explore(system(*BUSY), edges=edges, threads=threads)
    assert wide.space.node.shape[1] > 1 == usual.space.node.shape[1]
    assert (usual.states, usual.edges, usual.depth) == (wide.states, wide.edges, wide.depth)
    assert {n: a for n, a in used(usual).items() if n != "node"} == {n: a for n, a in used(wide).items() if n != "node"}
    for number in range(0, usual.states, 97):
        assert pack(usual.unpack(number)) == pack(wide.unpack(number))


@pytest.mark.parametrize("threads", [1, 2])
def test_without_edges_the_states_are_the_same(threads, eager):
    full, bare = graph(*BUSY), explore(system(*BUSY), edges=False, threads=threads)
    assert (full.states, full.edges, full.depth) == (bare.states, bare.edges, bare.depth)
    same = ("node", "parent", "by", "found", "met", "fired")
    assert {n: used(full)[n] for n in same} == {n: used(bare)[n] for n in same}
    assert len(bare.space.to) == len(bare.space.pending) == 0


def test_a_state_takes_few_bytes_without_edges():
    bare = explore(system("39-busy-folio", "whole-folio-literal"), edges=False)
    space, capacity = bare.space, int(bare.space.count["capacity"][0])
    each = sum(a.nbytes / len(a) for a in (space.node, space.parent, space.by)) + space.table.nbytes / capacity
    assert each <= 48


def test_nothing_is_compiled_again_for_another_size_of_system():
    functions = exploring.compiled()
    if not hasattr(functions["explore"], "signatures"):
        pytest.skip("NUMBA_DISABLE_JIT is set: nothing is compiled")
    for name in ("39-busy-folio", "22-reclaim-and-swap", "23-foreign-page", "25-reboot-with-device"):
        for edges in (True, False):
            explore(system(name, "whole-folio"), edges=edges, threads=1)
    assert len(functions["explore"].signatures) == len(functions["begin"].signatures) == 1
    assert len(functions["run_missing"].signatures) <= 1, "0 if explore came from the cache"


def test_the_rules_that_read_other_threads_are_known():
    assert far_functions() == {"reboot_quiet"}
    local = local_rules()
    assert [RULES[pc].name for pc in RULES if not local[pc]] == ["reboot-quiet"]


def test_memoising_a_step_that_reads_other_threads_is_wrong(monkeypatch):
    made = system("25-reboot-with-device", "whole-folio")
    truth = naive(made)
    functions = exploring._loaded(lambda f: f, lambda f: f, atomics.plain(), S390, unsigned=False)

    def counted(functions):
        calls = {name: lambda *a, f=functions[name]: exploring._over_arrays(f, *a) for name in exploring._ENTRIES}
        found = explore(made, functions=calls)
        return found.states, found.edges

    right = counted(functions)
    functions["LOCAL"] = (True,) * len(functions["LOCAL"])
    wrong = counted(functions)
    assert right[1] == sum(len(steps) for steps in truth.edges) != wrong[1]


@pytest.mark.parametrize(
    ("file", "policy", "most"),
    [
        ("scenarios/39-busy-folio.toml", "whole-folio-literal", 6_000),
        ("benchmarks/two-folios.toml", "whole-folio-literal", 20_000),
    ],
)
def test_each_step_is_run_once_per_memory_and_part(file, policy, most):
    """And two folios that have nothing to do with each other add their steps."""
    found = explore(check_spin.made(file, policy), edges=False, max_states=60_000).space
    places = found.index[found.index > 0]
    assert (found.home >= 0).all()
    assert 0 < len(np.unique(places)) == len(places) < most
    # arrays that grow lose none: `pool` has no steps but those at these places
    headers = found.pool[places]
    told = headers >> packing.HEAD_TOLD
    sizes = 1 + (headers & packing.STEPS_MASK) * (found.node.shape[1] + told)
    assert int(found.count["used"][0]) == 1 + int(sizes.sum())


def test_a_state_beyond_its_full_bucket_is_found_there(monkeypatch):
    """A dense table that grows has such states: they are entered again slot by slot, and looked up by buckets."""
    for name, value in (("FIRST_SLOTS", 1 << 10), ("FEWEST_SLOTS", 1 << 10), ("LARGE_TABLE", 0)):
        monkeypatch.setattr(allocation, name, value)
    expected = story(BUSY[0]).expect[BUSY[1]]["states"]
    found = explore(system(*BUSY), edges=False, max_states=2 * expected)
    assert found.complete and found.states == expected
    assert len(np.unique(found.space.node[: found.states], axis=0)) == expected
    full = (found.space.table.reshape(-1, packing.BUCKET) != 0).all(axis=1)
    assert full.sum() > 10


def test_states_of_several_words_are_compared_whole(monkeypatch):
    made = check_spin.made("scenarios/39-busy-folio.toml", "whole-folio-literal")
    whole = explore(made, edges=False)
    monkeypatch.setattr(packing, "WORD_BITS", 14)
    narrow = explore(made, edges=False)
    assert narrow.space.node.shape[1] > whole.space.node.shape[1]
    assert (narrow.states, narrow.edges, narrow.depth) == (whole.states, whole.edges, whole.depth)


@pytest.mark.skipif(bool(check_spin.missing()), reason=f"not installed: {', '.join(check_spin.missing())}")
def test_the_benchmark_against_spin_runs_and_both_agree():
    command = [sys.executable, str(ROOT / "benchmarks" / "check_spin.py"), "--quick", "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["the checker against SPIN"]
    expected = story("39-busy-folio").expect["whole-folio-literal"]
    assert (row["states"], row["edges"]) == (expected["states"], expected["edges"])
    assert row["ours/SPIN"] > 1


def test_more_choices_than_a_memoised_step_can_hold_are_refused():
    made = system(*BUSY)
    for count, refused in ((packing.MAX_CHOICES, False), (packing.MAX_CHOICES + 1, True)):
        many = System(made.state, [made.choices[0][:1] * count, *made.choices[1:]])
        if refused:
            with pytest.raises(InputError, match="too many choices of actor 0"):
                explore(many)
        else:
            assert not explore(many, max_states=50, edges=False).complete
