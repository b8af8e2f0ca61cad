"""The lab's page and its replays for groups of guest_memfd: their frames, the words for their pages, and the page in
headless Chromium."""

import numpy as np
import pytest

import saved_streams
from browser import NEEDED, chromium, entry, tab, until  # noqa: F401
from memfd_cases import STORIES, system
from services.lab.codes import Codes, enter
from services.lab.jobs import Jobs
from services.lab.listing import Listing
from services.lab.looks import LOOKS
from services.lab.replay import GroupReplay
from services.lab.replays import Replays
from services.lab.web import Page
from ultrafolio.conformance.suite import build
from ultrafolio.model.designs import DESIGNS
from ultrafolio.model.guest_memfd.layout import HW_POISONED, HW_STUCK, MAPPED, MAPPED_PRIVATE
from ultrafolio.model.layout import NOTHING, TOUCH, UNSHARE
from ultrafolio.state import validate
from ultrafolio.state.events import Steps, decode, encode
from ultrafolio.state.memory import Memory, MemoryStore
from ultrafolio.state.store import Event

SHOWN = [
    ("g01-to-private", "gmem-7.4", "tdx"),
    ("g04-one-of-four-pinned", "gmem-7.4", "software"),
    ("g12-fault-in-flight", "gmem-no-drain", "snp"),
    ("g15-hole", "gmem-7.4", "cca"),
    ("g16-vfio-pin", "gmem-two-backings", "software"),
    ("g21-part-of-a-huge-page", "gmem-hugetlb-2025-12", "tdx"),
    ("g38-removal-fails", "gmem-7.4", "snp"),
    ("g47-kernel-takes-a-page", "pkvm", "pkvm"),
    ("page-in-a-pipe", "gmem-7.4", "software"),
]


def events_of(name, policy, machine, *choices):
    """A stream of a scenario in which its actors take `choices`, or one after the other all that they may choose."""
    made = system(name, policy, machine)
    every = [(actor, *choice) for actor, some in enumerate(made.choices) for choice in some]
    return saved_streams.conversion(made, *(choices or every), title=STORIES[name].title)


def hanging(machine):
    """Scenario g16: VFIO pins the page, then the guest asks for it as private."""
    return events_of("g16-vfio-pin", "gmem-7.4", machine, (1, TOUCH, 0), (0, UNSHARE, 0))


def replay_of(events):
    replay = GroupReplay("x")
    replay.feed(events)
    return replay


def unpacked(look, code):
    """A page's code as the page's script reads it."""
    made, at = {}, 0
    for field in look.fields:
        made[field.name] = int(code) >> at & ((1 << field.width) - 1)
        at += field.width
    return made


# ------------------------------------------------------------------------------------------------- frames
@pytest.mark.parametrize(("name", "policy", "machine"), SHOWN)
def test_the_frames_lead_where_the_rules_lead(name, policy, machine):
    events = events_of(name, policy, machine)
    assert validate.validate(events).accepted
    for many in range(4, len(events) + 1):
        replay = replay_of(events[:many])
        assert replay.error is None and replay.base.machine == machine and len(replay.frames) == many - 3
        codes = np.zeros(replay.base.pages, np.int64)
        enter(codes, replay.base.runs)
        for frame in replay.frames:
            enter(codes, frame.runs)
        state = replay._replay.state()
        assert codes.tolist() == Codes(replay._live, state).codes.tolist()
        for page, code in enumerate(codes):
            told, uv, mm, there = unpacked(replay.base.look, code), state.uv[page], state.mm[page], state.pt[page]
            if uv["state"] in (HW_STUCK, HW_POISONED):
                assert told["state"] == 4
            else:
                assert told["state"] == bool(mm["private"]) + 2 * (not mm["allocated"])
            assert told["map"] == {MAPPED: 1, MAPPED_PRIVATE: 2}.get(int(there["present"]), 0)
            assert told["wrong"] == (there["present"] == (MAPPED if mm["private"] else MAPPED_PRIVATE))
            assert told["turned"] == (bool(uv["shared"]) == bool(mm["private"]))
            assert (told["users"], told["zapped"], told["batch"]) == (mm["users"] > 0, mm["zapped"], mm["batch"] > 0)
            assert (told["longs"], told["pins"], told["refs"]) == (mm["longs"], mm["pins"], mm["refs"])
            assert told["dma"] == (state.io["dma"][page] > 0) and told["flying"] == state.io["flying"][page]
            assert told["head"] == (not mm["order"] or page % 2 == 0)


@pytest.mark.parametrize("machine", DESIGNS["guest_memfd"].machines)
def test_a_wait_that_the_vmm_may_end_is_told_as_one(machine):
    replay = replay_of(hanging(machine))
    (told,) = replay._waits
    assert (told.kind, told.waiter) == ("vmm-bound", "vcpu 0 (request to private, page 0)")
    assert told.held == "pin 1's long-term pin on page 0"
    assert told.released == "dma-unmap of pin 1, which the VMM may take"
    steps = [step for frame in replay.frames for step in frame.steps]
    assert {"-EAGAIN"} == {step.outcome for step in steps if step.what == "vcpu 0 convert-pinned"}
    assert {step.column for step in steps if "vmm-retry" in step.what} == {"device"}


def calls_of(*stream):
    """The calls of each step of a stream of events_of(), by the step's words."""
    return {step.what: step.calls for frame in replay_of(events_of(*stream)).frames for step in frame.steps}


def test_what_the_hardware_answers_is_beside_the_step():
    calls = calls_of("g38-removal-fails", "gmem-7.4", "snp")
    assert calls["vmm 1 convert-store"][0] == ("ultravisor", "make_shared", "leaked")
    assert calls["vmm 1 convert-zap"] == [("ultravisor", "unmap", "OK")]
    calls = calls_of("g21-part-of-a-huge-page", "gmem-hugetlb-2025-12", "tdx")
    assert calls["vcpu 0 touch page 0"] == [("ultravisor", "is_reachable", "yes"), ("ultravisor", "guest_access", "OK")]
    spliced = (1, TOUCH, 0), (1, NOTHING, 0)
    calls = calls_of("page-in-a-pipe", "gmem-7.4", "software", *spliced)
    assert calls["vmsplice 1 pipe-read"] == [("host", "close_pipe", "OK")]


def test_an_answer_that_the_rules_do_not_give_ends_the_replay():
    events = events_of("g38-removal-fails", "gmem-7.4", "snp")
    (at,) = (n for n, one in enumerate(events) if b"make_shared" in one.data)
    was = decode(events[at].data)
    (step,) = was.steps
    told = type(step)(step.actor, step.op, step.page, step.outcome, [("make_shared", 1), *step.results[1:]])
    events[at] = Event(events[at].id, encode(Steps(was.role, [told])))
    assert "the rules say make_shared" in replay_of(events).error.text


def test_each_look_fits_a_code_and_names_what_it_shows():
    for design, look in LOOKS.items():
        masks = [look.mask(field.name) for field in look.fields]
        assert sum(masks) == (1 << sum(field.width for field in look.fields)) - 1 < 1 << 31, design
        assert {sign.field for sign in look.signs} <= {field.name for field in look.fields}
        for field in look.fields:
            assert isinstance(field.words, str) or len(field.words) in (0, 1 << field.width), (design, field)
        assert len({sign.shape for sign in look.signs}) == len(look.signs) and len(look.columns) == 4


# ------------------------------------------------------------------------------------------------- the page
@pytest.fixture
def address(tmp_path):
    replays = Replays(MemoryStore(Memory(), "admin"), tmp_path / "streams")
    served = Page(replays, Listing(replays, Jobs(tmp_path / "sweeps", "")), "127.0.0.1", 0)
    yield f"http://{served.address}"
    served.close()


@NEEDED
def test_a_stream_of_each_design_is_shown_in_its_own_words(tab, address, tmp_path):  # noqa: F811
    ring = build("whole-folio", [1], ["shared", "secure"], vcpu=[{}], virtio=[{"page": 0}])
    streams = {
        "a": hanging("tdx"),
        "b": saved_streams.hang(ring, (1, 1, 0), (0, 1, 1)),
        "c": events_of("g38-removal-fails", "gmem-7.4", "snp"),
    }
    file = tmp_path / "saved.jsonl"
    file.write_bytes(saved_streams.saved(streams))
    tab.goto(address)
    tab.set_input_files("#file", str(file))
    until(tab, "hang", "A hang, unless the VMM ends it: vcpu 0 (request to private, page 0) waits for ever")
    assert tab.inner_text("#title") == "a guest asks for a page under a VFIO pin, on the machine tdx"
    assert "vmm-bound: the VMM may end it, and need not" in tab.inner_text("#waits")
    heads = "[...document.querySelectorAll('#ladder th[scope=col]')].map((one) => one.textContent)"
    assert tab.evaluate(heads) == ["entry", "guest", "host MM, KVM", "machine", "VMM, device"]
    tab.click("#map", position={"x": 10, "y": 10})
    until(tab, "picked", "Page 0: shared, a folio of its own; mapped for DMA, 1 long-term pin, 1 extra reference.")
    assert "shared, not allocated" in tab.inner_text("#counts") and "EXPORTED" not in tab.inner_text("#counts")
    assert "long-term pin: page 0" in tab.inner_text("#folios")
    assert "vcpu 0 convert-pinned: -EAGAIN" in tab.inner_text("#ladder")
    tab.select_option("#group", "b")
    until(tab, "hang", "A hang: vcpu 0 (touch page 1) waits for ever")
    until(tab, "picked", "Choose a page")
    assert tab.evaluate(heads) == ["entry", "guest", "host MM", "ultravisor", "device"]
    assert "EXPORTED 1" in " ".join(tab.inner_text("#counts").split()) and "machine" not in tab.inner_text("#title")
    tab.select_option("#group", "c")
    until(tab, "title", "on the machine snp")
    until(tab, "ladder", "→ make_shared: leaked")
    tab.keyboard.press("Home")
    entry(tab, 0)
    tab.click("#map", position={"x": 10, "y": 10})
    until(tab, "picked", "Page 0: private, a folio of its own; KVM maps it as private.")
    tab.click("#live")
    tab.click("#map", position={"x": 10, "y": 10})
    until(tab, "picked", "Page 0: kept by the machine, or poisoned, a folio of its own;")
