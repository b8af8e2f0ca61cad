"""One definition of a stall: its class from one state and from the whole graph agree."""

import json

import pytest

from checking import PATHS, checked, graph
from ultrafolio.check.verdicts import verdict
from ultrafolio.check.verdicts.certificate import Claim, certify_cycle, certify_permanent
from ultrafolio.check.verdicts.components import Lookup, judge
from ultrafolio.check.verdicts.liveness import components_of
from ultrafolio.check.verdicts.replay import NotCertified
from ultrafolio.cli import main
from ultrafolio.engine.interp import records, to_lists
from ultrafolio.export.text import result_text
from ultrafolio.model.policies import PRESETS
from ultrafolio.waits.words import stall, stalls

FEW = 40
"""States of a component that are tested."""
PAIRS = [(name, policy) for name in PATHS for policy in ("whole-folio", "split", "split-writeback", "folio-bitmap")]
LONG = [
    pytest.param(name, policy, marks=pytest.mark.slow)
    for name in PATHS
    for policy in PRESETS
    if (name, policy) not in PAIRS
]


@pytest.mark.parametrize(("name", "policy"), [*PAIRS, *LONG])
def test_one_state_and_the_graph_agree(name, policy):
    """Where one state says permanent or fatal, so does each component with it; where a component is permanent, so is
    each of its states."""
    lookup = Lookup(graph(name, policy))
    for component in components_of(lookup.graph):
        judged = judge(lookup, component)
        for number in component.members[:: max(1, len(component.members) // FEW)].tolist():
            told = stall(lookup.state(number), component.waiter)
            kind = told.kind if told else ""
            if judged.kind == "permanent":
                assert kind == ("expected" if judged.expected else "permanent"), (number, told)
            else:
                assert kind not in ("permanent", "fatal") or kind == judged.kind, (number, told)


@pytest.mark.parametrize("name", list(PATHS)[::4])
def test_arrays_and_lists_give_the_same_waits(name):
    found = graph(name, "whole-folio")
    for number in range(0, found.states, max(1, found.states // FEW)):
        arrays = found.unpack(number)
        told = stalls(records(arrays))
        assert told == stalls(to_lists(arrays))
        for some in told:
            assert "nobody" not in some.wait.held_by and some.wait.waits_for, some


def test_a_record_for_each_property_waiter_class_and_mark():
    result = checked("56-neighbour-of-an-expected-wait", "per-page")
    found = [(f.name, f.waiter, f.kind, f.expected) for f in result.findings if f.wait]
    assert ("unshare leads to secure", "vcpu 0", "permanent", True) in found
    assert ("touch leads to access", "vcpu 1", "livelock", False) in found
    assert len(found) == len(set(found))
    record = result.record()
    waits = {wait["actor"]: wait for wait in record["waits"]}
    assert (waits["vcpu 0"]["kind"], waits["vcpu 0"]["expected"]) == ("permanent", True)
    assert "vcpu 0, whose own wait" in waits["vcpu 1"]["taken_by"]


def test_a_livelock_names_who_takes_what_again():
    wait = checked("57-taken-away-again", "whole-folio").worst.wait
    assert wait.held_by == "disk 1, which takes it away by accessible-export"
    assert (wait.released_by, wait.taken_by) == ("import-call of vcpu 0", "accessible-export of disk 1")
    wait = checked("58-endless-batch", "per-page").worst.wait
    assert wait.held_by == "the LRU batch of CPU 1, which holds page 0"
    assert (wait.released_by, wait.taken_by) == ("drain-all of vcpu 0", "lru-add of lru 1")


def test_verdicts_per_actor_name_the_actors_without_a_wait():
    record = checked("60-mutex-and-a-pinned-folio", "import-lock").record()
    waits = {wait["actor"]: wait["kind"] for wait in record["waits"]}
    assert waits["vcpu 0"] == "permanent" and waits.get("vcpu 1", "transient") == "transient"


def test_the_scope_is_in_text_and_json():
    result = checked("05-late-failure", "per-page")
    assert result.record()["scope"]["faults"] == ["the ultravisor refuses every call for page 1"]
    text = " ".join(result_text(result).split())
    assert "scope: folios: 1 of order 1" in text and "steps are atomic and seen by all in one order" in text


# ------------------------------------------------------------------------------------------------- certificates
def permanent():
    lookup = Lookup(graph("03-virtio", "whole-folio"))
    component = components_of(lookup.graph)[0]
    return lookup, judge(lookup, component)


@pytest.mark.parametrize("named", [("lock",), ("writeback",), ("references", "mutex"), ()])
def test_a_wrong_name_is_not_certified(named):
    lookup, judged = permanent()
    claim = Claim(judged.component.waiter, "permanent", judged.page, judged.whole, named)
    with pytest.raises(NotCertified):
        certify_permanent(lookup.graph.system, lookup.state(judged.component.entry), claim)


def test_a_permanent_wait_is_no_livelock_and_no_death():
    lookup, judged = permanent()
    entry = lookup.state(judged.component.entry)
    around = verdict.fair_cycle(lookup.graph, judged)
    for kind in ("livelock", "fatal"):
        claim = Claim(judged.component.waiter, kind, judged.page, judged.whole, ("references",))
        with pytest.raises(NotCertified):
            certify_cycle(lookup.graph.system, entry, around, claim)


def test_a_livelock_is_not_permanent():
    lookup = Lookup(graph("58-endless-batch", "per-page"))
    component = components_of(lookup.graph)[0]
    claim = Claim(component.waiter, "permanent", 0, False, ("references",))
    with pytest.raises(NotCertified):
        for number in component.members.tolist():
            certify_permanent(lookup.graph.system, lookup.state(number), claim)


def test_a_verdict_that_its_certificate_contradicts_is_a_defect(monkeypatch, tmp_path, capsys):
    def wrong(lookup, component):
        made = judge(lookup, component)
        return type(made)(made.component, "livelock", False, made.page, made.whole, made.named, made.met)

    monkeypatch.setattr(verdict, "judge", wrong)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["check", str(PATHS["03-virtio"]), "--policy", "whole-folio"])
    assert ended.value.code == 4
    out, err = capsys.readouterr()
    assert out == "" and "the certificate contradicts a verdict" in err and "Traceback" not in err
    saved = json.loads(next(tmp_path.glob("ultrafolio-defect-*.json")).read_text())
    assert saved["path"] and saved["scenario"]["memory"] and saved["reproduce"].startswith("ultrafolio check")
