"""A verdict or a trace file that contradicts its story is refused. No wait hides another."""

import dataclasses
import json
import tomllib
from pathlib import Path

import pytest

from ultrafolio.check.search.graph import explore
from ultrafolio.check.verdicts import components, verdict
from ultrafolio.check.verdicts.components import Lookup, judge
from ultrafolio.check.verdicts.liveness import components_of
from ultrafolio.errors import Defect, InputError
from ultrafolio.export.trace_file import read, trace_file, verify
from ultrafolio.model import policies, scenario
from ultrafolio.waits import words
from ultrafolio.waits.words import stall


def parsed(text):
    return scenario.parse(tomllib.loads(text), "here")


def judged(text, policy):
    story = parsed(text)
    return verdict.check(story, "here", policies.find(policy, story.tables), policy)


PERMANENT = """
[memory]
folios = [1]
state = ["shared", "secure"]
[[virtio]]
page = 0
[[vcpu]]
touch = [1]
"""
LIVELOCK = (Path(__file__).parents[2] / "scenarios/56-neighbour-of-an-expected-wait.toml").read_text()


# ------------------------------------------------------------------------------------------------ trace files
def saved(text, policy):
    story = parsed(text)
    result = judged(text, policy)
    return trace_file(result, result.worst, story, policies.find(policy, story.tables))


@pytest.fixture(scope="module")
def files():
    return {"permanent": saved(PERMANENT, "whole-folio"), "livelock": saved(LIVELOCK, "per-page")}


def verified(made, folder):
    """Whether the file is certified; a file that cannot be read is not."""
    path = folder / "trace.json"
    path.write_text(json.dumps(made))
    try:
        return verify(read(path)) is None
    except InputError:
        return False


LIES = {
    # a file, the field of its claim, and what it says instead
    "holder": ("permanent", "text", lambda text: text.replace("virtio 1's long-term pin on page 0", "nobody")),
    "release": ("permanent", "text", lambda text: text.replace("ring-teardown of virtio 1", "the next drain")),
    "class": ("permanent", "class", lambda _: "livelock"),
    "no class": ("permanent", "class", lambda _: ""),
    "death": ("permanent", "class", lambda _: "fatal"),
    "named": ("permanent", "named", lambda _: ["lock"]),
    "named after nothing": ("permanent", "named", lambda _: []),
    "page": ("permanent", "page", lambda page: 1 - page),
    "unit": ("permanent", "whole", lambda whole: not whole),
    "waiter": ("permanent", "number", lambda number: 1 - number),
    "livelock named after nothing": ("livelock", "named", lambda _: []),
    "livelock named after another": ("livelock", "named", lambda _: ["references"]),
    "livelock named after the page": ("livelock", "named", lambda _: ["page"]),
    "livelock that stays": ("livelock", "class", lambda _: "permanent"),
    "taker": ("livelock", "text", lambda text: text.replace("import-trylock of vcpu 0", "ring-teardown of virtio 2")),
}


@pytest.mark.parametrize("name", LIES)
def test_a_file_that_contradicts_its_story_is_refused(files, name, tmp_path):
    kind, field, change = LIES[name]
    made = files[kind]
    assert verified(made, tmp_path)
    lie = change(made["claim"][field])
    assert lie != made["claim"][field], "the lie changes nothing"
    assert not verified(made | {"claim": made["claim"] | {field: lie}}, tmp_path)


# ------------------------------------------------------------------------------------------------ before printing
def replaced(**changes):
    """A judge that misclassifies every component."""

    def wrong(lookup, component):
        right = components.judge(lookup, component)
        return dataclasses.replace(right, **{k: v(right) for k, v in changes.items()})

    return wrong


WRONG = {
    "mark": (PERMANENT, {"expected": lambda j: not j.expected}),
    "class": (PERMANENT, {"kind": lambda j: "livelock"}),
    "named": (PERMANENT, {"named": lambda j: 4}),
    "holding": (PERMANENT, {"holding": lambda j: (j.component.waiter,)}),
    "page": (PERMANENT, {"page": lambda j: 0}),
    "takers": (LIVELOCK, {"takers": lambda j: ((2, "ring-teardown"),)}),
    "releases": (LIVELOCK, {"releases": lambda j: (*j.releases, (2, "io-end"))}),
    "livelock's class": (LIVELOCK, {"kind": lambda j: "permanent"}),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_judgement_is_a_defect(name, monkeypatch):
    text, changes = WRONG[name]
    monkeypatch.setattr(verdict, "judge", replaced(**changes))
    with pytest.raises(Defect):
        judged(text, "whole-folio" if text == PERMANENT else "per-page")


@pytest.mark.parametrize("text", [PERMANENT, LIVELOCK])
def test_wrong_words_are_a_defect(text, monkeypatch):
    right = verdict.wait_of

    def wrong(lookup, component):
        return dataclasses.replace(right(lookup, component), held_by="nobody", released_by="the next drain")

    monkeypatch.setattr(verdict, "wait_of", wrong)
    with pytest.raises(Defect):
        judged(text, "whole-folio" if text == PERMANENT else "per-page")


SAID = {
    "what is waited for": (PERMANENT, "whole-folio", {"waits_for": lambda text: text.replace("page 1", "page 0")}),
    "what a livelock is about": (LIVELOCK, "per-page", {"waits_for": lambda text: "the VM's import mutex"}),
    "one taker more": (LIVELOCK, "per-page", {"taken_by": lambda text: f"{text}; ring-teardown of virtio 2"}),
    "one release more": (LIVELOCK, "per-page", {"released_by": lambda text: f"{text}; io-end of disk 1"}),
    "a taker less": (LIVELOCK, "per-page", {"taken_by": lambda text: text.rpartition("; ")[0]}),
    "who is dead": (PERMANENT, "refuse-large", {"held_by": lambda text: text.replace("vcpu 0", "virtio 1")}),
}


@pytest.mark.parametrize("name", SAID)
def test_each_part_of_the_words_is_certified(name, monkeypatch):
    text, policy, changes = SAID[name]
    assert judged(text, policy).worst.wait
    right = verdict.wait_of

    def wrong(lookup, component):
        wait = right(lookup, component)
        return dataclasses.replace(wait, **{field: change(getattr(wait, field)) for field, change in changes.items()})

    monkeypatch.setattr(verdict, "wait_of", wrong)
    with pytest.raises(Defect):
        judged(text, policy)


def test_wrong_words_of_a_holder_are_a_defect(monkeypatch):
    monkeypatch.setattr(words, "_pin", lambda s, a, where: words.Holder(a, "nobody", "the next drain", stays=True))
    with pytest.raises(Defect):
        judged(PERMANENT, "whole-folio")


def test_a_holder_that_is_left_out_is_a_defect(monkeypatch):
    right = words.holders
    monkeypatch.setattr(words, "holders", lambda *given: right(*given)[1:])
    for text, policy in ((PERMANENT, "whole-folio"), (LIVELOCK, "per-page")):
        with pytest.raises(Defect):
            judged(text, policy)


# ------------------------------------------------------------------------------------------------ no wait is hidden
def test_a_transient_wait_is_reported_beside_one_that_never_ends():
    text = """
    [memory]
    folios = [0, 0]
    state = ["shared", "shared"]
    [[vcpu]]
    unshare = [0, 1]
    [[pin]]
    page = 0
    [[disk]]
    page = 1
    """
    found = {(f.kind, f.expected): f.wait for f in judged(text, "per-page").findings if f.wait}
    assert set(found) == {("permanent", True), ("transient", False)}
    assert found["transient", False].waiter == "vcpu 0 (unshare page 1)"


SLEEPERS = """
[memory]
folios = [0]
state = ["exported"]
[policy.own]
base = "linux-6.16"
on_busy = "sleep"
[[vcpu]]
touch = [0]
[[vcpu]]
cpu = 1
touch = [0]
[[lru]]
cpu = 2
page = [0]
"""
STAYS = {
    "two sleepers that hold what each other waits for": (SLEEPERS, "own"),
    "a sleeper with the mutex, for a batch that nobody drains": ("""
    [memory]
    folios = [0, 0]
    state = ["exported", "exported"]
    [policy.own]
    base = "import-lock"
    on_busy = "sleep"
    drain = "none"
    [[vcpu]]
    touch = [0]
    [[vcpu]]
    cpu = 1
    touch = [1]
    [[lru]]
    cpu = 2
    page = [0]
    """, "own"),
    "a sleeper with the mutex, for a leaked reference": ("""
    [memory]
    folios = [0, 0]
    state = ["exported", "exported"]
    [policy.own]
    base = "import-lock"
    on_busy = "sleep"
    variants = ["faultin-leaks-reference"]
    [[vcpu]]
    touch = [0]
    [[vcpu]]
    cpu = 1
    touch = [1]
    [[reclaim]]
    page = [0]
    """, "own"),
    "a dirty folio beside an endless writeback of another one": ("""
    [memory]
    folios = [1, 0]
    backing = "iomap"
    state = ["non_secure", "non_secure", "secure"]
    [[vcpu]]
    touch = [0]
    [[writeback]]
    page = [2]
    starts = 255
    """, "split"),
}  # fmt: skip


@pytest.mark.parametrize("name", STAYS)
def test_each_state_of_a_permanent_wait_says_so(name):
    text, policy = STAYS[name]
    story = parsed(text)
    graph = explore(scenario.system(story, policies.find(policy, story.tables)))
    lookup, seen = Lookup(graph), 0
    for component in components_of(graph):
        found = judge(lookup, component)
        if found.kind == "permanent":
            for number in component.members.tolist():
                told = stall(lookup.state(number), component.waiter)
                assert told and told.kind == "permanent", (number, told)
                seen += 1
    assert seen


def test_holders_that_wait_for_one_another_are_described_once():
    wait = judged(SLEEPERS, "own").worst.wait
    assert wait.held_by.count("vcpu 1's import") == 1


def test_the_waiter_is_no_taker_where_another_one_is():
    wait = judged(LIVELOCK, "per-page").worst.wait
    assert "vcpu 1" not in wait.taken_by and "vcpu 0" in wait.taken_by


def test_dirty_data_has_the_same_words_in_the_verdict_and_in_each_state():
    story = parsed(STAYS["a dirty folio beside an endless writeback of another one"][0])
    result = verdict.check(story, "here", policies.find("split", story.tables), "split")
    graph = explore(scenario.system(story, policies.find("split")))
    told = stall(Lookup(graph).state(components_of(graph)[0].entry), 0)
    assert result.worst.wait == told.wait
