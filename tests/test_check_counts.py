"""The checker's exploration against a naive one that shares only the rules with it: same counts, nothing shorter."""

import pytest

from checking import checked, graph, naive, system
from ultrafolio.check.explore import explore
from ultrafolio.model.layout import EXPORTED, SWAPPED, UV
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
    stories = {n: len(result.findings[n - 1].steps) for n in range(1, len(PROPERTIES)) if result.findings[n - 1].kind}
    assert stories == mine.broke, "a counterexample is the shortest there is"


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
    assert len(set(PROPERTIES)) == len(PROPERTIES) and all(PROPERTIES[1:])
