"""The shortest stories with the fewest context switches, compared with brute force."""

import json
import random
from types import SimpleNamespace

import numpy as np
import pytest

from test_formats import LARGE, made, run
from ultrafolio.check.search.graph import explore
from ultrafolio.check.verdicts.minimise import fewest_switches, minimise, switches
from ultrafolio.check.verdicts.replay import NotCertified, replay
from ultrafolio.check.verdicts.verdict import check
from ultrafolio.export import trace_file
from ultrafolio.model import scenario
from ultrafolio.model.policies import find


def layered(seed):
    """A random graph in breadth-first order, with the arrays that fewest_switches reads."""
    draw = random.Random(seed)
    actors, size = draw.randint(1, 4), draw.randint(2, 40)
    edges = {
        v: [(draw.randrange(size), draw.randrange(actors) << 16 | i) for i in range(draw.randint(0, 4))]
        for v in range(size)
    }
    number, queue, parent, by, first, to, via = {0: 0}, [0], [0], [0], [0], [], []
    for here in queue:
        for goal, step in edges[here]:
            if goal not in number:
                number[goal] = len(number)
                queue.append(goal)
                parent.append(number[here])
                by.append(step)
            to.append(number[goal])
            via.append(step)
        first.append(len(to))
    space = SimpleNamespace(
        parent=np.array(parent, np.int32),
        by=np.array(by),
        first=np.array(first),
        to=np.array(to, np.int32),
        via=np.array(via, np.int32),
    )
    return SimpleNamespace(space=space, states=len(number), system=SimpleNamespace(choices=[[]] * actors))


def shortest(graph, target):
    """Returns all shortest paths to a state, by brute force."""
    paths, space = {0: [[]]}, graph.space
    while target not in paths:
        further = {}
        for state, ways in paths.items():
            for e in range(int(space.first[state]), int(space.first[state + 1])):
                further.setdefault(int(space.to[e]), []).extend([*way, int(space.via[e])] for way in ways[:200])
        paths = further
    return paths[target]


def ends(graph, path):
    """The states that a path of edges may end in."""
    states = {0}
    for by in path:
        states = {
            int(graph.space.to[e])
            for s in states
            for e in range(graph.space.first[s], graph.space.first[s + 1])
            if graph.space.via[e] == by
        }
    return states


def hold_to_brute_force(graph, target):
    ways = shortest(graph, target)
    for then in (None, *range(len(graph.system.choices))):
        tail = [] if then is None else [then << 16]
        path = fewest_switches(graph, target, then)
        assert target in ends(graph, path) and len(path) == len(ways[0])
        assert switches([*path, *tail]) == min(switches([*way, *tail]) for way in ways)
        assert path == fewest_switches(graph, target, then), "the same one every time"


@pytest.mark.parametrize("seed", range(60))
def test_fewest_switches_is_the_best_of_all_shortest_paths(seed):
    graph = layered(seed)
    for target in range(graph.states):
        hold_to_brute_force(graph, target)


@pytest.mark.parametrize("name", ["hangs", "unsafe", "livelock"])
def test_fewest_switches_of_a_real_graph(name):
    system = made(name)[2]
    graph = explore(system)
    for target in range(0, graph.states, 3):
        found, path = graph.path(target), fewest_switches(graph, target)
        assert len(path) == len(found) and switches(path) <= switches(found)
        if path:
            steps, _ = replay(system, path)
            assert steps[-1].after == replay(system, found)[0][-1].after
    hold_to_brute_force(graph, min(14, graph.states - 1))


def test_fewest_switches_in_an_incomplete_graph():
    graph = explore(scenario.system(scenario.parse(LARGE, "large"), find("per-page")), max_states=4096)
    last = int(graph.space.count["next"][0]) - 1
    assert not graph.complete
    for target in (last, last // 2):
        assert len(fewest_switches(graph, target)) == len(graph.path(target))


def test_minimise_finds_the_shortest_story_in_a_long_walk():
    system = made("unsafe")[2]
    graph = explore(system)
    found = graph.space.found[3]
    best = [*graph.path(int(found["state"])), int(found["by"])]
    draw = random.Random(7)
    for _ in range(5):
        walk = wandering(system, draw, 3)

        def is_bad(steps, state):
            return bool(steps) and steps[-1].broke == 3

        path = minimise(system, walk, is_bad)
        assert replay(system, path)[0][-1].broke == 3
        assert len(path) == len(best) and switches(path) <= switches(best)


def wandering(system, draw, number):
    """A random walk whose last step breaks property `number`."""
    path = []
    while True:
        t = draw.randrange(len(system.choices))
        by = t << 16 | draw.randrange(len(system.choices[t]))
        try:
            steps, _ = replay(system, [*path, by])
        except NotCertified:
            continue
        path.append(by)
        if steps[-1].broke == number:
            return path


def test_minimise_joins_runs_of_an_actor():
    system = made("hangs")[2]
    graph = explore(system)
    target = graph.states - 1
    after = replay(system, graph.path(target))[0][-1].after
    path = minimise(system, graph.path(target), lambda steps, state: bool(steps) and steps[-1].after == after)
    assert switches(path) == switches(fewest_switches(graph, target)) < switches(graph.path(target))


def longer(name, extra):
    """A story's trace file with steps in front that it does not need."""
    story, policy, system = made(name)
    result = check(story, f"{name}.toml", policy, name)
    worst = result.worst
    file = trace_file.trace_file(result, worst, story, policy)
    steps, _ = replay(system, [*extra, *file["path"]])
    return file | trace_file._told(steps, file["loop"] + len(extra) if "loop" in file else None), file


@pytest.mark.parametrize("name", ["waits", "hangs", "unsafe"])
def test_the_command_leaves_out_what_is_not_needed(tmp_path, capsys, name):
    # vcpu 0 touches page 1, which the hardware allows at the start
    file, short = longer(name, [0, 0, 0])
    long, small = tmp_path / "long.json", tmp_path / "small.json"
    long.write_text(trace_file.file_text(file))
    code, _, err = run(capsys, "trace", "minimise", long, "--save", small)
    assert code == 0 and err.startswith(f"was {len(file['path'])} steps")
    assert run(capsys, "trace", "verify", small)[0] == 0
    read = json.loads(small.read_text())
    assert len(read["path"]) == len(short["path"]) and switches(read["path"]) <= switches(short["path"])
    assert run(capsys, "trace", "minimise", small)[1] == small.read_text(), "nothing is left to leave out"
    for nowhere in (tmp_path / "no" / "trace.json", small / "trace.json"):
        assert run(capsys, "trace", "minimise", small, "--save", nowhere)[0] == 2


def test_the_command_refuses_what_is_not_certified(tmp_path, capsys):
    file, _ = longer("unsafe", [0])
    path = tmp_path / "wrong.json"
    path.write_text(trace_file.file_text(file | {"start": "0"}))
    code, out, _ = run(capsys, "trace", "minimise", path)
    assert code == 1 and "not certified: the initial state" in out
