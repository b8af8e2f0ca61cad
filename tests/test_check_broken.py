"""Every "always" property has a broken rule under which exploring finds it, and none without one: none is vacuous."""

import copy

import pytest

from checking import naive
from test_broken_rules import BROKEN
from ultrafolio.engine.load import mutant
from ultrafolio.model import scenario
from ultrafolio.model.policies import find
from ultrafolio.model.properties import PROPERTIES


def small(document):
    """The same with few starts: one is enough where every interleaving is looked at."""
    made = copy.deepcopy(document)
    for tables in made.values():
        for table in tables if isinstance(tables, list) else []:
            if "starts" in table:
                table["starts"] = min(table["starts"], 2 if table["starts"] < 50 else 1)
    return made


def explored(name, changed, until):
    _, policy, _, document = BROKEN[name]
    made = scenario.system(scenario.parse(small(document), "test"), find(policy))
    return naive(made, rules=mutant(changed), until=until).broke


@pytest.mark.parametrize("name", BROKEN)
def test_the_broken_rule_is_found(name):
    number, _, changed, _ = BROKEN[name]
    assert number in explored(name, changed, number), PROPERTIES[number]


@pytest.mark.parametrize("name", [name for name, case in BROKEN.items() if case[2]])
def test_the_whole_rule_is_sound(name):
    assert explored(name, {}, 0) == {}


def test_every_property_is_there():
    assert {case[0] for case in BROKEN.values()} == set(range(1, 10))
