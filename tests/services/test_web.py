"""The lab's replays and their server: frames have the states of the rules; other files are refused with a reason."""

import contextlib
import itertools
import json
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

import saved_streams
from services.common.settings import Settings, read
from services.lab import replay as replay_module
from services.lab.codes import Codes, enter
from services.lab.jobs import Jobs
from services.lab.listing import Listing
from services.lab.replay import GroupReplay
from services.lab.replays import MAX_BYTES, Replays
from services.lab.waiting import waits_of
from services.lab.web import Page
from ultrafolio.conformance.suite import build
from ultrafolio.engine.interp import write_back
from ultrafolio.errors import InputError
from ultrafolio.explore.node import what
from ultrafolio.explore.walk import Walk
from ultrafolio.model.layout import CFG, DISK, EXPORTED, READ, SECURE, State
from ultrafolio.model.policy import Policy
from ultrafolio.model.scenario import parse
from ultrafolio.state import validate
from ultrafolio.state.events import Made, StepEvent, Steps, Uvc, decode, encode
from ultrafolio.state.memory import Memory, MemoryStore
from ultrafolio.state.store import Commit, Event
from ultrafolio.waits.words import stall


def a_stream(title="a test"):
    """A guest touches an exported page, direct I/O makes it accessible again, the guest touches it again."""
    system = build("per-page", [1], ["exported"], vcpu=[{}], disk=[{"page": 0}])
    return saved_streams.stream(system, [(0, 1, 0), (1, 0, 0), (0, 1, 1)], title)


def replay_of(events):
    replay = GroupReplay("x")
    replay.feed(events)
    return replay


def codes_at(replay, n):
    found = np.zeros(replay.base.pages, np.int64)
    enter(found, replay.base.runs)
    for frame in replay.frames[: n - replay.base.n]:
        enter(found, frame.runs)
    return found.tolist()


# ------------------------------------------------------------------------------------------------- frames
def test_the_frames_lead_where_the_rules_lead():
    events = a_stream()
    replay = replay_of(events)
    assert replay.error is None and len(replay.frames) == len(events) - 3
    assert [frame.n for frame in replay.frames] == list(range(1, len(events) - 2))
    for many in range(4, len(events) + 1):
        found = {}

        def state(events=events[:many], found=found):
            other = GroupReplay("y")
            other.feed(events)
            found["state"] = other._replay.state()
            return found["state"]

        assert validate.validate(events[:many], state).accepted
        uv, mm, io = (getattr(found["state"], name) for name in ("uv", "mm", "io"))
        for page, code in enumerate(codes_at(replay, many - 3)):
            assert code & 7 == uv["state"][page]
            assert code >> 12 & 63 == mm["pins"][page] and code >> 10 & 1 == (io["flying"][page] > 0)
            over = mm["arch"][page] > 0 and uv["state"][page] != SECURE
            assert code >> 4 & 1 == over, "per-page: the bit is the page's own"


def test_an_over_indicating_bit_is_seen_while_it_lasts():
    replay = replay_of(a_stream())
    over = [any(code >> 4 & 1 for code in codes_at(replay, n)) for n in range(len(replay.frames) + 1)]
    assert any(over) and not over[0] and not over[-1]


def test_frames_have_the_waits_of_the_state():
    """A ring pinned beside a page that its guest touches: at every entry of the round, the same wait."""
    system = build("whole-folio", [1], ["shared", "secure"], vcpu=[{}], virtio=[{"page": 0}])
    replay = replay_of(saved_streams.hang(system, (1, 1, 0), (0, 1, 1)))
    assert replay.error is None
    begun = next(frame for frame in replay.frames if frame.waits)
    (told,) = begun.waits
    assert (told.kind, told.waiter) == ("permanent", "vcpu 0 (touch page 1)")
    assert told.held == "virtio 1's long-term pin on page 0, another page of the folio"
    wait = stall(replay._live, 0).wait
    assert (told.waits, told.held, told.released) == (wait.waits_for, wait.held_by, wait.released_by)
    assert replay.frames[-1].n > begun.n + 10 and not any(frame.waits is not None for frame in replay.frames[begun.n :])


@pytest.mark.parametrize(
    ("policy", "ops", "kind"),
    [
        ("per-page", (1, 3), "expected"),
        ("refuse-large", (1,), "fatal"),
        ("per-page", (1,), ""),
    ],
)
def test_each_class_of_wait(policy, ops, kind):
    """A guest that unshares its pinned ring, and one whose import is refused."""
    system = build(policy, [1], ["shared", "exported"], vcpu=[{"touch": [1], "unshare": [0]}], virtio=[{"page": 0}])
    replay = replay_of(saved_streams.hang(system, (1, 1, 0), *((0, op, int(op == 1)) for op in ops)))
    assert [told.kind for told in replay._waits] == ([kind] if kind else [])


def test_a_question_across_a_wall_has_its_answer():
    system = build("per-page", [0], ["shared"], vcpu=[{}], virtio=[{"page": 0}])
    events = saved_streams.stream(system, [(0, 1, 0)])
    asked = StepEvent(1, 1, 0, 1, [("turn_come", 1), ("uv_shared", 1), ("take_pin", 1)])
    replay = replay_of([*events, Event("1800000000000-0", encode(Steps("guest", [asked])))])
    assert replay.error is None
    assert replay.frames[-1].steps[0].calls == [
        ("host", "turn_come", "yes"),
        ("ultravisor", "uv_shared", "yes"),
        ("host", "take_pin", ""),
    ]


def test_an_access_says_whether_it_reads_or_writes():
    system = build("per-page", [0, 0], ["shared", "secure"], access=[{"read": [1], "write": [0]}])
    replay = replay_of(saved_streams.stream(system, [(0, READ, 1)]))
    told = [(step.column, step.what) for frame in replay.frames for step in frame.steps]
    assert told[0] == ("host", "access 0 read page 1") and ("host", "access 0 accessible-export page 1") in told
    begun = Walk(parse({"memory": {"folios": [0]}, "access": [{"read": [0], "write": [0]}]}, "x"), "x", Policy(), "x")
    assert [what(begun, move) for move in begun.enabled(begun.follow([]).here)] == [
        "access 0 read page 0",
        "access 0 write page 0",
    ]


def test_looking_changes_nothing():
    replay = replay_of(a_stream())
    blank = replay._replay.arrays
    before = [array.tobytes() for array in write_back(State(*replay._live), blank)]
    waits_of(replay._live)
    assert [array.tobytes() for array in write_back(State(*replay._live), blank)] == before
    assert replay._live.who[1].kind == DISK and replay._live.uv[0].state == EXPORTED


def calls_for(pages):
    """Returns the number of function calls to replay a touch in a group of `pages` pages."""
    system, called = build("per-page", [0] * pages, ["exported"], vcpu=[{}]), Counter()
    first, second = saved_streams.stream(system, [(0, 1, 0)]), saved_streams.stream(system, [(0, 1, 0), (0, 1, 1)])
    replay = replay_of(first)
    sys.setprofile(lambda frame, event, about: called.update([event]))
    try:
        replay.feed(second[len(first) :])
    finally:
        sys.setprofile(None)
    assert replay.error is None and len(replay.frames) == len(second) - 3
    return called.total()


def test_an_entry_costs_what_it_changes_however_large_the_group():
    assert calls_for(4096) == calls_for(16)


def calls_for_folio(order):
    """Returns the number of function calls to replay the entries of a folio after its layout, and the most runs."""
    events, called = saved_streams.one_folio(order, touches=1), Counter()
    replay = replay_of(events[:3])
    sys.setprofile(lambda frame, event, about: called.update([event]))
    try:
        replay.feed(events[3:])
    finally:
        sys.setprofile(None)
    assert replay.error is None and len(replay.frames) == len(events) - 3
    assert any(code >> 4 & 1 for code in codes_at(replay, len(replay.frames))), "the arch bit covers exported pages"
    return called.total(), max(len(frame.runs) for frame in replay.frames)


def test_an_entry_that_changes_a_whole_folio_costs_the_same_for_every_size():
    assert calls_for_folio(12) == calls_for_folio(6)


@pytest.mark.parametrize("policy", ["whole-folio", "per-page", "split", "folio-bitmap"])
def test_codes_that_follow_the_entries_are_those_of_the_state(policy):
    system = build(policy, [2, 1, 0], ["exported"], vcpu=[{}], disk=[{"page": 0}], virtio=[{"page": 0}])
    chosen = [(0, 1, 2), (1, READ, 1), (0, 1, 4), (1, READ, 5), (0, 1, 1), (2, 1, 6)]
    events = saved_streams.hang(system, *chosen)
    for many in range(3, len(events) + 1):
        replay = replay_of(events[:many])
        assert replay.error is None
        fresh = Codes(replay._live, replay._replay.state()).codes.tolist()
        assert codes_at(replay, many - 3) == replay._codes.codes.tolist() == fresh


def test_a_call_outside_of_steps_has_a_row():
    events = [*a_stream(), Event("1800000000000-0", encode(Uvc("uv_export", [0], 0)))]
    replay = replay_of(events)
    assert replay.frames[-1].steps[0].column == "ultravisor" and "uv_export" in replay.frames[-1].steps[0].what


def test_a_long_replay_keeps_its_last_frames(monkeypatch):
    monkeypatch.setattr(replay_module, "MAX_FRAMES", 10)
    events = a_stream()
    whole, replay = replay_of(events[:9]), replay_of(events)
    assert len(replay.frames) <= 10 and replay.base.n > 0 and replay.frames[0].n == replay.base.n + 1
    monkeypatch.undo()
    whole = replay_of(events)
    assert codes_at(replay, replay.frames[-1].n) == codes_at(whole, whole.frames[-1].n)


def test_a_page_continues_from_its_last_entry():
    replay = replay_of(a_stream())
    assert replay.since("") == (replay.base, replay.frames, False)
    assert replay.since(replay.frames[4].id) == (replay.base, replay.frames[5:], True)
    assert replay.since("77-7") == (replay.base, replay.frames, False)


def test_a_page_ahead_of_the_replay_waits():
    events = a_stream()
    replay, seen = replay_of(events[:9]), events[15].id
    assert replay.since(seen) == (None, [], False)
    replay.feed(events[9:])
    assert replay.since(seen) == (replay.base, replay.frames[13:], True)
    assert replay.since("what is no id") == (replay.base, replay.frames, False)
    replay.complete = True
    assert replay.since("9999999999999-0") == (replay.base, replay.frames, False), "it will never come"


# ------------------------------------------------------------------------------------------------- what is no stream
def broken(change):
    events = a_stream()
    made = [(event, decode(event.data)) for event in events]
    return [Event(event.id, encode(entry)) for event, entry in change(made)]


def with_meta(pages):
    def change(made):
        for event, entry in made:
            if isinstance(entry, Made) and entry.meta:
                fields = msgspec.msgpack.decode(entry.meta)
                cfg, at = bytearray(fields[0]), CFG.fields["pages"][1]
                cfg[at : at + 4] = pages.to_bytes(4, "little", signed=True)
                entry = msgspec.structs.replace(entry, meta=msgspec.msgpack.encode([bytes(cfg), *fields[1:]]))
            yield event, entry

    return change


def at_step(number, **fields):
    def change(made):
        for at, (event, entry) in enumerate(made):
            if at == number:
                entry = Steps(entry.role, [msgspec.structs.replace(entry.steps[0], **fields)])
            yield event, entry

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (with_meta(2**31 - 1), "2147483647 pages"),
        (with_meta(-1), "size of the group"),
        (with_meta(3), "bytes"),
        (lambda made: made[3:], "the layout of ultravisor, host and guest"),
        (lambda made: [*made, made[0]], "after the group was laid out"),
        (at_step(6, outcome=9), "the rules refuse"),
        (at_step(6, actor=99), "there is no actor 99"),
        (at_step(3, page=10**9), "entry"),
        (lambda made: [*made, (Event("9-9", b""), Uvc("__import__", [1], 0))], "there is no page call __import__"),
        (lambda made: [*made, (Event("9-9", b""), Uvc("uv_export", [], 0))], "missing 1 required"),
    ],
)
def test_a_tampered_stream_ends_where_it_was_changed(change, says):
    replay = replay_of(broken(change))
    assert replay.error and says in replay.error.text, replay.error


def test_bytes_that_are_no_entry():
    events = a_stream()
    assert "none that a part wrote" in replay_of([*events, Event("9-9", b"\xc1")]).error.text


# ------------------------------------------------------------------------------------------------- the server
@pytest.fixture
def replays(tmp_path):
    memory = Memory()
    made = Replays(MemoryStore(memory, "admin"), tmp_path / "streams")
    made.memory = memory
    return made


@pytest.fixture
def page(replays, tmp_path):
    served = Page(replays, Listing(replays, Jobs(tmp_path / "sweeps", "")), "127.0.0.1", 0)
    yield f"http://{served.address}"
    served.close()


def ask(address, data=None, **headers):
    request = urllib.request.Request(address, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def events_of(address, *kinds, **headers):
    """Returns data and ids of the first events of some kinds."""
    found, kind, identity = {}, "", ""
    with contextlib.closing(urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=20)) as s:
        for line in s:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "event":
                kind = value
            elif name == "id":
                identity = value
            elif name == "data":
                found.setdefault(kind, (json.loads(value), identity))
                if all(one in found for one in kinds):
                    return [found[one] for one in kinds]
    raise AssertionError(f"the stream ended with {found}")


KIND = {"Content-Type": "application/x-ndjson"}


def test_a_saved_stream_is_served_in_pieces_and_taken_up(page):
    events = a_stream()
    status, body = ask(f"{page}/saved", saved_streams.saved({"mine": events}), **KIND)
    got = json.loads(body)
    assert status == 200 and got["groups"] == ["mine"]
    live = f"{page}/live?group=mine&saved={got['saved']}"
    (base, _), (frames, last), (end, _) = events_of(live, "base", "frames", "end")
    assert base["n"] == 0 and base["pages"] == 2 and frames[0]["n"] == 1 and end is None
    (later, _), _ = events_of(live, "frames", "end", **{"Last-Event-ID": events[9].id})
    assert later[0]["id"] == events[10].id and last


def test_a_group_is_followed_while_it_goes_on(page, replays):
    events = a_stream()
    store = replays.store
    first, *rest = [event.data for event in events]
    assert store.create("mine", {"uv": b""}, first)
    for data in rest[:5]:
        add(store, data)
    found = {}
    thread = threading.Thread(
        target=lambda: found.update(zip("bf", events_of(f"{page}/live?group=mine", "base", "frames"), strict=True))
    )
    thread.start()
    thread.join(20)
    assert found["b"][0]["n"] == 0 and len(found["f"][0]) == 3
    replay = replays.replay("", "mine")
    for data in rest[5:]:
        add(store, data)
    end = time.monotonic() + 20
    while len(replay.frames) < len(events) - 3 and time.monotonic() < end:
        time.sleep(0.02)
    assert len(replay.frames) == len(events) - 3 and replay.error is None


def add(store, data):
    assert store.commit("mine", Commit(f"{time.monotonic_ns():020}", "test", events=[data])).status == "done"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"no stream", "not a saved stream"),
        (b"", "empty"),
        (b"{}\n", "not a saved stream"),
        (saved_streams.saved({"<script>": [Event("1-1", b"x")]}), "name of a folio group"),
    ],
)
def test_a_file_that_is_no_stream(page, body, says, tmp_path):
    status, answer = ask(f"{page}/saved", body, **KIND)
    assert status == 400 and says in json.loads(answer)["error"]
    assert not [file for file in (tmp_path / "streams").iterdir() if file.is_file()], "nothing is kept of it"
    assert str(tmp_path) not in json.loads(answer)["error"]


def test_a_file_that_is_too_long(replays):
    with pytest.raises(InputError, match="too long"):
        replays.save(b"x" * (MAX_BYTES + 1))


@pytest.mark.parametrize(
    "path",
    [
        "/saved/..%2f..%2fetc%2fpasswd",
        "/saved/0123456789abcdef",
        "/page.py",
        "/../web.py",
        "/sweeps/..%2f..%2fetc/plots",
        "/sweeps/none/x.svg",
    ],
)
def test_a_wrong_address(page, path):
    status, answer = ask(page + path)
    assert status in (400, 404) and json.loads(answer)["error"]


@pytest.mark.parametrize("query", ["group=../../etc", "group=nowhere", "group=x&saved=..%2f..", "group=%3Cb%3E"])
def test_an_unknown_replay(page, query):
    ((refused, _),) = events_of(f"{page}/live?{query}", "refused")
    assert "allowed" in refused["error"] or "no such" in refused["error"]


def test_another_sites_request_is_refused(page):
    assert ask(f"{page}/", Host="evil.example")[0] == 400
    assert ask(f"{page}/saved", b"x", **{"Content-Type": "text/plain"})[0] == 400


JOB = "0123456789abcdef"


def test_a_plot_is_served_as_it_was_drawn(replays, tmp_path, monkeypatch):
    """While a sweep runs there are more cells at every request; only a request of all plots redraws them."""
    jobs, cells, drawn = Jobs(tmp_path / "sweeps", ""), itertools.count(1), []
    (tmp_path / "sweeps/0123456789abcdef").mkdir()
    (tmp_path / "sweeps/0123456789abcdef/plan.toml").touch()
    monkeypatch.setattr("services.lab.listing.results_so_far", lambda *_: next(cells))
    monkeypatch.setattr("services.lab.listing.Results", lambda _: None)
    plot = SimpleNamespace(name="a", title="", caption="", alt="", svg="<svg/>")
    monkeypatch.setattr("ultrafolio.report.page.all_plots", lambda _: drawn.append(1) or [plot])
    listing = Listing(replays, jobs)
    assert listing.plots(JOB)["cells"] == 1 and listing.plot(JOB, "a") == listing.plot(JOB, "a") == "<svg/>"
    assert len(drawn) == 1
    assert listing.plots(JOB)["cells"] == 2 and len(drawn) == 2


def test_the_settings_of_the_page():
    assert read({}).web_port == 0 and read({"ULTRAFOLIO_WEB_PORT": "-1"}).web_port == -1
    with pytest.raises(InputError, match="WEB_PORT"):
        read({"ULTRAFOLIO_WEB_PORT": "70000"})
    assert Settings(web_port=8372).environment() == {"ULTRAFOLIO_WEB_PORT": "8372"}
