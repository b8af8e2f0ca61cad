"""Why it holds: runs that end what was begun; each property's truth along a story; why an expression is not true."""

import json
from collections import deque

import pytest

from checking import PATHS, checked, graph, story, system
from ultrafolio.check.verdicts.replay import NotCertified, copied, is_pending, replay, take
from ultrafolio.check.verdicts.truth import BROKEN, HOLDS, WAITS, truth_along
from ultrafolio.check.verdicts.witnesses import MOST_RUNS, _certified, witnesses
from ultrafolio.cli import main
from ultrafolio.engine.interp import to_lists
from ultrafolio.explore.expression import compiled
from ultrafolio.explore.node import node, properties
from ultrafolio.explore.walk import Walk
from ultrafolio.model.layout import DONE, E_IO
from ultrafolio.model.policies import find
from ultrafolio.waits.words import LEADS_TO, leads_to

HOLDING = [("01-direct-io", "whole-folio"), ("03-virtio", "split"), ("04-writeback", "per-page"),
           ("18-iomap-two-vcpus", "per-page"), ("08-unshare-under-pin", "per-page")]  # fmt: skip


def run(capsys, *words):
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    out = capsys.readouterr()
    return int(left.value.code or 0), out.out, out.err


def shortest_end(made, name):
    """Steps to the nearest end of what property `name` speaks of, by a search of its own."""
    start = to_lists(made.state)
    queue, seen = deque([(start, 0)]), set()
    while queue:
        state, depth = queue.popleft()
        for t, choices in enumerate(made.choices):
            for choice in range(max(1, len(choices))):
                after = copied(state)
                try:
                    step = take(made, after, t << 16 | choice)
                except NotCertified:
                    continue
                owed = leads_to(state.who[t].kind, state.actor[t].op) if is_pending(state, t) else None
                if owed == name and not is_pending(after, t) and step.outcome in (DONE, E_IO):
                    return depth + 1
                if step.after not in seen:
                    seen.add(step.after)
                    queue.append((after, depth + 1))
    return None


@pytest.mark.parametrize(("name", "policy"), HOLDING)
def test_each_leads_to_that_holds_has_runs_that_end_it(name, policy):
    result, made = checked(name, policy), system(name, policy)
    found = witnesses(graph(name, policy), result)
    assert set(found) == {
        one for one in LEADS_TO
        if all(f.verdict == "holds" and not f.trivial for f in result.findings if f.name == one)
    }  # fmt: skip
    for owed, runs in found.items():
        assert 0 < len(runs) <= MOST_RUNS, owed
        for one in runs:
            t = one.steps[-1].actor
            before, after = (replay(made, [step.by for step in steps])[1] for steps in (one.steps[:-1], one.steps))
            assert is_pending(before, t) and not is_pending(after, t), "the run ends nothing"
            assert leads_to(before.who[t].kind, before.actor[t].op) == owed
        plain = [one for one in runs if not one.wait]
        assert not plain or len(plain[0].steps) == shortest_end(made, owed)


def test_a_run_goes_on_from_a_wait_to_its_end():
    (first, *_) = witnesses(graph("01-direct-io", "whole-folio"), checked("01-direct-io", "whole-folio"))[LEADS_TO[0]]
    assert "disk 1's pin" in first.wait and first.steps[-1].outcome == DONE
    assert any(step.rule == "unpin" for step in first.steps), "the wait ended without its release"


def test_what_fails_or_is_trivial_has_no_run():
    found = witnesses(graph("03-virtio", "whole-folio"), checked("03-virtio", "whole-folio"))
    assert LEADS_TO[0] not in found and LEADS_TO[1] not in found and found[LEADS_TO[2]]


def test_a_path_that_ends_nothing_is_no_run():
    with pytest.raises(NotCertified):
        _certified(system("03-virtio", "split"), [1 << 16], 1)


# -------------------------------------------------------------------------------------------------------- truth
@pytest.mark.parametrize(
    ("name", "policy"),
    [("03-virtio", "whole-folio"), ("07-over-indication", "split"), ("34-tampered-page", "split"),
     ("13-mapped-twice", "split"), ("57-taken-away-again", "whole-folio")],
)  # fmt: skip
def test_the_truth_along_a_story_is_that_of_the_page(name, policy):
    """The page of explore tells the truth of each property at the end of a path, by functions of its own."""
    worst, made = checked(name, policy).worst, system(name, policy)
    path = [step.by for step in (*worst.steps, *worst.cycle)]
    truth = truth_along(made, path)
    walk = Walk(story(name), name, find(policy, story(name).tables), policy)
    trail = walk.follow(walk.indices(path))
    letters = {"holds": HOLDS, "waiting": WAITS, "broken": BROKEN}
    for at, state in enumerate(trail.states):
        told = {one["name"]: letters[one["truth"]] for one in properties(walk, trail.moves[:at], node(walk, state))}
        assert told == {one: some[at] for one, some in truth.items()}
    if worst.kind == "safety":
        assert truth[worst.name][-1] == BROKEN and BROKEN not in truth[worst.name][:-1]


# ------------------------------------------------------------------------------------------------------ command
def test_check_tells_why_as_text_and_json(capsys):
    code, out, _ = run(capsys, "check", PATHS["03-virtio"], "--policy", "split", "--why")
    assert code == 0 and "why it holds: pin leads to granted or refused" in out and "virtio 1 pin-get" in out
    record = json.loads(run(capsys, "check", PATHS["03-virtio"], "--policy", "whole-folio", "--why", "--json")[1])
    assert record["why"]["holds"][LEADS_TO[2]][0]["waiter"] == "virtio 1"
    assert record["why"]["truth"][LEADS_TO[0]].endswith("www") and record["verdict"] == "violated"


@pytest.mark.parametrize("words", [["--format", "tap"], ["--brief"], ["--format", "chrome"]])
def test_why_goes_with_text_and_json_only(capsys, words):
    assert run(capsys, "check", PATHS["03-virtio"], "--policy", "split", "--why", *words)[0] == 2


def test_without_leads_to_there_is_no_run(capsys):
    out = run(capsys, "check", PATHS["03-virtio"], "--policy", "split", "--why", "--safety")[1]
    assert "why it holds" not in out


# ------------------------------------------------------------------------------------------------------ why not
EXPRESSION = "mm[0].longs > 0 and mm[1].arch == 1 and uv[1].state == SECURE"


def why_not(capsys, expression, *words):
    command = ("explore", PATHS["03-virtio"], "--policy", "whole-folio", "--why-not", expression, *words)
    return run(capsys, *command)


def test_each_part_of_an_expression_is_counted_over_the_graph(capsys):
    made = json.loads(why_not(capsys, EXPRESSION, "--json")[1])
    explored, start = graph("03-virtio", "whole-folio"), system("03-virtio", "whole-folio").state
    for one in made["parts"]:
        holds = compiled(one["part"], start)
        assert one["states"] == sum(bool(holds(explored.unpack(n))) for n in range(explored.states))
    assert [one["part"] for one in made["parts"]] == EXPRESSION.split(" and ")
    assert made["nearest"]["hold"] == 2 and made["nearest"]["lacks"][0]["values"] == {"mm[1].arch": "0"}


def test_the_values_of_this_state_are_told_by_name(capsys):
    code, out, _ = why_not(capsys, EXPRESSION, "--goto", "counterexample")
    assert code == 0 and "is not  uv[1].state == SECURE: uv[1].state is EXPORTED" in out
    assert "0 states with mm[1].arch == 1" in out and "holds   mm[0].longs > 0: mm[0].longs is 1" in out


def test_an_expression_that_holds_somewhere_says_where(capsys):
    out = why_not(capsys, "mm[0].longs > 0 and uv[1].state == EXPORTED")[1]
    assert "it holds at path 1." in out


def test_a_malformed_expression_is_refused(capsys):
    code, out, err = why_not(capsys, "mm[0].long > 0")
    assert (code, out) == (2, "") and "did you mean longs?" in err
