"""The checker compiled, interpreted and in JavaScript on the same random systems: one graph, one class, one text."""

import pytest

from drawn_cases import fitting
from node import NEEDED
from test_first_answer import same
from test_page import agree
from ultrafolio.check.search.graph import explore
from ultrafolio.engine import load

pytestmark = [NEEDED, pytest.mark.skipif(not load.can_compile(), reason="nothing is compiled here")]
TINY, FEW = 150, 500
SMALL, MANY, AT_ONCE = 3_000, 10_000, 200
"""States of a system and numbers of systems, of the short form and the long one."""


def of_all_three(numbers, most):
    """The checkers agree on these systems of at most `most` states each. Returns the kinds of their verdicts."""
    cases = [fitting(number, lambda made: explore(made.system(), max_states=most).complete)[0] for number in numbers]
    for made in cases:
        assert same(made.system(), max_states=most).complete
    return agree(cases)


def test_three_checkers_agree_on_tiny_random_systems():
    kinds = of_all_three(range(FEW), TINY)
    assert kinds >= {"safety", "fatal", "permanent", "livelock", "transient", None}


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, MANY, AT_ONCE))
def test_three_checkers_agree_on_many_random_systems(first):
    of_all_three(range(first, first + AT_ONCE), SMALL)
