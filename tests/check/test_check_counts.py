"""The checker's exploration equals a naive one that shares only the rules: same counts, same shortest stories."""

import pytest

from checking import checked, graph, naive, system
from ultrafolio.check.search.graph import explore
from ultrafolio.check.verdicts.verdict import check
from ultrafolio.model import scenario
from ultrafolio.model.layout import EXPORTED, SWAPPED, UV
from ultrafolio.model.policies import find
from ultrafolio.model.policy import VARIANTS
from ultrafolio.model.properties import PROPERTIES

PAIRS = [
    ("01-direct-io", "whole-folio-literal"),
    ("03-virtio", "whole-folio"),
    ("04-writeback", "import-lock"),
    ("05-late-failure", "whole-folio"),
    ("06-import-and-unshare", "per-page"),
    ("09-split-early-pin", "split-false-success"),
    ("12-bitmap-writeback", "folio-bitmap"),
    ("13-mapped-twice", "split"),
    ("16-split-early-direct-io", "split-false-success"),
    ("17-iomap-endless-writeback", "split-writeback"),
    ("18-iomap-two-vcpus", "split-writeback"),
    ("22-reclaim-and-swap", "per-page"),
    ("24-foreign-page-transfer", "per-page"),
    ("25-reboot-with-device", "whole-folio-literal"),
    ("29-lru-other-cpu", "never-drains"),
    ("34-tampered-page", "split"),
]


@pytest.mark.parametrize(("name", "policy"), PAIRS)
def test_states_edges_depth_and_first_violations_are_the_naive_ones(name, policy):
    mine, theirs = naive(system(name, policy)), graph(name, policy)
    assert theirs.complete
    assert (theirs.states, theirs.edges) == (len(mine.states), sum(len(steps) for steps in mine.edges))
    assert theirs.depth == max(mine.depth)
    result = checked(name, policy)
    assert {rule: n for rule, n in result.fired.items() if n} == mine.fired
    assert stories(result) == mine.broke, "a counterexample is the shortest there is"


def stories(result):
    """Steps of the first counterexample to each property that is broken."""
    return {n: len(result.findings[n - 1].steps) for n in range(1, len(PROPERTIES)) if result.findings[n - 1].kind}


PAIR = {"folios": [1], "state": ["shared", "secure"]}
PAGE = {"folios": [0], "state": ["exported"]}
APART = {"folios": [0, 0], "state": ["exported"], "owner": [0, 1]}
RACED = {"memory": PAGE, "vcpu": [{}], "reclaim": [{}]}
SYSTEMS = [
    ("an access", {"memory": PAIR, "vcpu": [{"touch": [1]}], "access": [{"read": [1], "write": [0, 1], "starts": 2}]},
     "whole-folio"),
    ("a pin", {"memory": PAIR, "vcpu": [{"touch": [1]}], "pin": [{"page": 1}], "reboot": [{}]}, "per-page"),
    ("an interrupt by get", {"memory": PAIR, "vcpu": [{"unshare": [0]}], "interrupt": [{"page": 0, "starts": 2}]},
     "linux-7.1"),
    ("an interrupt by pin", {"memory": PAIR, "vcpu": [{"unshare": [0]}], "interrupt": [{"page": 0, "starts": 2}]},
     "linux-7.2"),
    ("an order", {"memory": PAIR, "vcpu": [{"touch": [1]}], "reclaim": [{"page": [1], "after": "virtio"}],
                  "virtio": [{"page": 0}]}, "linux-6.16"),
    ("an order of guests", {"memory": APART, "vcpu": [{"touch": [0]}, {"guest": 1, "touch": [1]}],
                            "disk": [{"page": 0, "after": "vcpu 1"}]}, "per-page"),
    ("a stuck disk", {"memory": PAIR, "vcpu": [{"touch": [1]}], "disk": [{"page": 0, "completes": False}],
                      "reclaim": [{"page": [1]}]}, "whole-folio"),
    ("a stuck writeback", {"memory": PAGE, "vcpu": [{}, {"cpu": 1}], "writeback": [{"completes": False}]},
     "linux-6.12"),
    ("two imports", {"memory": PAIR, "vcpu": [{"touch": [1]}, {"touch": [0, 1], "cpu": 1}],
                     "writeback": [{"page": [0]}]}, "linux-6.12"),
    ("two first imports", {"memory": {"folios": [1], "state": ["non_secure"]},
                           "vcpu": [{"touch": [0]}, {"touch": [1], "cpu": 1}]}, "linux-6.16"),
    ("a mutex", {"memory": PAIR, "vcpu": [{"touch": [1]}, {"touch": [0], "cpu": 1}], "reclaim": [{"page": [0]}]},
     "linux-7.1"),
    ("one page's count", {"memory": PAIR, "vcpu": [{"touch": [1]}], "writeback": [{"page": [0]}]}, "linux-6.3"),
    ("shared by another guest", {"memory": {"folios": [0], "state": ["shared"]},
                                 "vcpu": [{"guest": 1, "touch": [0]}]}, "import-without-export"),
    ("a failing page", {"memory": {"folios": [1], "state": ["secure"], "refuses": [1]},
                        "disk": [{"page": 0, "pages": 2}]}, "gup-skips-failed-page"),
    ("a pin beside an import", {"memory": PAGE, "vcpu": [{}], "disk": [{"page": 0}]}, "freeze-without-pte-lock"),
    ("a raced fault", RACED, "faultin-false-success"),
    ("a raced fault", RACED, "faultin-leaks-reference"),
    ("an unmap", RACED, "import-ignores-unmap"),
    ("an unused page", {**RACED, "memory": {"folios": [0], "state": ["secure"]}}, "unused-page-dropped"),
]  # fmt: skip
"""Small systems for features that no shipped scenario has, each under a policy, a kernel, or per-page with one
variant."""


def policy_of(name):
    return find(name, {bug: {"base": "per-page", "variants": [bug]} for bug in VARIANTS})


@pytest.mark.parametrize(("title", "document", "policy"), SYSTEMS, ids=[f"{row[0]}-{row[2]}" for row in SYSTEMS])
def test_the_same_for_every_actor_order_and_variant(title, document, policy):
    parsed = scenario.parse(document, title)
    made = scenario.system(parsed, policy_of(policy))
    mine, theirs = naive(made), explore(made)
    assert (theirs.states, theirs.edges) == (len(mine.states), sum(map(len, mine.edges)))
    assert theirs.depth == max(mine.depth) > 1
    assert stories(check(parsed, title, policy_of(policy), policy)) == mine.broke


def test_every_variant_has_a_system():
    assert set(VARIANTS) <= {policy for _, _, policy in SYSTEMS}


@pytest.mark.parametrize(("name", "policy"), PAIRS[:4])
def test_states_come_in_breadth_first_order_and_unpack_to_the_naive_ones(name, policy):
    mine, theirs = naive(system(name, policy)), graph(name, policy)
    assert [theirs.depth_of(n) for n in range(theirs.states)] == mine.depth
    for number, state in enumerate(mine.states):
        kept = theirs.unpack(number).uv
        assert kept.tolist() == [tuple(getattr(row, field) for field in UV.names) for row in state.uv]


def test_a_page_that_is_swapped_out_is_never_secure():
    """Reclaim may unmap a page between an import's look at its mapping and the call."""
    found = graph("22-reclaim-and-swap", "per-page")
    states = [found.unpack(number) for number in range(found.states)]
    assert any((state.pt["present"] == SWAPPED).any() for state in states)
    assert not any(((state.pt["present"] == SWAPPED) & (state.uv["state"] != EXPORTED)).any() for state in states)


def test_the_same_again():
    first, second = (explore(system("18-iomap-two-vcpus", "split-writeback")) for _ in range(2))
    assert (first.space.via[: first.edges] == second.space.via[: second.edges]).all()
    assert (first.space.to[: first.edges] == second.space.to[: second.edges]).all()


def test_there_is_a_name_for_every_property():
    assert len(set(PROPERTIES)) == len(PROPERTIES)
