"""The checker in JavaScript against the interpreter on guest_memfd: states, verdicts, classes and every word."""

import re
import tomllib

import numpy as np
import pytest

from memfd_cases import SHIPPED, STORIES, drawn, drawn_huge, on, system
from node import NEEDED
from paged import answers, link_of
from plain_graph import explored
from test_guest_memfd import BROKEN
from test_page import agree
from ultrafolio.check.search.graph import explore
from ultrafolio.check.verdicts.verdict import Extent, check
from ultrafolio.engine.load import mutant
from ultrafolio.errors import InputError
from ultrafolio.export.observation import hash_of, of_result
from ultrafolio.export.text_in import result_text
from ultrafolio.model import policies, scenario
from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.model.guest_memfd.machines import NAMES
from ultrafolio.model.guest_memfd.policy import PRESETS
from ultrafolio.model.layout import OWNERS

pytestmark = NEEDED
FIELDS = ("verdict", "kind", "depth", "states", "edges")
SMALL, FEW, MANY, AT_ONCE = 2_000, 30, 1_000, 100
"""States of a random system, and numbers of systems, of the short form and the long one."""


def linked(name, policy, machine):
    story = on(name, machine)
    return link_of(story, name, policies.find_any(policy, story.tables), policy)


def expected(name, policy, machine):
    return STORIES[name].expect[policy if machine == STORIES[name].machine else f"{policy}@{machine}"]


def test_every_shipped_pair_has_the_graph_and_the_class_that_its_file_expects():
    assert len(SHIPPED) > 250 and {policy for _, policy, _ in SHIPPED} >= set(PRESETS)
    assert {machine for _, _, machine in SHIPPED} == set(NAMES)
    for pair, found in zip(SHIPPED, answers([linked(*pair) for pair in SHIPPED]), strict=True):
        assert {field: found[field] for field in FIELDS} == expected(*pair), pair


def same_text(pairs):
    """The page says of these what the command says, with the command that gives it again."""
    for pair, answer in zip(pairs, answers([linked(*pair) for pair in pairs]), strict=True):
        name, policy, machine = pair
        story = on(name, machine)
        chosen, other = policies.find_any(policy, story.tables), machine != STORIES[name].machine
        result = check(story, name, chosen, policy, Extent(machine=machine if other else ""))
        assert answer["text"] == result_text(result), pair
        assert answer["line"] == of_result(result, name, hash_of(story, chosen), "page")


def test_the_text_is_that_of_the_command():
    few = SHIPPED[::9] + [pair for pair in SHIPPED if expected(*pair)["kind"] in ("livelock", "permanent")]
    kinds = {expected(*pair)["kind"] for pair in few}
    assert kinds == {"safety", "permanent", "livelock", "vmm-bound", "transient", "null"}
    same_text(few)


def test_a_livelock_that_only_an_adverse_schedule_sustains_is_told_apart():
    pairs = [pair for pair in SHIPPED if expected(*pair)["kind"] == "livelock"]
    texts = [found["text"] for found in answers([linked(*pair) for pair in pairs])]
    adverse = [text for text in texts if "Only an adverse schedule sustains this" in text]
    assert 0 < len(adverse) < len(texts)


@pytest.mark.slow
def test_the_text_of_every_pair_is_that_of_the_command():
    same_text(SHIPPED)


def small(number, draw):
    made = draw(number)
    return [made] if explore(made.system(), max_states=SMALL).complete else []


def test_random_systems_have_the_same_text():
    agree([made for number in range(FEW) for draw in (drawn, drawn_huge) for made in small(number, draw)])


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, MANY, AT_ONCE))
def test_many_random_systems_have_the_same_text(first):
    numbers = range(first, first + AT_ONCE)
    agree([made for number in numbers for draw in (drawn, drawn_huge) for made in small(number, draw)])


def test_a_system_begins_in_the_same_state():
    """Every field of every record, of each shipped pair."""
    for pair, answer in zip(SHIPPED, answers([linked(*pair) for pair in SHIPPED]), strict=True):
        state = system(*pair).state
        rows = [value for section in OWNERS for row in getattr(state, section).tolist() for value in row]
        assert answer["first"][: len(rows)] == rows, pair


CHANGED = [what for what, (_, _, changed) in BROKEN.items() if changed]


@pytest.mark.parametrize(
    "what", [pytest.param(what, marks=[] if n % 4 == 1 else pytest.mark.slow) for n, what in enumerate(CHANGED)]
)
def test_a_changed_rule_changes_the_page(what):
    """The graph under a rule broken on purpose is that of the interpreter with the same rule."""
    number, name, changed = BROKEN[what]
    policy = "gmem-hugetlb-2025-12" if number >= 10 else "gmem-7.4"
    (found,) = answers([linked(name, policy, STORIES[name].machine)], changed)
    graph = explored(system(name, policy), mutant(changed, GUEST_MEMFD))
    assert (found["states"], found["edges"]) == (len(graph.states), sum(map(len, graph.edges)))


# ------------------------------------------------------------------------------------------------ what is refused
TEXT = (
    'design = "guest_memfd"\nmachine = "software"\n[memory]\nfolios = [0, 0]\nstate = ["shared"]\n'
    "[[vcpu]]\nunshare = [1]\n[[pin]]\npage = 0\n"
)
WRONG = {
    "another design's actor": (TEXT + "[[virtio]]\npage = 0\n", 9),
    "another design's field": (TEXT.replace("[[vcpu]]", 'backing = "anon"\n[[vcpu]]'), 5),
    "a feature": (TEXT + "[features]\none_address_space = true\n", 10),
    "no such machine": (TEXT.replace('"software"', '"z"'), 1),
    "no such state": (TEXT.replace('"shared"', '"secure"'), 4),
    "too large a folio": (TEXT.replace("[0, 0]", "[2]"), 3),
    "no such process": (TEXT + "process = 8\n", 9),
    "no such page": (TEXT.replace("page = 0", "page = 2"), -1),
    "no such word": (TEXT + '[[vmm]]\npage = 0\nto = "nobody"\n', 11),
    "after nobody": (TEXT + 'after = "disk"\n', 9),
    "no page to refuse": (TEXT.replace("state", "never = [9]\nstate"), -1),
    "nobody acts": ('design = "guest_memfd"\n[memory]\nfolios = [0]\n', -1),
}


def test_a_wrong_text_is_refused_with_its_line_as_the_command_refuses_it():
    found = answers([{"name": "x", "policy": "gmem-7.4", "text": text} for text, _ in WRONG.values()])
    for (name, (text, line)), answer in zip(WRONG.items(), found, strict=True):
        assert "refused" in answer and answer["line"] == line, (name, answer)
        with pytest.raises(InputError):
            scenario.parse(tomllib.loads(text), name)


NOT_A_SYSTEM = {
    "a hole beside a pin": (TEXT + "[[hole]]\npage = 0\n", "gmem-7.4"),
    "a hole beside a locked mapping": (
        TEXT.replace("[[pin]]\n", "[[user]]\nlocked = true\n").replace("page = 0", "page = [0]")
        + "[[hole]]\npage = 0\n",
        "gmem-7.4",
    ),
    "huge pages beside single ones": (TEXT.replace("[0, 0]", "[1, 0]"), "gmem-hugetlb-2025-05"),
    "too many vCPUs": (TEXT + 16 * "[[vcpu]]\n", "gmem-7.4"),
    "a machine whose guest does not convert": (TEXT, "pkvm"),
}


@pytest.mark.parametrize("what", NOT_A_SYSTEM)
def test_what_is_no_system_is_refused_in_the_words_of_the_command(what):
    text, policy = NOT_A_SYSTEM[what]
    (answer,) = answers([{"name": "x", "policy": policy, "text": text}])
    with pytest.raises(InputError) as raised:
        scenario.system(scenario.parse(tomllib.loads(text), ""), policies.find_any(policy))
    said = [raised.value.what.removeprefix(": "), raised.value.allowed, raised.value.cause]
    assert all(words in answer["refused"] for words in said), answer


def test_a_policy_of_another_design_is_refused():
    table = '[policy.mine]\nbase = "split"\n'
    texts = [TEXT, TEXT + table, TEXT + "[policy.mine]\n", TEXT + '[policy.split]\nbase = "gmem-7.4"\n']
    names = ["split", "mine", "mine", "split"]
    found = answers([{"name": "x", "policy": name, "text": text} for name, text in zip(names, texts, strict=True)])
    assert "split is a policy of the design s390" in found[0]["refused"]
    assert all("refused" in one for one in found), found
    mine = '[policy.mine]\nbase = "gmem-no-drain"\nretries = 2\nvariants = ["no-reference-test"] # a comment\n'
    (right,) = answers([{"name": "x", "policy": "mine", "text": TEXT + mine}])
    document = tomllib.loads(TEXT + mine)
    story = scenario.parse(document, "x")
    assert right["states"] == check(story, "x", policies.find_any("mine", story.tables), "mine").states


def test_a_shipped_scenario_on_another_machine_is_told_by_its_name():
    (found,) = answers([linked("g16-vfio-pin", "gmem-7.4", "snp")])
    assert re.findall("^reproduce: (.*)$", found["text"], re.MULTILINE) == [
        "ultrafolio check g16-vfio-pin --policy gmem-7.4 --machine snp"
    ]


def test_numbers_of_the_state_fit_in_sixteen_bits():
    """The page keeps every field in 16 bits: a bit for each vCPU in vm.fresh, and page numbers, which the readers
    bound."""
    wide = {
        f"{section}.{name}"
        for section, record in GUEST_MEMFD.constants["SECTIONS"].items()
        for name in record.names or ()
        if np.iinfo(record[name]).max > np.iinfo(np.uint16).max
    }
    counts = {f"cfg.{name}" for name in ("pages", "actors", "vms")} | {"mm.refs", "task.n", "task.at", "actor.n"}
    assert wide == counts | {f"task.{name}" for name in ("page", "start", "i", "end", "failed")} | {"actor.page"}
