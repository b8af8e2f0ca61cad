"""For every property a broken rule or a policy violates it, and the checker finds and certifies that."""

import copy
import functools
import sys

import pytest

from checking import finding, naive
from test_broken_rules import BROKEN, CURED
from ultrafolio.check.search import graph
from ultrafolio.check.verdicts.verdict import check
from ultrafolio.engine import load
from ultrafolio.engine.load import mutant
from ultrafolio.model import scenario
from ultrafolio.model.policies import find
from ultrafolio.model.properties import PROPERTIES
from ultrafolio.waits import load as waits
from ultrafolio.waits.words import LEADS_TO


def small(document):
    """Returns the document with one start per actor, to keep the state graph small."""
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


@pytest.mark.parametrize(("name", "policy"), CURED)
def test_the_whole_rule_is_sound(name, policy):
    made = scenario.system(scenario.parse(small(BROKEN[name][3]), "test"), find(policy))
    assert naive(made).broke == {}


RINGED = {"memory": {"folios": [1], "state": ["shared", "shared"]}, "vcpu": [{"unshare": [1]}], "virtio": [{"page": 0}]}
WAITS = {
    "whole-folio, beside a ring": (
        "touch leads", "whole-folio", {},
        {"memory": {"folios": [1], "state": ["shared", "secure"]}, "vcpu": [{"touch": [1]}], "virtio": [{"page": 0}]},
    ),
    "whole-folio pins the neighbour shared too": ("unshare leads", "whole-folio", {}, RINGED),
    "an import that never thaws": (
        "pin leads", "per-page",
        {"    thaw(s, t)\n    return report": "    unlock(s, s.task[t].page)\n    return report"},
        {"memory": {"folios": [0], "state": ["exported"]}, "vcpu": [{"touch": [0]}], "disk": [{"page": 0}]},
    ),
    "an import that is refused and keeps the lock": (
        "writeback leads", "per-page",
        {"        unlock(s, k.page)\n        off_table(s, t)\n        return too_many_refs":
         "        off_table(s, t)\n        return too_many_refs"},
        {"memory": {"folios": [0], "state": ["exported"]}, "vcpu": [{"touch": [0]}], "disk": [{"page": 0}],
         "writeback": [{"starts": 1}]},
    ),
}  # fmt: skip
"""A policy or a broken rule for each leads-to: its first words, the policy, the change, the scenario."""


@pytest.fixture
def checked_with(monkeypatch):
    """check() over changed rules: the exploring functions as plain Python, and the same rules for certification."""

    def run(changed, document, policy):
        broken = waits.with_rules(changed)
        with monkeypatch.context() as plain:
            plain.setenv("NUMBA_DISABLE_JIT", "1")
            plain.setattr(load, "functions", functools.partial(load.functions, changed=changed))
            forget()
            exploring = graph.compiled()
        forget()
        monkeypatch.setattr(graph, "is_loaded", lambda design: True)
        monkeypatch.setattr(graph, "compiled", lambda *design: exploring)
        monkeypatch.setattr(graph, "over_arrays", lambda *design: exploring)
        for name, module in list(sys.modules.items()):
            if name.startswith(("ultrafolio.check", "ultrafolio.waits")):
                for plain in {"interpreted", "interpreted_of"} & set(vars(module)):
                    monkeypatch.setattr(module, plain, lambda *design: broken)
        return check(scenario.parse(document, "test"), "test", find(policy), policy)

    return run


def forget():
    """Clear the caches of loaded functions."""
    graph.compiled.cache_clear()
    graph.plain_functions.cache_clear()
    graph.over_arrays.cache_clear()


@pytest.mark.parametrize("name", BROKEN)
def test_the_checker_finds_and_certifies_it(name, checked_with):
    number, policy, changed, document = BROKEN[name]
    result = checked_with(changed, small(document), policy)
    assert result.findings[number - 1].verdict == "violated", PROPERTIES[number]
    assert result.verdict == "violated"


@pytest.mark.parametrize("name", WAITS)
def test_a_wait_that_never_ends_is_found(name, checked_with):
    start, policy, changed, document = WAITS[name]
    told = finding(checked_with(changed, document, policy), start)
    assert (told.verdict, told.expected) == ("violated", False) and told.kind in ("permanent", "livelock")


@pytest.mark.parametrize("name", [name for name, case in WAITS.items() if case[2]])
def test_with_the_whole_rule_it_ends(name):
    start, policy, _, document = WAITS[name]
    result = check(scenario.parse(document, "test"), "test", find(policy), policy)
    assert finding(result, start).verdict == "holds" and not finding(result, start).trivial


def test_every_leads_to_is_there():
    assert {" ".join(name.split()[:2]) for name in LEADS_TO} == {case[0] for case in WAITS.values()}
