"""The formats of a verdict and of a scenario for the design guest_memfd."""

import json
import tomllib

import pytest

from memfd_cases import STORIES, system
from ultrafolio import api
from ultrafolio.check.search.first import explore
from ultrafolio.check.verdicts.replay import replay
from ultrafolio.export import chrome, formats, observation, prose, prose_memfd, why
from ultrafolio.export.text_in import result_text
from ultrafolio.model import policies, scenario, toml
from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.model.guest_memfd.layout import MM
from ultrafolio.model.guest_memfd.policy import PRESETS
from ultrafolio.names import short

UNUSED = {
    "EPT violation: level",
    "EAGAIN",
    "EINVAL",
    "ENXIO (swapped in)",
    "EAGAIN (writeback)",
    "ENXIO",
    "EBUSY (dirty)",
}
"""Outcomes of s390 that no rule of the design returns, and an answer of a machine that is no step."""
FEW = ("g13-gup-fast", "g16-vfio-pin", "g23-no-memory-for-the-folio", "g24-second-huge-page-pinned",
       "g25-rollback-in-the-first-huge-page", "g38-removal-fails", "g42-never-delegated", "g46-unshare-under-dma",
       "g47-kernel-takes-a-page", "page-in-a-pipe")  # fmt: skip
"""Scenarios that together have every class of finding."""


@pytest.fixture(scope="module")
def hang():
    """The endless requests under a long-term pin: the result, and its system."""
    return api.check("g16-vfio-pin", policy="gmem-7.4"), system("g16-vfio-pin", "gmem-7.4")


def test_mermaid_has_a_message_for_each_step_and_no_ultravisor(hang):
    result, _ = hang
    text = formats.mermaid(result, result.worst)
    assert "ultravisor" not in text and "participant H as host MM and KVM" in text
    sent = [line for line in text.splitlines() if "->>" in line]
    assert len(sent) == len(result.worst.steps) + len(result.worst.cycle)


def test_mermaid_tells_where_the_attribute_changes():
    graph = explore(system("g01-to-private", "gmem-7.4"), max_states=1000)
    stored = next(number for number in range(graph.states) if graph.unpack(number).mm["private"][0])
    steps, _ = replay(graph.system, graph.path(stored))
    told = formats._messages(steps[-1], "")
    assert steps[-1].rule == "convert-store" and told[-1] == "Note over H: page 0 shared to private"


def fitting(story):
    """The presets that say something of a scenario."""
    return policies.presets_for(story.design, story.machine, story.memory["folios"])


@pytest.mark.parametrize("policy", PRESETS)
def test_every_scenario_has_its_line(policy):
    for name, story in STORIES.items():
        if policy not in fitting(story):
            continue
        result = api.check(name, policy=policy)
        line = observation.of_result(result, name, "0", "check").split()
        assert line[1:3] == [name, policy]
        assert line[6] != "-" or line[3] == "Holds", "what fails or waits says who"
        if line[3] == "Unsafe":
            assert line[6].partition(":")[0] in {f"property{n}" for n in range(12, 24)}, line
        assert story.expect[policy]["verdict"] == result.verdict


@pytest.mark.parametrize("policy", PRESETS)
def test_every_format_takes_every_scenario(policy):
    for name in FEW:
        if policy not in fitting(STORIES[name]):
            continue
        made, result = system(name, policy), api.check(name, policy=policy)
        told = [result_text(result), prose.prose(result), formats.tap([result]), formats.mermaid(result, result.worst)]
        told.append(why.why_text(why.why(result, made, max_states=10_000, max_mib=1000)))
        if formats.has_story(result.worst):
            told += [json.dumps(formats.itf(result, result.worst)), chrome.of_finding(result, made)]
        assert all(told), name


def test_why_a_leads_to_holds_is_told_by_runs_that_end_it():
    result = api.check("g08-other-batch", policy="gmem-7.4")
    runs, truth = why.why(result, system("g08-other-batch", "gmem-7.4"), max_states=10_000, max_mib=1000)
    assert set(runs) == {"fault leads to mapped or exit", "request leads to converted or told no"}
    assert all(runs.values()), "each has a run"
    assert set(truth) == {*GUEST_MEMFD.properties[1:], *GUEST_MEMFD.leads_to}


def test_itf_names_the_fields_of_the_design(hang):
    result, _ = hang
    trace = formats.itf(result, result.worst)
    assert len(trace["states"]) == len(result.worst.steps) + len(result.worst.cycle) + 1
    assert all(tuple(state["mm"][0]) == MM.names for state in trace["states"])
    assert [state["mm"][0]["longs"] for state in trace["states"]][-1] == 1 and trace["loop"] == 15


def test_prose_has_a_sentence_for_each_rule_and_each_outcome(hang):
    named = {rule.name for rule in GUEST_MEMFD.rules.values()}
    assert set(prose_memfd.PHRASES) == named
    assert set(prose_memfd.ADDED) >= set(GUEST_MEMFD.outcomes) - UNUSED
    assert "takes the step" not in prose.prose(hang[0])
    stored = prose.prose(api.check("g24-second-huge-page-pinned", policy="gmem-hugetlb-2025-12"))
    assert "Page 0 was shared and is private now." in stored


def test_a_wait_without_end_is_a_flow_from_the_step_that_took_it(hang):
    result, made = hang
    events = json.loads(chrome.of_finding(result, made))["traceEvents"]
    flow = [event for event in events if event["ph"] in "stf"]
    assert [event["ph"] for event in flow] == ["s", "f"] and flow[0]["tid"] != flow[1]["tid"]


def test_a_timeline_has_a_slice_for_each_step(hang):
    result, made = hang
    events = json.loads(chrome.of_finding(result, made))["traceEvents"]
    slices = [event for event in events if event["ph"] == "X"]
    assert len(slices) == len(result.worst.steps) + len(result.worst.cycle)
    assert {event["args"].get("name") for event in events} >= {"vcpu 0", "pin 1", "guest 0"}


@pytest.mark.parametrize("name", STORIES)
def test_a_shipped_scenario_comes_back_from_the_short_form_and_from_toml(name):
    story = STORIES[name]
    assert scenario.parse(short.document(short.write(story), "again"), "again") == story
    text = "\n".join(toml.lines(story))
    again = scenario.parse(tomllib.loads(text), "again")
    assert scenario.document(again) == scenario.document(story) and again.design == "guest_memfd"
