"""Monitors for the kernel's runtime verification: the sequences that executions show; read by dot2k and rvgen."""

import random
import re
import runpy
import shutil
import subprocess
import sys

import pytest

from checking import PATHS, system
from judged import TREES, WHERE
from test_observed import walk
from ultrafolio.cli import main
from ultrafolio.explore import automaton as automata
from ultrafolio.explore import monitor
from ultrafolio.explore.automaton import automaton, symbol_of
from ultrafolio.explore.observed import Event, Search
from ultrafolio.trace.kernel import SPELLINGS

PAIRS = [("03-virtio", "whole-folio"), ("04-writeback", "split"), ("09-split-early-pin", "linux-6.12"),
         ("22-reclaim-and-swap", "split")]  # fmt: skip
EVENTS = frozenset(SPELLINGS)


def run(capsys, *words):
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    out = capsys.readouterr()
    return int(left.value.code or 0), out.out, out.err


def accepts(model, symbols):
    state = 0
    for symbol in symbols:
        if (state, symbol) not in model.edges:
            return False
        state = model.edges[state, symbol]
    return True


def symbols_of(made, steps):
    """A sequence of symbols that an execution shows: what each step shows, without optional events."""
    search, number, out = Search(made, EVENTS), 0, []
    for step in steps:
        move = next(
            one for one in search.moves(number)
            if one.t == step.actor and one.outcome == step.outcome and _same(search, one, step)
        )  # fmt: skip
        out += [symbol_of(shown) for shown in move.shows if not shown.optional]
        number = move.after
    return out


def _same(search, move, step):
    from ultrafolio.check.verdicts.replay import frozen

    return frozen(search.state(move.after)) == step.after


@pytest.mark.parametrize(("name", "policy"), PAIRS)
def test_every_execution_is_a_path(name, policy):
    made = system(name, policy)
    model = automaton(made, EVENTS)
    for seed in range(5):
        assert accepts(model, symbols_of(made, walk(made, random.Random(seed), 30)))


@pytest.mark.parametrize(("name", "policy"), PAIRS)
def test_a_path_is_what_some_execution_shows_and_no_other_sequence_is(name, policy):
    """Held against the search of trace validate, which determinises nothing."""
    made, draw = system(name, policy), random.Random(11)
    model = automaton(made, EVENTS)
    both = set()
    for _ in range(25):
        state, symbols = 0, []
        for _ in range(draw.randrange(1, 8)):
            nexts = [symbol for source, symbol in model.edges if source == state]
            wrong = draw.random() < 0.15 or not nexts
            symbol = draw.choice(model.symbols if wrong else nexts)
            symbols.append(symbol)
            state = model.edges.get((state, symbol), -1)
            if state < 0:
                break
        events = [Event(s.removesuffix("_fails"), None, 0, not s.endswith("_fails"), "") for s in symbols]
        search = Search(made, EVENTS)
        search._bound = lambda one, t, tid: one.threads
        assert search.run(events).accepted == accepts(model, symbols), symbols
        both.add(accepts(model, symbols))
    assert both == {True, False}


def test_the_automaton_is_minimal_and_its_names_are_its_own():
    for name, policy in PAIRS:
        model = automaton(system(name, policy), EVENTS)
        assert len(set(model.names)) == len(model.names) and all(one.isidentifier() for one in model.names)
        # two states are different where a sequence is possible in one and not in the other
        pairs = {(a, b) for a in range(len(model.names)) for b in range(a)}
        differ = set()
        while True:
            more = {
                (a, b) for a, b in pairs - differ
                if any(_apart(model, a, b, symbol, differ) for symbol in model.symbols)
            }  # fmt: skip
            if not more:
                break
            differ |= more
        assert differ == pairs


def _apart(model, a, b, symbol, differ):
    one, other = model.edges.get((a, symbol)), model.edges.get((b, symbol))
    if one is None or other is None:
        return one is not other
    return (max(one, other), min(one, other)) in differ


def test_names_say_what_is_true(capsys):
    code, out, _ = run(capsys, "export", "--format", "rv", "--scenario", PATHS["03-virtio"], "--policy", "whole-folio")
    assert code == 0 and '"plain" -> "pinned" [ label = "try_grab_folio" ];' in out
    assert out.startswith("digraph state_automaton {")


def test_the_page_has_the_automaton_and_its_probes(capsys):
    words = ("export", "--format", "rv-rst", "--scenario", PATHS["03-virtio"], "--policy", "linux-6.12")
    code, out, _ = run(capsys, *words)
    assert code == 0 and "-- try_grab_folio --> pinned" in out and "kprobe try_grab_folio" in out


@pytest.mark.parametrize(("name", "policy"), PAIRS)
def test_the_drawing_has_each_edge_once(name, policy):
    """Read again by its columns: what stands four columns further right, below a name, is an event of that state."""
    model = automaton(system(name, policy), EVENTS)
    first, *lines = monitor.drawn(model)
    above, edges, brackets = [first], [], []
    for line in lines:
        indent, symbol, bracket, state = re.fullmatch(r"([| ]*)[|`]-- (\w+) --> (\(?)(\w+)\)?", line).groups()
        del above[len(indent) // 4 + 1 :]
        edges.append((above[-1], symbol, state))
        above.append(state)
        brackets.append(bool(bracket))
    assert sorted(edges) == sorted((model.names[a], symbol, model.names[b]) for (a, symbol), b in model.edges.items())
    assert sorted({first, *(to for (_, _, to), twice in zip(edges, brackets, strict=True) if not twice)}) == sorted(
        model.names
    )
    assert brackets.count(False) == len(model.names) - 1 and first == model.names[0]


def test_a_monitor_has_no_folder_in_its_name(capsys):
    for where in ("03-virtio", PATHS["03-virtio"]):
        out = run(capsys, "export", "--format", "rv-rst", "--scenario", where, "--policy", "linux-6.12")[1]
        assert out.startswith("Monitor uf_03_virtio_linux_6_12\n")


@pytest.mark.parametrize("words", [["--policy", "split"], ["--format", "rv"], ["--format", "rv", "--policy", "split"]])
def test_a_monitor_needs_a_scenario_and_a_policy(capsys, words):
    assert run(capsys, "export", *words)[0] == 2


def test_a_monitor_that_is_too_large_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(automata, "MOST_SETS", 3)
    words = ("export", "--format", "rv", "--scenario", PATHS["03-virtio"], "--policy", "whole-folio")
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "") and "too large" in err


def test_a_clock_runs_from_the_begin_to_the_end_of_what_must_end():
    """By models/stall.dot of the kernel: an invariant in a state's label, a reset behind the event that leads there."""
    model = automaton(system("04-writeback", "split"), EVENTS)
    plain, timed = monitor.dot(model).splitlines(), monitor.dot(model, clock=True).splitlines()
    runs = {name for name, facts in zip(model.names, model.facts, strict=True) if facts & monitor.TIMED}
    assert runs and runs < set(model.names)
    for before, after in zip(plain, timed, strict=True):
        ends = re.findall(r'^\t"(\w+)" -> "(\w+)"', after)
        if before != after:
            assert after.replace("\\nclk < threshold_jiffies", "").replace(";reset(clk)", "") == before
        if ends and not ends[0][0].startswith("__init_"):
            assert (";reset(clk)" in after) == (ends[0][1] in runs and ends[0][0] not in runs)
        elif (state := re.match(r'\t"(\w+)" \[label', after)) is not None:
            assert ("clk < threshold_jiffies" in after) == (state[1] in runs)


# ------------------------------------------------------------------------------------------------- kernel trees
def test_every_event_has_a_probe_in_each_kernel():
    assert set(monitor.PROBES) == set(SPELLINGS)


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: tree.name)
def test_the_probes_are_functions_of_the_kernel(tree):
    if not (tree / "mm/gup.c").is_file():
        pytest.skip(f"no {tree.name} here: tools/kernel-trees.sh")
    column = monitor.KERNELS.index(tree.name.removeprefix("linux-source-"))
    source = "".join(file.read_text() for folder in ("mm", "arch/s390/kernel") for file in (tree / folder).glob("*.c"))
    for event, kernels in monitor.PROBES.items():
        kind, name, *static = kernels[column].split()
        if kind == "tracepoint":
            assert re.search(rf"trace_{name}\(", source), event
        else:
            found = re.search(rf"^(static )?[a-z][\w *]*\b{name}\(", source, re.MULTILINE)
            assert found and bool(found[1]) == bool(static), (event, name)


DOT2K = WHERE / "linux-source-6.12/tools/verification"


@pytest.mark.skipif(not (DOT2K / "dot2/dot2k").is_file(), reason="no tools/verification of Linux 6.12 here")
@pytest.mark.parametrize(("name", "policy"), PAIRS)
def test_dot2k_makes_a_monitor_of_it_that_compiles(tmp_path, name, policy):
    model = automaton(system(name, policy), EVENTS)
    called = monitor.name_of(name, policy)
    (tmp_path / f"{called}.dot").write_text(monitor.dot(model))
    (tmp_path / "dot2k").mkdir()
    (tmp_path / "dot2k/rv_templates").symlink_to(DOT2K / "dot2/dot2k_templates")
    command = [sys.executable, str(DOT2K / "dot2/dot2k"), "-d", f"{called}.dot", "-t", "global"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(DOT2K)}, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    (tmp_path / "main.c").write_text(TABLE.replace("NAME", called))
    subprocess.run(["gcc", "-Wall", "-Werror", "-o", "table", "main.c"], cwd=tmp_path, check=True)
    out = subprocess.run(["./table"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    made = {tuple(line.split()) for line in out.splitlines()}
    assert made == {(model.names[a], symbol, model.names[b]) for (a, symbol), b in model.edges.items()}


RVGEN = sorted(WHERE.glob("*/tools/verification/rvgen/rvgen/automata.py"))


@pytest.mark.skipif(not RVGEN, reason="no tools/verification/rvgen of a kernel here")
@pytest.mark.parametrize("clock", [False, True])
@pytest.mark.parametrize(("name", "policy"), PAIRS)
def test_rvgen_reads_the_same_automaton_and_its_clock(tmp_path, name, policy, clock):
    """The reader of rvgen, of the last tree that has it: states, edges, invariants and resets of the clock."""
    model = automaton(system(name, policy), EVENTS)
    file = tmp_path / f"{monitor.name_of(name, policy)}.dot"
    file.write_text(monitor.dot(model, clock=clock))
    read = runpy.run_path(str(RVGEN[-1]))["Automata"](str(file))
    edges = {
        (state, event, to)
        for state, row in zip(read.states, read.function, strict=True)
        for event, to in zip(read.events, row, strict=True)
        if to != read.invalid_state_str
    }
    assert edges == {(model.names[a], symbol, model.names[b]) for (a, symbol), b in model.edges.items()}
    assert (read.initial_state, set(read.states)) == (model.names[0], set(model.names))
    if not hasattr(read, "constraints"):
        return  # rvgen before 2026 reads no clock
    runs = {one for one, facts in zip(model.names, model.facts, strict=True) if clock and facts & monitor.TIMED}
    resets = {(a, symbol) for a, symbol, b in edges if b in runs and a not in runs}
    kept = {(read.states[key[0]], read.events[key[1]]) for key in read.constraints if isinstance(key, tuple)}
    assert {read.states[key] for key in read.constraints if not isinstance(key, tuple)} == runs and kept == resets
    assert (read.envs, read.env_types) == ((["clk"], {"clk": "j"}) if runs else ([], {}))


TABLE = """
#include <stdio.h>
#include <stdbool.h>
#include "NAME/NAME.h"
int main(void) {
    for (int s = 0; s < state_max_NAME; s++)
        for (int e = 0; e < event_max_NAME; e++)
            if (automaton_NAME.function[s][e] != INVALID_STATE)
                printf("%s %s %s\\n", automaton_NAME.state_names[s], automaton_NAME.event_names[e],
                       automaton_NAME.state_names[automaton_NAME.function[s][e]]);
    return 0;
}
"""
"""Prints the table of a generated monitor: state, event, next state."""
