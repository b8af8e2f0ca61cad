"""The line of a cluster's group: the same words and the same hash as check's, from what the group did."""

from dataclasses import replace

import pytest
from click.testing import CliRunner

import memfd_cases
from checking import PATHS, story, system
from saved_streams import hang, made, stream
from test_observation import FORM
from ultrafolio.cli import cli
from ultrafolio.errors import InputError
from ultrafolio.export.observation import hash_of
from ultrafolio.export.observed_stream import of_stream
from ultrafolio.model.layout import NOTHING, TOUCH, UNSHARE
from ultrafolio.model.policies import find, find_any
from ultrafolio.state import validate
from ultrafolio.state.events import Kept, StepEvent, Steps, encode
from ultrafolio.state.store import Event
from ultrafolio.waits.words import stalls

VCPU, OTHER = 0, 1
PIN = (OTHER, TOUCH, 0)
ROUNDS = {"01-direct-io": 6}
"""Steps of each choice, where its actor would be done with more."""
STREAMS = {
    ("03-virtio", "whole-folio"): ([PIN, (VCPU, TOUCH, 1)], "Hangs", "vcpu0<-pin:virtio1@0"),
    ("03-virtio", "per-page"): ([PIN, (VCPU, TOUCH, 1)], "Holds", "-"),
    ("01-direct-io", "whole-folio"): ([PIN, (VCPU, TOUCH, 1)], "Waits", "vcpu0<-pin:disk1@0"),
    ("08-unshare-under-pin", "split"): ([PIN, (VCPU, UNSHARE, 0)], "Expected", "vcpu0<-pin:virtio1@0"),
    ("03-virtio", "refuse-large"): ([(VCPU, TOUCH, 1)], "Fatal", "vcpu0<-einval:vcpu0"),
    ("03-virtio", "whole-folio-literal"): ([PIN], "Unsafe", "property3"),
}


def line(events, stories=None, stored=None):
    replay = validate.replayed(events, stored)
    return FORM.fullmatch(of_stream(replay, "g", events, {name: story(name) for name in stories or PATHS}))


@pytest.mark.parametrize(("name", "policy"), STREAMS)
def test_a_group_has_the_words_and_the_hash_of_check(name, policy):
    choices, word, facts = STREAMS[name, policy]
    found = line(hang(system(name, policy), *choices, rounds=ROUNDS.get(name, 60)))
    assert found.group(1, 2, 3, 4, 5, 6, 8) == (name, policy, word, "1", "1", facts, "cluster")
    assert found.group(7) == hash_of(story(name), find(policy))


def test_a_group_of_guest_memfd_has_the_words_and_the_hash_of_check():
    made_up = memfd_cases.system("g16-vfio-pin", "gmem-7.4", "tdx")
    events = hang(made_up, PIN, (VCPU, UNSHARE, 0))
    replay = validate.replayed(events)
    found = FORM.fullmatch(of_stream(replay, "g", events, memfd_cases.STORIES))
    assert found.group(1, 2, 3, 6) == ("g16-vfio-pin", "gmem-7.4", "VmmBound", "vcpu0<-pin:pin1@0")
    assert found.group(7) == hash_of(memfd_cases.on("g16-vfio-pin", "tdx"), find_any("gmem-7.4"))


def test_an_import_that_was_refused_and_came_through_waited():
    made_up = system("01-direct-io", "whole-folio")
    begun = [PIN, (VCPU, TOUCH, 1)]
    rest = [(actor, NOTHING, 0) for actor in [OTHER] * 4 + [VCPU] * 6]
    done = hang(made_up, *begun, *rest, rounds=6)
    assert not stalls(validate.replayed(done).live) and line(done).group(3, 6) == ("Waits", "-")
    alone = hang(made_up, PIN, rounds=60)
    assert line(alone).group(3, 6) == ("Holds", "-")


def test_a_stream_that_the_rules_refuse_is_unknown():
    events = hang(system("03-virtio", "whole-folio"), PIN)
    wrong = encode(Steps("guest", [StepEvent(VCPU, NOTHING, 0, 5)]))
    found = line([*events, Event("1700000001000-0", wrong)])
    assert found.group(1, 3, 6) == ("03-virtio", "Unknown", "-")


def test_a_group_of_another_layout_has_a_hash_of_its_own():
    asked, policy = story("03-virtio"), find("split")
    events = hang(system("03-virtio", "split"))
    known, unknown = line(events), line(events, ["01-direct-io"])
    third = line(hang(system("16-split-early-direct-io", "split")), ["03-virtio"])
    assert known.group(1) == "03-virtio" and known.group(7) == hash_of(asked, policy)
    assert unknown.group(1, 2) == ("a-test", "split")
    hashes = {known.group(7), unknown.group(7), third.group(7), hash_of(story("01-direct-io"), policy)}
    assert len(hashes) == 4


def test_the_policy_of_a_scenario_is_found_by_its_choices():
    own = story("36-patience")
    events = hang(system("36-patience", "sleeps"), PIN)
    assert line(events).group(1, 2, 7) == ("36-patience", "sleeps", hash_of(own, find("sleeps", own.tables)))


def test_a_checkpoint_is_another_question():
    made_up = system("03-virtio", "whole-folio")
    events = hang(made_up, PIN, (VCPU, TOUCH, 1))
    replay = validate.replayed(events)
    cut = [Event("1700000009000-0", encode(replay.kept()))]
    assert isinstance(replay.kept(), Kept) and len(made(made_up)) == 3
    before, after = line(events), line(cut)
    assert before.group(3, 6) == after.group(3, 6) and before.group(7) != after.group(7)


def test_the_command_prints_a_line_a_group(tmp_path):
    events = hang(system("03-virtio", "whole-folio"), PIN, (VCPU, TOUCH, 1))
    file = tmp_path / "two.stream"
    file.write_bytes(validate.saved([("one", events), ("two", events)]))
    run = CliRunner()
    done = run.invoke(cli, ["trace", "validate", str(file), "--brief"], standalone_mode=False)
    lines = done.output.splitlines()
    assert len(lines) == 2 and len(set(lines)) == 1
    assert FORM.fullmatch(lines[0]).group(1, 2, 3, 8) == ("03-virtio", "whole-folio", "Hangs", "cluster")
    named = ["trace", "validate", str(file), "--brief", "--scenario", str(PATHS["03-virtio"])]
    assert run.invoke(cli, named, standalone_mode=False).output == done.output
    for words in (["--brief", "--json"], ["--scenario", "03-virtio"]):
        refused = run.invoke(cli, ["trace", "validate", str(file), *words], standalone_mode=False)
        assert isinstance(refused.exception, InputError)


def test_a_title_decides_between_equal_layouts():
    events = stream(system("45-foreign-shared-page", "per-page"), [], story("45-foreign-shared-page").title)
    assert line(events).group(1) == "45-foreign-shared-page"
    same = replace(story("45-foreign-shared-page"), title="another")
    assert hash_of(same, find("per-page")) == line(events).group(7)
