"""The design guest_memfd: the checker equals a second opinion, on random systems and on the shipped scenarios."""

import contextlib
import functools

import pytest

from memfd_cases import FOLDER, SHIPPED, STORIES, drawn, on, system
from memfd_opinion import LEADS_TO, books, opinion
from plain_graph import TooLarge, explored
from ultrafolio.check.search import graph as exploring
from ultrafolio.check.search.graph import explore
from ultrafolio.check.verdicts.components import Lookup, judge
from ultrafolio.check.verdicts.liveness import components_of
from ultrafolio.check.verdicts.verdict import check
from ultrafolio.cli import main
from ultrafolio.commands.check_output import differences
from ultrafolio.errors import InputError
from ultrafolio.model import policies, scenario
from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.model.guest_memfd.scenario import ACTORS

FEW, MANY, LIMIT = 40, 400, 1500
NUMBERS = [*range(FEW), *(pytest.param(n, marks=pytest.mark.slow) for n in range(FEW, MANY))]


def plainly(made):
    return explore(made, functions=exploring.over_arrays(GUEST_MEMFD))


@functools.cache
def shipped(name, policy, machine=""):
    return check(on(name, machine), name, policies.find_any(policy, STORIES[name].tables), policy)


def agree(result, graph, mine):
    """The checker's findings, components and certificates are those of the second opinion."""
    assert (graph.states, graph.edges) == (len(mine.graph.states), sum(map(len, mine.graph.edges)))
    found = {n: len(graph.path(int(f["state"]))) + 1 for n, f in enumerate(graph.space.found) if f["state"] >= 0}
    assert found == mine.safety
    lookup, theirs = Lookup(graph), {}
    for component in components_of(graph):
        one = judge(lookup, component)
        held = frozenset(a if a >= 0 else f"LRU batch of CPU {-1 - a}" for a in one.holding)
        theirs[component.waiter, frozenset(component.members.tolist())] = one.kind, held
    assert theirs == {(wait.actor, wait.members): (wait.kind, wait.holders) for wait in mine.waits}
    failed = [f for f in result.findings if f.name in LEADS_TO and f.verdict == "violated"]
    told = {(f.name, f.actor, f.kind): (frozenset(f.obstacles), f.adverse) for f in failed}
    assert told == {key: (wait.named, wait.adverse) for key, wait in mine.first.items()} and len(told) == len(failed)
    assert {(f.name, f.actor) for f in result.findings if f.kind == "transient"} == mine.transient
    assert (result.verdict, result.worst.kind) == mine.worst()


@pytest.mark.parametrize("number", NUMBERS)
def test_the_second_opinion_agrees_on_a_random_system(number):
    case = drawn(number)
    try:
        mine = opinion(case.system(), most=LIMIT)
    except TooLarge:
        return
    agree(check(case.story, case.name, case.policy, "drawn"), plainly(case.system()), mine)
    for s in mine.graph.states[:: 1 + len(mine.graph.states) // 200]:
        assert all(said == found for _, said, found in books(s))


def test_most_random_systems_are_compared():
    small = 0
    for number in range(FEW):
        with contextlib.suppress(TooLarge):
            small += bool(explored(drawn(number).system(), most=LIMIT))
    kinds = set().union(*(set(drawn(n).document) & set(ACTORS) for n in range(FEW)))
    assert small > 0.7 * FEW and kinds == set(ACTORS)


@pytest.mark.parametrize(("name", "policy", "machine"), SHIPPED)
def test_a_shipped_scenario_does_what_it_expects(name, policy, machine):
    assert differences(shipped(name, policy, machine), on(name, machine).expect) == []


@pytest.mark.parametrize(("name", "policy", "machine"), SHIPPED)
def test_the_second_opinion_agrees_on_a_shipped_scenario(name, policy, machine):
    made = system(name, policy, machine)
    agree(shipped(name, policy, machine), plainly(made), opinion(made))


def test_every_preset_that_fits_the_machine_has_its_expectation():
    for name, story in STORIES.items():
        wanted = {*policies.presets_for("guest_memfd", story.machine, story.memory["folios"]), *story.tables}
        assert {key for key in story.expect if "@" not in key} == wanted, name


@pytest.mark.slow
@pytest.mark.parametrize("name", STORIES)
def test_compiled_and_plain_explorations_are_equal(name):
    made = system(name, "gmem-7.4")
    plain, compiled = plainly(made), explore(made)
    assert (plain.states, plain.edges) == (compiled.states, compiled.edges)
    assert (plain.space.to[: plain.edges] == compiled.space.to[: plain.edges]).all()


def test_a_vmm_bound_wait_names_the_vmms_step():
    worst = shipped("g16-vfio-pin", "gmem-7.4").worst
    assert (worst.kind, worst.verdict) == ("vmm-bound", "violated")
    assert worst.wait.held_by == "pin 1's long-term pin on page 0"
    assert worst.wait.released_by == "dma-unmap of pin 1, which the VMM may take"


def test_kinds_are_ranked_between_livelock_and_transient():
    kinds = {f.kind: f.rank for one in SHIPPED for f in shipped(*one).findings if f.kind}
    assert kinds["livelock"] < kinds["vmm-bound"] < kinds["transient"] and kinds["permanent"] < kinds["livelock"]


def test_symmetry_is_refused():
    with pytest.raises(InputError, match="no symmetry reduction for this design"):
        explore(system("g01-to-private", "gmem-7.4"), edges=False, fold=True)


@pytest.mark.parametrize("policy", ["gmem-7.4", "gmem-no-drain"])
def test_a_policy_of_another_design_is_refused(policy):
    with pytest.raises(InputError, match="does not support"):
        policies.find(policy)
    document = {"memory": {"folios": [0]}, "vcpu": [{}]}
    with pytest.raises(InputError, match="a policy of another design"):
        scenario.system(scenario.parse(document, "test"), policies.find_any(policy))
    with pytest.raises(InputError, match="a policy of another design"):
        scenario.system(STORIES["g01-to-private"], policies.find("per-page"))


def ran(words):
    """The exit code of a command."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    return ended.value.code


SCENARIO = str(FOLDER / "g16-vfio-pin.toml")
REFUSED = (
    ["run", SCENARIO, "--policy", "per-page"],
    ["check", SCENARIO, "--policy", "per-page"],
)


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_what_does_not_run_the_design_refuses_it(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert ran(words) == 2
    said = capsys.readouterr().err
    assert "design" in said and "Traceback" not in said and not list(tmp_path.iterdir())


def test_check_prints_the_story_and_a_matrix(capsys):
    assert ran(["check", SCENARIO, "--policy", "gmem-7.4"]) == 1
    assert "released by: dma-unmap of pin 1, which the VMM may take" in capsys.readouterr().out
    assert ran(["check", SCENARIO, "--expect"]) == 0
    assert capsys.readouterr().out.count("vmm-bound") >= 2


def test_explore_goes_to_the_counterexample(capsys):
    assert ran(["explore", SCENARIO, "--policy", "gmem-7.4", "--goto", "counterexample"]) == 0
    assert "vmm-bound: vcpu 0 (request to private, page 0)" in " ".join(capsys.readouterr().out.split())


def test_pages_without_an_owner_are_not_permuted():
    assert exploring.plain_functions(GUEST_MEMFD)["canonicalise"] is exploring.as_it_is
    assert "permute_names" not in exploring.plain_functions(GUEST_MEMFD)


@pytest.mark.slow
def test_the_compiled_functions_find_the_same_graph():
    """No shipped scenario is large enough that check compiles them by itself."""
    story = scenario.read(FOLDER / "g16-vfio-pin.toml")
    made = scenario.system(story, policies.find_any("gmem-7.4"))
    compiled, plain = explore(made, functions=exploring.compiled(GUEST_MEMFD)), plainly(made)
    assert (compiled.states, compiled.edges) == (plain.states, plain.edges) == (51, 77)
    assert compiled.space.to[:77].tolist() == plain.space.to[:77].tolist()
