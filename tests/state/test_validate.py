"""The validator accepts the stream of a store's roles, and refuses a changed stream at the change."""

import json

import msgspec
import pytest
from click.testing import CliRunner

import saved_streams
from services.ultravisor.pages import Pages
from store_cases import Stored
from ultrafolio.cli import cli
from ultrafolio.conformance.suite import SCENARIOS, build, system_of, walk
from ultrafolio.errors import InputError
from ultrafolio.model.layout import E_UV, OK, UV_BUSY, UV_INTEGRITY
from ultrafolio.model.policies import PRESETS
from ultrafolio.state import validate
from ultrafolio.state.events import StepEvent, Steps, Uvc, decode, encode
from ultrafolio.state.memory import Memory, MemoryStore
from ultrafolio.state.store import Event


@pytest.fixture
def engine(tmp_path):
    memory = Memory()
    return Stored({role: MemoryStore(memory, role) for role in ("ultravisor", "host", "guest", "admin")}, tmp_path)


def walked_stream(engine, name, preset, steps=60):
    for _ in walk(engine, system_of(name, preset), 5, steps):
        pass
    return list(engine.stores["admin"].history(engine.group))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_what_the_roles_did_is_accepted(engine, name, preset):
    verdict = validate.validate(walked_stream(engine, name, preset), engine.state)
    assert verdict.accepted, (verdict.at, verdict.why)
    assert verdict.steps > 10


def changed(events, number, change):
    """Returns the stream with one step changed, and the id of its entry."""
    seen = 0
    for at, event in enumerate(events):
        entry = decode(event.data)
        for i, step in enumerate(entry.steps) if isinstance(entry, Steps) else ():
            if seen == number:
                steps = [*entry.steps[:i], change(step), *entry.steps[i + 1 :]]
                made = [*events]
                made[at] = Event(event.id, encode(Steps(entry.role, steps)))
                return made, event.id
            seen += 1
    raise AssertionError("no such step")


@pytest.mark.parametrize(
    "change",
    [
        lambda step: msgspec.structs.replace(step, outcome=step.outcome % 15 + 1),
        lambda step: msgspec.structs.replace(step, actor=99),
    ],
)
def test_a_changed_step_is_refused_at_its_entry(engine, change):
    events = walked_stream(engine, next(iter(SCENARIOS)), "whole-folio")
    made, at = changed(events, 7, change)
    verdict = validate.validate(made)
    assert (verdict.accepted, verdict.at, verdict.steps) == (False, at, 7)
    assert verdict.why and len(verdict.enabled) == len(engine.meta.who)


def test_a_refused_step_changes_nothing(engine):
    """Also if rules had written before they got an answer that the ultravisor cannot give."""
    events = walked_stream(engine, "ring", "whole-folio", 150)
    replay, lies = validate.begin([decode(event.data) for event in events[:3]]), 0

    def refused(role, step, **change):
        before = [array.tobytes() for array in replay.state()]
        taken = replay.entry("1-1", Steps(role, [msgspec.structs.replace(step, **change)]))
        assert taken or before == [array.tobytes() for array in replay.state()]
        return not taken

    for role, step in (
        (entry.role, step) for entry in (decode(event.data) for event in events[3:]) for step in entry.steps
    ):
        assert refused(role, step, outcome=step.outcome % 15 + 1)
        if refused(role, step, results=[(call, 77) for call in validate.ULTRAVISOR]):
            lies += 1
            assert not refused(role, step)
    assert lies


def refused(events, entry):
    """Returns the verdict on the stream with `entry` at its end."""
    verdict = validate.validate([*events, Event("1800000000000-0", encode(entry))])
    assert not verdict.accepted and verdict.at == "1800000000000-0" and len(verdict.enabled) == 2
    return verdict.why


def test_an_impossible_step_is_refused():
    system = build("per-page", [0], ["exported"], vcpu=[{}], disk=[{"page": 0}])
    events = saved_streams.stream(system, [(0, 1, 0)])
    idle, begun = events[:3], events[:4]
    (step,) = decode(events[4].data).steps
    assert "import-map of vcpu 0: done by guest, and it is host's" in refused(begun, Steps("guest", [step]))
    assert "the rules say OK" in refused(begun, Steps("host", [msgspec.structs.replace(step, outcome=9)]))
    assert "there is no page 7" in refused(idle, Steps("guest", [StepEvent(1, 1, 7, 1)]))
    assert "there is no page call uv_none" in refused(idle, Uvc("uv_none", [0], 0))
    assert "missing 1 required" in refused(idle, Uvc("uv_export", [], 0))
    assert "the rules say 1" in refused(idle, Uvc("uv_pin", [0], 0))


def test_a_refusal_lists_enabled_steps_and_waits():
    system = build("per-page", [0], ["secure"], writeback=[{}, {}])
    locked = saved_streams.stream(system, [(0, 1, 0)])[:5]
    other, wrong = Steps("host", [StepEvent(1, 1, 0, OK)]), Uvc("uv_none", [], 0)
    verdict = validate.validate([*locked, Event("9-8", encode(other)), Event("9-9", encode(wrong))])
    assert verdict.enabled == [
        "writeback 0: writeback-flag is enabled",
        "writeback 1: writeback-lock waits for the folio lock",
    ]


def test_an_answer_of_the_ultravisor_that_the_rules_do_not_give_is_refused_at_the_call():
    events = saved_streams.stream(build("per-page", [0], ["exported"], vcpu=[{}]), [(0, 1, 0)])
    for at, event in enumerate(events[3:], 3):
        entry = decode(event.data)
        told = [msgspec.structs.replace(step, results=[("uv_import", UV_INTEGRITY)]) for step in entry.steps]
        events[at] = Event(event.id, encode(Steps(entry.role, told)))
    verdict = validate.validate(events)
    assert not verdict.accepted and verdict.enabled == ["vcpu 0: import-call is enabled"]
    assert "answered 3 to uv_import, the rules say 0" in verdict.why and "a disk that reads into one" in verdict.why


def test_a_changed_layout_gives_no_traceback():
    system = build("per-page", [1], ["exported"], vcpu=[{}])
    events = saved_streams.stream(system, [(0, 1, 0)])
    made = [decode(event.data) for event in events[:3]]
    cut = [(at, {"sections": {name: data[:-1] for name, data in one.sections.items()}}) for at, one in enumerate(made)]
    for at, change in [*cut, (0, {"meta": made[0].meta[:-1]})]:
        wrong = [*events]
        wrong[at] = Event(events[at].id, encode(msgspec.structs.replace(made[at], **change)))
        with pytest.raises(InputError, match="of the stream"):
            validate.validate(wrong)


def test_a_state_that_the_steps_do_not_lead_to_is_refused(engine):
    name = next(iter(SCENARIOS))
    events = walked_stream(engine, name, "per-page")
    state = engine.state()
    state.uv["state"][0] = (state.uv["state"][0] + 1) % 5
    verdict = validate.validate(events, lambda: state)
    assert not verdict.accepted
    assert "section uv, record 0" in verdict.why


def test_a_stream_with_nothing_in_it_is_an_error():
    with pytest.raises(InputError, match="where it began"):
        validate.validate([])


def test_an_injected_busy_answer_is_replayed(engine, monkeypatch):
    """An import answered busy undoes and touches again; the rules' own ultravisor is never busy."""
    system = system_of("two-guests", "per-page")
    real, left = Pages.call, [1]

    def busy_once(pages, function, arguments, part=None, **more):
        if function == "uv_import" and left:
            left.pop()
            return real(pages, function, arguments, part, forced=UV_BUSY)
        return real(pages, function, arguments, part, **more)

    monkeypatch.setattr(Pages, "call", busy_once)
    outcomes = [step.outcome for step in walk(engine, system, 11, 150)]
    assert E_UV in outcomes and not left
    verdict = validate.validate(engine.stores["admin"].history(engine.group), engine.state)
    assert verdict.accepted, verdict.why


def test_the_command_reads_a_saved_stream(engine, tmp_path):
    events = walked_stream(engine, next(iter(SCENARIOS)), "per-page")
    file = tmp_path / "run.stream"
    file.write_bytes(validate.saved([("g", events)]))
    done = CliRunner().invoke(cli, ["trace", "validate", str(file), "--json"], standalone_mode=False)
    assert done.exception is None, done.exception
    said = json.loads(done.output)
    assert (said["group"], said["accepted"]) == ("g", True)
    assert said["steps"] > 10
