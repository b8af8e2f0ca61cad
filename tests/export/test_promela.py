"""SPIN runs the exported rules and counts the same states, edges and violations as the checker."""

import re

import pytest

import spin_runs
from spin_runs import Counts, built
from ultrafolio.engine.interp import to_lists, write_back
from ultrafolio.engine.load import interpreted, mutant
from ultrafolio.export.promela import program
from ultrafolio.export.promela.program import export
from ultrafolio.export.promela.source import Untranslatable
from ultrafolio.model import scenario
from ultrafolio.model.layout import IDLE_PC, NOTHING, RUN, copy, pack
from ultrafolio.model.policies import find
from ultrafolio.model.rule import RULES, STRONG

spin_needed = pytest.mark.skipif(bool(spin_runs.MISSING), reason=f"not installed: {', '.join(spin_runs.MISSING)}")

PAIR = {"folios": [1], "state": ["shared", "secure"]}
FRESH = {"folios": [1], "state": ["non_secure"]}
AWAY = {"folios": [1], "state": ["exported"]}

SCENARIOS = {
    "virtio": {"memory": PAIR, "vcpu": [{"touch": [1]}], "virtio": [{"page": 0}]},
    "one disk I/O": {"memory": PAIR, "vcpu": [{"touch": [1]}], "disk": [{"page": 0}]},
    "disk without end": {"memory": PAIR, "vcpu": [{"touch": [1]}], "disk": [{"page": 0, "starts": 255}]},
    "writeback": {"memory": PAIR, "vcpu": [{"touch": [0, 1]}], "writeback": [{"page": [0]}]},
    "unshare": {
        "memory": PAIR, "vcpu": [{"touch": [1], "share": [0], "unshare": [0], "starts": 2}], "disk": [{"page": 0}],
    },
    "reclaim": {
        "memory": PAIR, "vcpu": [{"touch": [0, 1]}], "reclaim": [{"page": [1], "starts": 2}], "disk": [{"page": 1}],
    },
    "early pin": {"memory": FRESH, "vcpu": [{"touch": [1]}], "pin": [{"page": 0}]},
    "iomap": {"memory": {**FRESH, "backing": "iomap"}, "vcpu": [{"touch": [1]}]},
    "iomap and writeback": {
        "memory": {**FRESH, "backing": "iomap"}, "vcpu": [{"touch": [1]}], "writeback": [{"page": [0], "starts": 255}],
    },
    "reboot": {"memory": PAIR, "vcpu": [{"touch": [1]}], "virtio": [{"page": 0}], "reboot": [{}]},
    "two vCPUs": {"memory": AWAY, "vcpu": [{"touch": [0]}, {"touch": [1], "cpu": 1}], "disk": [{"page": 0}]},
    "batches": {
        "memory": AWAY, "vcpu": [{"touch": [0]}], "lru": [{"page": [0, 1], "starts": 2, "cpu": 1}],
        "speculative": [{"page": [1]}],
    },
    "beside a poller": {
        "memory": {"folios": [0, 0], "state": ["pinned_shared", "exported"]},
        "vcpu": [{"touch": [1]}, {"unshare": [0]}], "virtio": [{"page": 0}],
    },
    "mapped twice": {"memory": AWAY, "vcpu": [{"touch": [0]}], "mapping": [{"page": [1]}]},
    "two guests": {
        "memory": {**PAIR, "owner": [0, 1]}, "vcpu": [{"guest": 0, "touch": [0]}, {"guest": 1, "touch": [0, 1]}],
    },
    "refused call": {
        "memory": {**PAIR, "refuses": [1]}, "vcpu": [{"touch": [0]}], "writeback": [{"starts": 1}],
        "tamper": [{"starts": 1}],
    },
    "four pages": {
        "memory": {"folios": [2], "state": ["shared", "secure", "secure", "secure"]}, "vcpu": [{"touch": [1, 3]}],
        "disk": [{"page": 0, "pages": 3}],
    },
}  # fmt: skip

COUNTED = [
    ("virtio", "per-page"), ("virtio", "whole-folio"), ("virtio", "folio-bitmap"),
    ("disk without end", "whole-folio"), ("disk without end", "whole-folio-literal"),
    ("writeback", "whole-folio-literal"), ("writeback", "folio-bitmap-pins"),
    ("unshare", "whole-folio"), ("unshare", "refuse-large"), ("unshare", "import-lock"),
    ("reclaim", "whole-folio"), ("reclaim", "split-writeback"),
    ("early pin", "split"), ("early pin", "split-false-success"),
    ("iomap and writeback", "split"), ("iomap and writeback", "import-lock"),
    ("reboot", "whole-folio"), ("reboot", "refuse-large"),
    ("two vCPUs", "per-page"), ("two vCPUs", "import-lock"),
    ("batches", "per-page"), ("batches", "whole-folio"),
    ("mapped twice", "folio-bitmap"), ("two guests", "whole-folio"),
    ("refused call", "whole-folio"), ("four pages", "per-page"), ("four pages", "whole-folio-literal"),
]  # fmt: skip

LEADS_TO = [
    ("virtio", "whole-folio", False),
    ("virtio", "per-page", True),
    ("one disk I/O", "whole-folio", True),
    ("disk without end", "whole-folio", False),
    ("disk without end", "per-page", True),
    ("early pin", "split", False),
    ("early pin", "per-page", True),
    ("iomap", "split", False),
    ("iomap", "split-writeback", True),
    ("virtio", "refuse-large", False),
    ("batches", "whole-folio", True),
    ("reboot", "whole-folio", False),
    ("two vCPUs", "import-lock", True),
    ("beside a poller", "import-lock", True),
]

BROKEN = {
    "writeback without making accessible": (
        1, "writeback", {"make_accessible(s, t, s.task[t].page, True, WB_IO)": "s.task[t].pc = WB_IO"},
    ),
    "the arch bit is not set before the import": (2, "two vCPUs", {"    set_arch(s, s.task[t].page)\n": ""}),
    "import without the reference check": (
        4, "two vCPUs",
        {"    if extra_refs(s, k.page) > k.ref or never_matches(s, k.page):\n": "    if False:\n"},
    ),
}  # fmt: skip


def made(name, policy):
    return scenario.system(scenario.parse(SCENARIOS[name], name), find(policy))


# ------------------------------------------------------------------------------------------ the plain oracle


def steps(system, state, rules):
    """Every enabled step of a state: (actor, rule, next state, property broken)."""
    for t, pc in enumerate(state.task["pc"].tolist()):
        for op, page in system.choices[t] if pc in IDLE_PC else [(0, 0)]:
            lists = to_lists(state)
            seen = rules.focus(lists, t, page)
            was = lists.uv[seen].state
            outcome = rules.step(lists, t, op, page)
            if outcome >= 0:
                wrong = rules.broken(lists, t, pc, seen, was, outcome)
                yield t, pc, write_back(lists, copy(state)), wrong


def graph(system, rules=None):
    """{packed state: [(actor, rule, packed next state, property broken)]}, and a state for each."""
    rules = rules or interpreted()
    states, edges, left = {pack(system.state): system.state}, {}, [system.state]
    while left:
        state = left.pop()
        out = edges[pack(state)] = []
        for t, pc, after, wrong in steps(system, state, rules):
            key = pack(after)
            out.append((t, pc, key, wrong))
            if key not in states:
                states[key] = after
                left.append(after)
    return states, edges


def counts(system, rules=None):
    states, edges = graph(system, rules)
    wrong = [e[3] for out in edges.values() for e in out if e[3]]
    return Counts(len(states), sum(map(len, edges.values())), len(wrong), set(wrong))


def components(nodes, after):
    """Strongly connected components, by reachability both ways: slow and plain."""

    def reach(start, step):
        found, left = {start}, [start]
        while left:
            for n in step.get(left.pop(), ()):
                if n not in found:
                    found.add(n)
                    left.append(n)
        return found

    before = {}
    for a, targets in after.items():
        for b in targets:
            before.setdefault(b, []).append(a)
    rest = set(nodes)
    while rest:
        start = next(iter(rest))
        found = reach(start, after) & reach(start, before)
        rest -= found
        yield found


def always_ends(system, vcpu):
    """Whether what `vcpu` has begun always ends, under fairness of the fair steps: no fair cycle is pending.

    A thread that takes no step on the cycle must have its fair step disabled somewhere there, and everywhere where it
    is strongly fair; a state in which no fair step is enabled may be repeated for ever.
    """
    states, edges = graph(system)
    return not has_fair_cycle(edges, {key for key, state in states.items() if state.actor[vcpu]["op"] != NOTHING})


def has_fair_cycle(edges, pending):
    """Whether the states `pending` contain a fair cycle, or a state that enables no fair step."""
    inside = {key: [e[2] for e in edges[key] if e[2] in pending] for key in pending}
    for cycle in components(pending, inside):
        fair = [(key, e) for key in cycle for e in edges[key] if RULES[e[1]].fair]
        taken = {e[0] for _, e in fair if e[2] in cycle}
        if any(len({key for key, e in fair if e[0] == t}) == len(cycle) for t in {e[0] for _, e in fair} - taken):
            continue
        starving = {key for key, e in fair if e[0] not in taken and RULES[e[1]].fairness == STRONG}
        if not starving or has_fair_cycle(edges, cycle - starving):
            return True
    return False


# ----------------------------------------------------------------------------------------------------- SPIN
WEAK = """
begin:
    do
    :: true
    :: actor0_op == TOUCH -> goto accept
    od;
accept:
    do
    :: actor0_op == TOUCH
    od;
"""


def spun(folder, system, changed=None):
    return spin_runs.counted(folder, export(system, properties=True, changed=changed))


@spin_needed
@pytest.mark.parametrize(("name", "policy"), COUNTED)
def test_states_edges_and_violations_are_equal(name, policy, tmp_path):
    system = made(name, policy)
    assert spun(tmp_path, system) == counts(system)


@spin_needed
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_is_found_by_spin_too(name, tmp_path):
    property_number, story, changed = BROKEN[name]
    system = made(story, "per-page")
    found = spun(tmp_path, system, changed)
    assert property_number in found.properties
    assert found == counts(system, mutant(changed))


@spin_needed
@pytest.mark.parametrize(("name", "policy", "holds"), LEADS_TO)
def test_leads_to_has_the_same_verdict(name, policy, holds, tmp_path):
    system = made(name, policy)
    assert always_ends(system, 0) is holds
    built(tmp_path, export(system, fair=True), "-DNFAIR=3")
    assert spin_runs.always_ends(tmp_path, "touch_vcpu0") is holds


# ------------------------------------------------------------------------------------------------- the text


def test_every_cell_of_the_table_names_a_scenario():
    assert {name for name, *_ in (*COUNTED, *LEADS_TO)} == set(SCENARIOS)


def test_a_step_reads_like_its_rule():
    text = export(made("virtio", "whole-folio"))
    step = text[text.index("vcpu0: import-trylock") :]
    expected = """vcpu0: import-trylock */ task0_pc == IMPORT_TRYLOCK ->
        if
        :: mm_locked[0] ->
            task0_call = 0; task0_page = 0; task0_drained = 0; task0_pc = AGAIN; /* E_LOCKED */
        :: else ->
            mm_locked[0] = 1; task0_pc = IMPORT_WRITEBACK; /* OK */
        fi;"""
    assert " ".join(step[: step.index("}")].split()) == " ".join(expected.split())


def test_what_cannot_change_has_no_variable():
    text = export(made("virtio", "whole-folio"))
    state = text[text.index("the state") : text.index("temporaries")]
    assert "byte mm_arch[2] = { 1, 0 };" in state
    assert not re.search(r"mm_order|mm_backing|uv_owner|uv_altered|vm0_mutex|task1_splits", state)


def test_the_same_system_gives_the_same_text():
    assert export(made("unshare", "import-lock")) == export(made("unshare", "import-lock"))


def claims(text):
    return re.findall(r"^never (\w+)", text, re.MULTILINE)


def test_each_actor_has_a_claim_for_what_it_can_begin():
    assert claims(export(made("unshare", "per-page"), fair=True)) == [
        "touch_vcpu0", "share_vcpu0", "unshare_vcpu0", "waits_disk1",
    ]  # fmt: skip
    assert claims(export(made("two vCPUs", "per-page"), fair=True)) == ["touch_vcpu0", "touch_vcpu1", "waits_disk2"]
    assert claims(export(made("iomap and writeback", "split"), fair=True)) == ["touch_vcpu0", "waits_writeback1"]


@spin_needed
def test_spin_needs_the_hand_over_too(tmp_path):
    """The poller takes and leaves the mutex for ever: under weak fairness alone the other starves."""
    text = export(made("beside a poller", "import-lock"), fair=True)
    assert "strongly fair steps: 2, assumed in the claims" in text
    weak, n = re.subn(r"never touch_vcpu0 {.*?\n}", "never touch_vcpu0 {" + WEAK + "}", text, flags=re.DOTALL)
    assert n == 1
    built(tmp_path, weak, "-DNFAIR=3")
    assert not spin_runs.always_ends(tmp_path, "touch_vcpu0")


def test_more_sleepers_than_a_claim_can_hold_are_named(monkeypatch):
    assert "strongly fair steps: 3, assumed" in export(made("iomap and writeback", "split-writeback"), fair=True)
    monkeypatch.setattr(program, "MOST_HANDED", 2)
    text = export(made("iomap and writeback", "split-writeback"), fair=True)
    assert "strongly fair steps: 3, too many for a claim, taken as weakly fair" in text
    assert "owed_" not in text


def test_only_fair_steps_have_a_process_that_fairness_can_force():
    text = export(made("reboot", "whole-folio"), fair=True)
    parts = re.split(r"active proctype (\w+)\(\)", text)[1:]
    bodies = dict(zip(parts[::2], parts[1::2], strict=True))
    names = {name: set(re.findall(r"/\* \w+: ([\w-]+)", body)) for name, body in bodies.items()}
    fair = {rule.name for rule in RULES.values() if rule.fair}
    assert names.pop("choices").isdisjoint(fair)
    assert set().union(*names.values()) <= fair
    assert RULES[RUN].name not in fair


def test_what_has_no_translation_is_refused():
    endless = {"    h.locked = 1\n    foreign": "    while h.locked:\n        pass\n    foreign"}
    with pytest.raises(Untranslatable, match="while"):
        export(made("virtio", "per-page"), changed=endless)
    with pytest.raises(ValueError, match="not found exactly once"):
        export(made("virtio", "per-page"), changed={"this text stands nowhere": ""})
