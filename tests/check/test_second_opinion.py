"""The checker equals an independent one (support/second_opinion.py) on random systems; that one equals answers by
hand."""

import functools

import pytest

from checking import PATHS, system
from drawn_cases import case, endless_kinds, fitting
from plain_graph import LIMIT, TooLarge, explored, waits
from second_opinion import (
    LEADS_TO,
    PIN,
    TOUCH,
    UNSHARE,
    WRITEBACK,
    Obstacle,
    counted,
    head,
    holds,
    opinion,
    references,
    unit,
)
from ultrafolio.check.search.graph import explore
from ultrafolio.check.verdicts.components import Lookup, judge
from ultrafolio.check.verdicts.liveness import components_of
from ultrafolio.check.verdicts.verdict import check
from ultrafolio.engine.load import interpreted, mutant
from ultrafolio.model import scenario
from ultrafolio.model.layout import NO_WRITEBACK
from ultrafolio.model.policies import PRESETS, find
from ultrafolio.model.policy import CHOICES

FEW, MANY = 40, 500
NUMBERS = [*range(FEW), *(pytest.param(n, marks=pytest.mark.slow) for n in range(FEW, MANY))]


def is_small(made):
    return explore(made.system(), max_states=LIMIT).complete


@functools.cache
def drawn(number):
    """The case of this number, and how many attempts were too large."""
    return fitting(number, is_small)


@pytest.fixture(scope="module", params=NUMBERS)
def both(request):
    """A case with the second opinion on it. Of module scope, so that one graph at a time is kept."""
    made, _ = drawn(request.param)
    return made, opinion(made.system())


# ---------------------------------------------------------------------------------- the checker, on random systems
def test_graph_and_safety_agree(both):
    made, mine = both
    graph = explore(made.system())
    assert (graph.states, graph.edges) == (len(mine.graph.states), sum(map(len, mine.graph.edges)))
    found = {n: int(first["state"]) for n, first in enumerate(graph.space.found) if first["state"] >= 0}
    assert {n: len(graph.path(state)) + 1 for n, state in found.items()} == mine.safety


def test_every_component_agrees(both):
    made, mine = both
    graph = explore(made.system())
    lookup, theirs = Lookup(graph), {}
    for component in components_of(graph):
        found = judge(lookup, component)
        held = {a if a >= 0 else f"LRU batch of CPU {-1 - a}" for a in found.holding}
        theirs[component.waiter, frozenset(component.members.tolist())] = found.kind, found.expected, held
    assert theirs == {(wait.actor, wait.members): (wait.kind, wait.expected, wait.holders) for wait in mine.waits}


def test_findings_agree(both):
    made, mine = both
    agree(check(scenario.parse(made.document, made.name), made.name, made.policy, "drawn"), mine)


def agree(result, mine):
    """The findings of the checker are those of the second opinion."""
    failed = [f for f in result.findings if f.name in LEADS_TO and f.verdict == "violated"]
    theirs = {(f.name, f.actor, f.kind, f.expected): frozenset(f.obstacles) for f in failed}
    assert len(failed) == len(theirs), "one finding for each property, waiter, class and mark"
    assert {key: theirs[key] if key[2] != "fatal" else frozenset() for key in theirs} == mine.named
    assert {(f.name, f.actor) for f in result.findings if f.kind == "transient"} == mine.transient
    assert (result.verdict, result.worst.kind) == mine.worst()


def test_every_kind_of_actor_acts_without_end_in_the_few():
    kinds = set().union(*(endless_kinds(drawn(n)[0].document) for n in range(FEW)))
    assert kinds == set(scenario.ACTORS)
    left_out = sum(drawn(n)[1] for n in range(FEW))
    assert left_out < FEW, f"{left_out} attempts were larger than {LIMIT} states"


def test_every_choice_of_a_policy_is_drawn_in_the_few():
    seen = [drawn(n)[0].policy for n in range(FEW)]
    for name, words in CHOICES.items():
        assert {getattr(policy, name) for policy in seen} == set(words), name


def test_a_number_is_always_the_same_case():
    assert case(7) == case(7) != case(8)


# -------------------------------------------------------------------------------------------- answers written by hand
def memory(folios, *state, **more):
    return {"memory": {"folios": folios, "state": list(state), **more}}


ENDLESS = {"starts": 255}
LONE_DISK = memory([1], "shared", "secure") | {"vcpu": [{"touch": [1]}], "disk": [{"page": 0, **ENDLESS}]}
BATCHED = memory([0], "exported") | {"vcpu": [{"touch": [0]}], "lru": [{"cpu": 1, "page": [0], **ENDLESS}]}
TWO_UNSHARE = memory([0], "shared") | {"vcpu": [{"unshare": [0]}, {"cpu": 1, "unshare": [0]}], "virtio": [{"page": 0}]}
NEIGHBOUR = memory([1], "shared", "exported") | {
    "vcpu": [{"unshare": [0]}, {"cpu": 1, "touch": [1]}],
    "virtio": [{"page": 0}],
}
ONE_UNSHARE = memory([0], "shared") | {"vcpu": [{"unshare": [0]}], "virtio": [{"page": 0}]}
RINGED = memory([1], "shared", "secure") | {"vcpu": [{"touch": [1]}], "virtio": [{"page": 0}]}
IOMAP = memory([1], "non_secure", backing="iomap") | {"vcpu": [{"touch": [0]}]}
WRITTEN_BACK = IOMAP | {"writeback": [{"page": [0], **ENDLESS}]}
READ = memory([0], "shared") | {"vcpu": [{"touch": [0]}], "disk": [{"page": 0}]}
TOUCHED = memory([0], "exported") | {"vcpu": [{"touch": [0]}], "disk": [{"page": 0}]}
TWO_IMPORTS = memory([1], "non_secure") | {"vcpu": [{"touch": [0]}, {"cpu": 1, "touch": [1]}]}
AFTER_IO = memory([0], "shared") | {"vcpu": [{"unshare": [0]}, {"cpu": 1, "unshare": [0]}], "disk": [{"page": 0}]}
PINNED_EARLY = memory([1], "non_secure") | {"vcpu": [{"touch": [1]}], "pin": [{"page": 0}]}
STUCK_DISK = TOUCHED | {"disk": [{"page": 0, "completes": False}]}
STUCK_UNSHARE = memory([0], "shared") | {"vcpu": [{"unshare": [0]}], "disk": [{"page": 0, "completes": False}]}
STUCK_WRITE = memory([0], "exported") | {"vcpu": [{"touch": [0]}], "writeback": [{"page": [0], "completes": False}]}
HOST_READS = memory([0], "secure") | {"vcpu": [{"touch": [0]}], "access": [{"read": [0], **ENDLESS}]}
SLEEPER = memory([0, 0], "exported", "exported") | {
    "vcpu": [{"touch": [0]}, {"cpu": 1, "touch": [1]}],
    "disk": [{"page": 0, **ENDLESS}],
}
BATCHED_ONCE = memory([0], "exported") | {"vcpu": [{"touch": [0]}, {"touch": [0]}], "lru": [{"cpu": 1, "page": [0]}]}

UNSHARES = {(UNSHARE, 0, "permanent", True): {"references"}, (UNSHARE, 1, "permanent", True): {"references"}}
MINE = {(UNSHARE, 0, "permanent", True): {"references"}}
GONE = {(TOUCH, 0, "livelock", False): {"page"}}
BLOCKED = {(TOUCH, 0, "livelock", False): {"references"}}
ANSWERS = {
    # document, policies, what each wait is named after, the verdict
    "a page taken away": (LONE_DISK, ["whole-folio"], {(TOUCH, 0, "livelock", False): {"page"}}, "violated livelock"),
    "a disk beside": (LONE_DISK, ["per-page", "import-lock", "folio-bitmap"], {}, "holds None"),
    "a batch that comes again": (BATCHED, list(PRESETS), BLOCKED, "violated livelock"),
    "a batch that nobody drains": (
        BATCHED, ["never-drains"], {(TOUCH, 0, "permanent", False): {"references"}}, "violated permanent"),
    "two unshares": (TWO_UNSHARE, list(PRESETS), UNSHARES, "holds permanent"),
    "beside an expected wait": (
        NEIGHBOUR, ["per-page", "folio-bitmap-pins"], {**MINE, (TOUCH, 1, "livelock", False): {"lock"}},
        "violated livelock"),
    "beside an expected wait, split": (
        NEIGHBOUR, ["split", "split-false-success", "split-writeback", "import-lock"], MINE, "holds permanent"),
    "a killed guest": (ONE_UNSHARE, ["gives-up"], {(UNSHARE, 0, "fatal", False): set()}, "violated fatal"),
    "an expected wait": (ONE_UNSHARE, list(PRESETS), MINE, "holds permanent"),
    "a ring beside": (
        RINGED, ["whole-folio"], {(TOUCH, 0, "permanent", False): {"references"}}, "violated permanent"),
    "a dirty folio": (IOMAP, ["split"], {(TOUCH, 0, "permanent", False): {"dirty"}}, "violated permanent"),
    "a folio dirtied again": (WRITTEN_BACK, ["split"], {(TOUCH, 0, "livelock", False): {"dirty"}}, "violated livelock"),
    "two imports refuse each other's split": (
        TWO_IMPORTS, ["split-writeback", "linux-6.16"],
        {(TOUCH, t, "livelock", False): {"references"} for t in (0, 1)}, "violated livelock"),
    "two imports, one at a time": (TWO_IMPORTS, ["split", "import-lock", "linux-7.0"], {}, "holds transient"),
    "two unshares refuse each other's freeze": (
        AFTER_IO, ["split-writeback", "linux-6.16"],
        {(UNSHARE, t, "livelock", False): {"references"} for t in (0, 1)}, "violated livelock"),
    "two unshares, one at a time": (AFTER_IO, ["split", "import-lock", "linux-7.0"], {}, "holds transient"),
    "a pin before the first import": (
        PINNED_EARLY, ["split", "import-lock", "linux-7.0"], {(TOUCH, 0, "permanent", False): {"references"}},
        "violated permanent"),
    "a count that cannot match": (
        memory([1], "non_secure") | {"vcpu": [{"touch": [1]}]}, ["linux-5.10"],
        {(TOUCH, 0, "permanent", False): {"references"}}, "violated permanent"),
    "I/O that never completes": (
        STUCK_DISK, ["per-page"], {(TOUCH, 0, "permanent", False): {"references"}}, "violated permanent"),
    "an unshare under I/O that never completes": (STUCK_UNSHARE, ["per-page"], MINE, "holds permanent"),
    "writeback that never completes": (
        STUCK_WRITE, ["per-page"], {(TOUCH, 0, "permanent", False): {"writeback"}}, "violated permanent"),
    "a host that reads again and again": (HOST_READS, ["per-page"], GONE, "violated livelock"),
    "a mutex whose holder sleeps, and might wake": (
        SLEEPER, ["sleeps-in-the-mutex"],
        {(TOUCH, 0, "livelock", False): {"page"}, (TOUCH, 1, "livelock", False): {"mutex"}}, "violated livelock"),
    "a batch that two imports keep each other from": (
        BATCHED_ONCE, ["per-page"], {(TOUCH, t, "permanent", False): {"references"} for t in (0, 1)},
        "violated permanent"),
    "I/O": (TOUCHED, ["per-page"], {}, "holds transient"),
    "no wait": (READ, ["per-page"], {}, "holds None"),
}  # fmt: skip
TABLES = {
    "never-drains": {"base": "per-page", "drain": "none"},
    "gives-up": {"base": "per-page", "on_busy": "give-up", "give_up": 2},
    "sleeps-in-the-mutex": {"base": "import-lock", "on_busy": "sleep", "drain": "none"},
}


def written(document, policy):
    return scenario.system(scenario.parse(document, "test"), find(policy, TABLES))


@pytest.mark.parametrize(("name", "policy"), [(name, policy) for name in ANSWERS for policy in ANSWERS[name][1]])
def test_an_answer_written_by_hand(name, policy):
    document, _, named, verdict = ANSWERS[name]
    found = opinion(written(document, policy))
    assert found.named == {key: frozenset(words) for key, words in named.items()}
    assert "{} {}".format(*found.worst()) == verdict and not found.safety


@pytest.mark.parametrize(("name", "policy"), [(name, policy) for name in ANSWERS for policy in ANSWERS[name][1]])
def test_the_checker_gives_the_same_answer(name, policy):
    document = ANSWERS[name][0]
    result = check(scenario.parse(document, name), name, find(policy, TABLES), policy)
    agree(result, opinion(written(document, policy)))


@pytest.mark.parametrize(
    ("document", "policy", "key", "who"),
    [
        (BATCHED, "never-drains", (TOUCH, 0, "permanent", False), {"LRU batch of CPU 1"}),
        (TWO_UNSHARE, "import-lock", (UNSHARE, 1, "permanent", True), {2}),
        (RINGED, "whole-folio", (TOUCH, 0, "permanent", False), {1}),
        (STUCK_DISK, "per-page", (TOUCH, 0, "permanent", False), {1}),
        (STUCK_WRITE, "per-page", (TOUCH, 0, "permanent", False), {1}),
    ],
)
def test_holders(document, policy, key, who):
    assert opinion(written(document, policy)).holders[key] == who


def test_the_mutex_is_held_by_a_vcpu_that_sleeps():
    """vCPU 1 finds the mutex taken by vCPU 0, which sleeps until the ring is gone."""
    document = memory([1], "shared", "exported") | {
        "vcpu": [{"unshare": [0]}, {"cpu": 1, "touch": [1]}],
        "virtio": [{"page": 0}],
    }
    found = opinion(written(document, "sleeps-in-the-mutex"))
    key = TOUCH, 1, "permanent", False
    assert found.named[key] == {"mutex"} and found.holders[key] == {0}
    assert (UNSHARE, 0, "permanent", True) in found.leads_to and found.worst() == ("violated", "permanent")


def test_a_mutex_that_its_holder_might_give_back_is_no_permanent_wait():
    """vCPU 0 sleeps with the mutex, and could wake between any two pieces of I/O: its step is not owed, but enabled."""
    (wait,) = [wait for wait in opinion(written(SLEEPER, "sleeps-in-the-mutex")).waits if wait.actor == 1]
    graph = explored(written(SLEEPER, "sleeps-in-the-mutex"))
    assert all(graph.states[v].vm[0].mutex == 1 for v in wait.members) and wait.kind == "livelock"


def test_a_releasing_step_that_is_enabled_nowhere_in_the_component_does_not_count():
    """Two imports that find each other's lock drain their own CPU's batches for ever, and never all."""
    holders = opinion(written(BATCHED_ONCE, "per-page")).holders
    assert holders[TOUCH, 0, "permanent", False] == {"LRU batch of CPU 1"}


def test_a_count_that_never_thaws_stops_a_pin_for_ever():
    broken = {"    thaw(s, t)\n    return report": "    unlock(s, s.task[t].page)\n    return report"}
    found = opinion(written(TOUCHED, "per-page"), mutant(broken))
    assert found.named[PIN, 1, "permanent", False] == {"frozen"} and found.worst() == ("violated", "permanent")
    assert not found.holders[PIN, 1, "permanent", False], "nobody that froze it will thaw it"


def test_a_lock_that_is_never_given_back_stops_a_writeback():
    document = memory([0], "exported") | {"vcpu": [{"touch": [0]}], "writeback": [{"page": [0]}]}
    broken = {"    thaw(s, t)\n    return report": "    return report"}
    found = opinion(written(document, "per-page"), mutant(broken))
    assert found.named[WRITEBACK, 1, "permanent", False] == {"lock"}


def test_a_transient_wait_is_told_with_its_property():
    assert opinion(written(TOUCHED, "per-page")).transient == {(TOUCH, 0)}


def test_a_broken_property_has_its_least_number_of_steps():
    found = opinion(written(LONE_DISK, "whole-folio-literal"))
    assert found.safety[3] == 6 and found.worst() == ("violated", "safety")


def test_a_system_beyond_the_limit_is_refused():
    with pytest.raises(TooLarge, match="more than 100 states"):
        explored(system("39-busy-folio", "per-page"), most=100)


def test_a_strongly_fair_step_is_not_starved():
    """A vCPU that sleeps for the lock gets it, though it is free now and then only; one that polls does not."""
    graph = explored(written(NEIGHBOUR, "per-page"))
    assert waits(graph, 1) and not waits(explored(written(NEIGHBOUR, "split")), 1)


# ------------------------------------------------------------------------------------------------------- the tables
def books(s):
    """What the state says of locks, freezes, write-backs, mutexes and references, and what its threads say."""
    run, threads = interpreted(), range(len(s.task))

    def held(page, word):
        return any(holds(s, t, page, Obstacle(word)) for t in threads)

    for page in range(len(s.mm)):
        m = s.mm[head(s, page)]
        yield "lock", bool(m.locked), held(page, "lock")
        yield "writeback", m.writeback != NO_WRITEBACK, held(page, "writeback")
        yield "frozen", bool(s.mm[run.counted(s, page)].frozen), held(page, "frozen")
        yield "references", run.extra_refs(s, page), counted(s, unit(s, page))
        here = range(page, page + 1)
        if not s.cfg[0].faultin_leak:
            yield "holders", counted(s, here), sum(references(s, t, page) for t in threads) + bool(s.mm[page].batch)
    for vm, machine in enumerate(s.vm):
        yield "mutex", bool(machine.mutex), any(s.task[t].mutex and s.who[t].vm == vm for t in threads)


def test_every_held_lock_and_reference_has_a_holder(both):
    """The tables of the second opinion are those of the rules: a new rule, or kind of reference, must stand in them."""
    states = both[1].graph.states
    for s in states[:: 1 + len(states) // 500]:
        for word, said, found in books(s):
            assert said == found, word


@pytest.mark.parametrize("name", PATHS)
def test_every_held_lock_and_reference_has_a_holder_in_the_shipped_scenarios(name):
    for policy in ("whole-folio", "import-lock"):
        try:
            states = explored(system(name, policy), most=4000).states
        except TooLarge:
            continue
        for s in states[:: 1 + len(states) // 200]:
            assert all(said == found for _, said, found in books(s))
