"""Many actors in a scenario: what reading them costs, how many there may be, and in which order they may wait."""

import itertools
import sys
from collections import Counter

import pytest

from ultrafolio.errors import InputError
from ultrafolio.model import scenario

DESIGNS = ("s390", "guest_memfd")


def read(design, actors):
    return scenario.parse({"design": design, "memory": {"folios": [0]}, "vcpu": actors}, "test")


def calls(design, number):
    """Python calls and steps of generators while a scenario of so many vCPUs is read."""
    counted = Counter()
    sys.setprofile(lambda frame, event, about: counted.update([event]))
    try:
        read(design, [{} for _ in range(number)])
    finally:
        sys.setprofile(None)
    return counted["call"]


@pytest.mark.parametrize("design", DESIGNS)
def test_twice_the_actors_cost_twice_the_calls(design):
    assert calls(design, 800) < 2.2 * calls(design, 400)


@pytest.mark.parametrize("design", DESIGNS)
def test_too_many_actors_are_refused_before_one_is_read(design):
    assert len(read(design, [{}] * scenario.MOST_ACTORS).actors) == scenario.MOST_ACTORS
    with pytest.raises(InputError) as wrong:
        read(design, [{"nonsense": 1}] * (scenario.MOST_ACTORS + 1))
    assert "too many actors" in str(wrong.value) and "4,096" in str(wrong.value) and "[[vcpu]]" in str(wrong.value)


def first_in_a_circle(after):
    """The first actor from which the chain of predecessors never ends, by walking it."""
    for first in range(len(after)):
        at = first
        for _ in range(len(after)):
            if after[at] is None:
                break
            at = after[at]
        else:
            return first
    return None


def test_every_order_of_four_actors_is_taken_or_is_a_circle_named_by_its_first_actor():
    refused = 0
    for after in itertools.product((None, *range(4)), repeat=4):
        if any(other == t for t, other in enumerate(after)):
            continue
        actors = [{} if other is None else {"after": f"vcpu {other}"} for other in after]
        first = first_in_a_circle(after)
        if first is None:
            assert [actor["after"] for _, actor in read("s390", actors).actors] == [a.get("after", "") for a in actors]
            continue
        with pytest.raises(InputError, match="an order without a circle") as wrong:
            read("s390", actors)
        assert f"vcpu {after[first]}" in str(wrong.value)
        refused += 1
    assert refused == 131
