"""Every row of docs/limits.md that a message can reach: the bound itself is accepted, one more is refused."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from running_cluster import running
from services import limits
from services.common import groups
from services.guest import servicer as guest
from services.host_mm import boot
from services.host_mm import servicer as host
from services.lab import recordings, retention, watch
from services.lab import servicer as lab_servicer
from services.lab.servicer import Lab
from services.ultravisor import servicer as ultravisor
from test_limits import PLAN
from test_uploads import LINES
from ultrafolio.conformance.suite import build
from ultrafolio.errors import InputError
from ultrafolio.rpc.client import connect
from ultrafolio.rpc.cluster import Cluster
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.messages import meta_to
from ultrafolio.rpc.v1 import guest_pb2, host_mm_pb2, ultravisor_pb2
from ultrafolio.search import cell
from ultrafolio.search.cell import Verdicts
from ultrafolio.state.sections import LARGEST_GROUP, Meta
from ultrafolio.sweep import planfile

ONE = {"memory": {"folios": [0]}, "vcpu": [{}]}
ELSEWHERE = {
    "fields of a message over 64 KiB, and its packed numbers": "test_packed_numbers_are_bounded",
    "requests, and answers over 1 KiB, that the calls of a service hold": (
        "test_what_calls_hold_is_bounded_and_given_back"
    ),
    "calls of a service whose answer is not sent": "test_calls_whose_answer_is_not_sent_have_a_bound",
    "seconds in which a client makes no room for an answer": "test_the_service_ends_such_calls_by_itself",
    "calls that wait in a service": "test_one_more_than_the_bound_is_refused_by_name",
    "verdicts of a scenario, from a worker": "test_what_is_no_verdict_is_refused",
    "seconds of a call": "test_the_servers_own_longest_time",
    "silence of a client": "test_a_dead_client_is_noticed",
    "reflection streams": "test_idle_reflection_holds_no_thread_of_the_service",
    "watchers of a service's health": "test_watchers_of_health_have_a_bound",
    "touches of a workload in one message": "test_what_a_message_may_hold",
    "a workload's recording, unpacked": "test_recordings_that_unpack_to_much_stay_within_the_containers_memory",
    "levels of a plan's tables, and dots of a line": "test_a_plan_that_would_hold_the_lab_is_refused_at_once",
    "a sweep's name": "test_what_a_message_may_hold",
    "cells of a submitted plan": "test_plans_at_the_limit_and_beyond",
    "sweeps of a lab": "test_plans_at_the_limit_and_beyond",
    "a saved stream": "test_a_file_that_is_too_long",
    "saved streams of the page": "test_saved_streams_expire",
    "replays of the page": "test_pages_show_so_many_groups_and_the_others_leave_room",
    "connections to the page": "test_connections_to_the_page_have_a_bound",
    "sweeps fetched at a time, by one process": "test_sweeps_beyond_the_followers_room_wait_for_their_turn",
    "entries of a group's stream": "test_a_stream_is_cut_to_a_window_and_validate_starts_at_its_checkpoint",
    "rounds of polling in one entry": "test_a_number_of_rounds_that_is_too_large_for_what_they_do_is_refused",
}
"""Row of the table -> the test that reaches its bound."""
QUEUED = {
    "calls at work in a service",
    "threads that resume suspended calls",
    "an answer kept for a repetition",
    "entries of a round of polling",
}
"""Rows at whose bound nothing is refused: calls queue, the oldest goes, the next entry begins."""


def outcome(work):
    """Returns the reason of a refusal, "" for none."""
    try:
        work()
    except (StatusError, InputError) as error:
        return getattr(error, "reason", "") or "BAD_INPUT"
    return ""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with running(tmp_path_factory.mktemp("c")) as where, Cluster.at(where) as cluster:
        cluster.lay_out_state(
            "g", build("per-page", state=["shared"], vcpu=[{"touch": [0]}], disk=[{"page": 0}]).state, [], "limits"
        )
        cluster.where = where
        yield cluster


@pytest.fixture
def bench(cluster, tmp_path, monkeypatch):
    """What the checks need: a cluster, a folder, and bounds that are set to small ones."""
    return SimpleNamespace(cluster=cluster, folder=tmp_path, set=monkeypatch.setattr)


# ----------------------------------------------------------------------------------------- over the bound by `more`
def message(bench, more):
    """A touch, filled up with a field that no message has."""
    touch = guest_pb2.TouchRequest(group="g", actor=0, page=0).SerializeToString()
    size = (16 << 20) + more - len(touch) - 6
    length = bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14 & 0x7F | 0x80, size >> 21])
    address = next(part["address"] for part in bench.cluster.where["services"] if part["service"] == "guest")
    with connect(address, "lab", message_mib=64, retry=False) as channel:
        touch += b"\x82\x7d" + length + bytes(size)
        channel.unary_unary("/ultrafolio.rpc.v1.GuestService/Touch")(touch, timeout=60)


def request_id(bench, more):
    request = guest_pb2.TouchRequest(group="g", actor=0, page=0, request_id="r" * (128 + more))
    bench.cluster.guest.Touch(request, timeout=60)


def folio_groups(bench, more):
    there = [str(n) for n in range(host.MOST_GROUPS - 1 + more)]
    store = SimpleNamespace(groups=lambda: there, number=lambda key: 1, create=lambda *told: True)
    state = build("per-page", vcpu=[{}]).state
    meta = meta_to(Meta(state.cfg, state.who, len(state.vm), [[]], 0, ""))
    request = host_mm_pb2.HostMmServicePrepareRequest(group="new", meta=meta)
    host.HostMm.Prepare(SimpleNamespace(store=store), request, None)


def pages_of_a_group(bench, more):
    state = build("per-page", vcpu=[{}]).state
    state.cfg["pages"] = LARGEST_GROUP + more
    groups.constants(meta_to(Meta(state.cfg, state.who, len(state.vm), [[]], 0, "")))


def processors(bench, more):
    created = host_mm_pb2.CreateGuestRequest(group="g", vm=0, cpus=boot.MOST_CPUS + more)
    bench.cluster.host.CreateGuest(created, timeout=60)


def accesses(bench, more):
    """So many accesses, and so many bytes that they read."""
    call, number = bench.cluster.ultravisor.Access, ultravisor.MOST_ACCESSES + more
    many = ultravisor_pb2.AccessRequest(group="g", accesses=[ultravisor_pb2.PageAccess(page=0)] * number)
    assert outcome(lambda: call(many, timeout=60)) == ("TOO_MANY" if more else "")
    reads = [4096] * (ultravisor.MOST_READ // 4096) + [1] * more
    read = [ultravisor_pb2.PageAccess(page=0, length=length) for length in reads]
    answer = call(ultravisor_pb2.AccessRequest(group="g", accesses=read), timeout=60)
    assert sum(len(one.data) for one in answer.outcomes) == ultravisor.MOST_READ


def listed_pages(bench, more):
    pages = guest_pb2.RunWorkloadRequest(group="g", actor=0, pages=[0] * (guest.MOST_PAGES + more), batch=1024)
    call = bench.cluster.guest.RunWorkload(pages, timeout=60)
    next(iter(call))
    call.cancel()


def direct_io(bench, more):
    """Of an actor that is no disk, which is refused for that after the bound was looked at."""
    held = guest_pb2.DirectIoRequest(group="g", actor=0, hold_us=guest.LONGEST_HOLD_US + more)
    if outcome(lambda: bench.cluster.guest.DirectIo(held, timeout=60)) != "NO_SUCH_ACTOR":
        bench.cluster.guest.DirectIo(held, timeout=60)


def recording(bench, more):
    bench.set(recordings, "LARGEST", len(LINES) - more)
    recordings.Recordings(bench.folder / "sent").keep([LINES])


def unpacked_recording(bench, more):
    bench.set(recordings, "LARGEST_UNPACKED", len(LINES) - more)
    recordings.Recordings(bench.folder / "unpacked").keep([LINES])


def all_recordings(bench, more):
    bench.set(recordings, "MOST_BYTES", 2 * len(LINES) - more)
    place = recordings.Recordings(bench.folder / "all")
    place.keep([LINES])
    place.keep([LINES[:-2] + b"8\n"])


def uploads(bench, more):
    place = SimpleNamespace(recordings=SimpleNamespace(keep=lambda pieces: ("", 0)))
    one = Lab(None, place, None)
    for _ in range(lab_servicer.MOST_UPLOADS - 1 + more):
        assert one._uploads.acquire(blocking=False)
    one.UploadRecording(iter([]), None)


def text_of_a_plan(bench, more):
    plan = PLAN + "seed = [1]\n#"
    planfile.parse(plan + "x" * (planfile.LARGEST - len(plan) + more), Path("p.toml"))


def points(bench, more):
    plan = f'a = "1-1000000"\nb = "1-{1_000_000 + more}"\n'
    assert planfile.parse(PLAN + plan, Path("p.toml")).count == planfile.MOST_POINTS


def filters(bench, more):
    skips = "".join(f"[[skip]]\nseed = {n}\n" for n in range(planfile.MOST_SKIPS + more))
    planfile.parse(PLAN + 'seed = "0-99"\n' + skips, Path("p.toml"))


def scenarios_of_a_search(bench, more):
    names = [f"s{n}" for n in range(cell.MOST_SCENARIOS + more)]
    resolved(dict.fromkeys(names, ONE), "s0")


def size_of_a_scenario(bench, more):
    resolved({"one": ONE | {"vcpu": [{}] * (cell.MOST_ACTORS + more)}}, "one")
    resolved({"one": ONE | {"memory": {"folios": [9] * (cell.MOST_PAGES >> 9) + [0] * more}}}, "one")


def resolved(stories, name):
    Verdicts("").resolve({"scenario": name, "tables": {"scenario": stories}}, Path())


def watched_groups(bench, more):
    one = watch.Watchers(SimpleNamespace(events=lambda *told: iter([])))
    one._readers = {str(n): SimpleNamespace(over=False) for n in range(watch.MOST_READERS - 1 + more)}
    one._reader("g", "0")


def archives(bench, more):
    bench.set(retention, "MOST_ARCHIVES", 2)
    store = SimpleNamespace(groups=lambda: ["g"], history=lambda group: iter([]))
    place = retention.Retention(store, bench.folder / f"archives{more}")
    place._folder.mkdir()
    for n in range(1 + more):
        (place._folder / str(n)).touch()
    place.archive("g")


REACHED = {
    "a message": (message, "RESOURCE_EXHAUSTED"),
    "a request id": (request_id, "BAD_INPUT"),
    "folio groups of a cluster": (folio_groups, "TOO_MANY"),
    "pages of a group": (pages_of_a_group, "BAD_META"),
    "processors of a guest": (processors, "BAD_CPUS"),
    "accesses in one message": (accesses, "TOO_MANY"),
    "pages listed in a workload": (listed_pages, "TOO_MANY"),
    "direct I/O held": (direct_io, "HELD_TOO_LONG"),
    "an uploaded recording": (recording, "BAD_INPUT"),
    "recordings uploaded at a time": (uploads, "TOO_MANY"),
    "uploaded recordings of a lab": (all_recordings, "RECORDINGS_FULL"),
    "a plan's text": (text_of_a_plan, "BAD_INPUT"),
    "points of a plan": (points, "BAD_INPUT"),
    "filters of a plan": (filters, "BAD_INPUT"),
    "scenarios of a search": (scenarios_of_a_search, "BAD_INPUT"),
    "actors and pages of a scenario of a search": (size_of_a_scenario, "BAD_INPUT"),
    "groups watched at a time": (watched_groups, "TOO_MANY_WATCHED"),
    "archives of a lab": (archives, "TOO_MANY"),
}
"""Row of the table -> (what goes over its bound by so many, the reason of the refusal)."""


@pytest.mark.parametrize("row", REACHED)
def test_the_bound_is_accepted_and_one_more_is_refused(bench, row):
    work, why = REACHED[row]
    assert outcome(lambda: work(bench, 0)) == ""
    assert outcome(lambda: work(bench, 1)) == why


def test_an_unpacked_recording_has_a_bound_of_its_own(bench):
    assert outcome(lambda: unpacked_recording(bench, 0)) == ""
    assert outcome(lambda: unpacked_recording(bench, 1)) == "BAD_INPUT"


def test_every_row_has_its_test():
    rows = {limit.what for limit in limits.table()}
    assert rows == {*REACHED, *ELSEWHERE, *QUEUED}
    code = "".join(path.read_text() for path in Path(__file__).parents[1].rglob("test_*.py"))
    assert set(ELSEWHERE.values()) <= set(re.findall(r"^def (test_\w+)", code, re.MULTILINE))
