"""Guests touch, share and do I/O, a host writes back: the resulting states and bytes."""

import os
import random
import threading
import time
from pathlib import Path

import pytest

from cluster_driver import DONE, FATAL, REFUSED, ROOT, WAITS, Driven, same_as_interpreted
from running_cluster import running
from services.host_mm.swap import GIVEN_AWAY
from ultrafolio.errors import InputError
from ultrafolio.model import layout
from ultrafolio.model.layout import EXPORTED, PINNED_SHARED, SECURE
from ultrafolio.model.policies import PRESETS
from ultrafolio.model.properties import PROPERTIES
from ultrafolio.rpc.client import request_id
from ultrafolio.rpc.v1 import guest_pb2, ultravisor_pb2
from ultrafolio.state.sections import decode_meta
from ultrafolio.trace.load import load_touches

SCENARIOS = sorted(path.stem for path in (ROOT / "scenarios").glob("*.toml"))
SECRET, PUBLIC = b"a secret of the guest's own \xa7", b"a word for the disk, and for all to read"
VCPU = {"touch": [0, 1], "share": [0, 1], "unshare": [0, 1], "starts": 255}
FOLIO = {"memory": {"folios": [1], "state": ["shared", "secure"]}, "vcpu": [VCPU]}


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    with running(tmp_path_factory.mktemp("n")) as where:
        yield where


@pytest.fixture
def lab(where):
    lab = Driven(where)
    yield lab
    lab.close()


def steps(answer):
    return [f"{step.name} {step.word}" for step in answer.steps]


# ------------------------------------------------------------------------------ orders, as the interpreter does them
@pytest.mark.parametrize(("first", "preset"), list(enumerate(PRESETS)), ids=list(PRESETS))
def test_orders_do_what_the_interpreter_does(lab, first, preset):
    """A third of the scenarios under each preset, another third under the next one. --long asks for every pair."""
    for name in SCENARIOS[first % 3 :: 3]:
        same_as_interpreted(lab, name, preset, 1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 8))
def test_orders_in_other_orders(lab, seed):
    for name in SCENARIOS:
        for preset in PRESETS:
            same_as_interpreted(lab, name, preset, seed)


CROWD = {
    "memory": {"folios": [2], "state": ["shared", "secure", "secure", "exported"]},
    "vcpu": [{"cpu": c, "touch": [0, 1, 2, 3], "share": [1, 2], "unshare": [1, 2], "starts": 255} for c in (0, 1, 2)],
    "disk": [{"page": 0, "pages": 2, "starts": 50}, {"page": 3, "starts": 50}],
    "writeback": [{"page": [0, 1, 2, 3], "starts": 50}],
    "reclaim": [{"page": [0, 1, 2, 3], "starts": 50}],
    "lru": [{"page": [0, 1, 2, 3], "starts": 50, "cpu": 1}],
    "speculative": [{"page": [0, 1, 2, 3], "starts": 50}],
}
ENDS = {DONE, "NO_STARTS_LEFT", "NOT_ENABLED"}


@pytest.mark.parametrize("preset", ["per-page", "folio-bitmap-pins", "split-writeback", "import-lock"])
def test_everybody_at_once(lab, preset):
    """Every actor has a client of its own: nobody waits for ever, and the rules allow it all. Of the properties, those
    of pinned pages are broken, which no policy keeps beside reclaim."""
    lab.lay("crowd", preset, CROWD)
    outcomes = []

    def client(actor):
        chance = random.Random(actor)
        for _ in range(15):
            op, page = chance.choice(lab.system.choices[actor])
            outcomes.append((actor, op, page, lab.order(actor, op, page, timeout=20)))

    threads = [threading.Thread(target=client, args=(actor,)) for actor in range(len(lab.system.choices))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(outcomes) == 15 * len(threads)
    assert [one for one in outcomes if one[3] not in ENDS] == []
    assert lab.waits() == [] and {name for _, name in lab.validated().broken} <= set(PROPERTIES[10:])


# ------------------------------------------------------------------------------------------- contents of pages
@pytest.mark.parametrize("preset", ["per-page", "whole-folio", "folio-bitmap"])
def test_what_a_guest_writes_it_reads_after_export_and_import(lab, preset):
    lab.lay("mine", preset, {**FOLIO, "writeback": [{"page": [0], "starts": 2}]})
    assert lab.touch(0, 1, data=SECRET, offset=100).outcome == DONE
    assert lab.host_sees(1).exception == 0x3D and not lab.host_sees(1).data
    lab.start(1, 0)  # writeback: all of the folio is made accessible
    assert lab.state().uv["state"].tolist() == [PINNED_SHARED, EXPORTED]
    first = lab.host_sees(1).data
    assert len(first) == 4096 and SECRET not in first
    back = lab.touch(0, 1, length=len(SECRET), offset=100)
    # the folio was write-protected: a write fault, then the import
    assert (back.data, back.exceptions, back.outcome) == (SECRET, 2, DONE)
    lab.start(1, 0)
    assert lab.host_sees(1).data != first, "the same page encrypted twice must not look the same"
    again = lab.touch(0, 1, data=PUBLIC, offset=200)  # written by the step that follows the import
    assert again.exceptions and again.outcome == DONE
    page = bytes(100) + SECRET + bytes(100 - len(SECRET)) + PUBLIC
    assert lab.touch(0, 1, length=4096).data == page.ljust(4096, bytes(1))


def test_a_shared_page_is_plain_text_for_both(lab):
    lab.lay("mine", "per-page", FOLIO)
    lab.touch(0, 0, data=PUBLIC)
    assert lab.host_sees(0).data.startswith(PUBLIC)
    assert lab.unshare(0, 0).outcome == DONE and lab.host_sees(0).exception == 0x3D
    assert lab.share(0, 0).outcome == DONE and lab.host_sees(0).data.startswith(PUBLIC)


def exported(lab, guests=1):
    """Pages with a secret of each guest, exported: what the host sees of them."""
    actors = [{"guest": g, "touch": [g], "starts": 255} for g in range(guests)]
    memory = {"folios": [0] * guests, "state": ["secure"], "owner": list(range(guests))}
    lab.lay(
        "mine",
        "per-page",
        {
            "memory": memory,
            "vcpu": actors,
            "tamper": [{"page": list(range(guests))}],
            "writeback": [{"page": list(range(guests)), "starts": 255}],
        },
    )
    for page in range(guests):
        lab.touch(page, page, data=SECRET)
        lab.start(guests, page)
    return [lab.host_sees(page).data for page in range(guests)]


def overwrite(lab, page, data):
    """The host writes over a page behind everybody's back: no step of the rules, so its stream is not accepted."""
    lab.untrusted.add(lab.group)
    access = ultravisor_pb2.PageAccess(page=page, data=data)
    lab.cluster.ultravisor.Access(ultravisor_pb2.AccessRequest(group=lab.group, accesses=[access]))


def test_a_flipped_byte_is_fatal(lab):
    exported(lab)
    assert steps(lab.start(2, 0)) == ["tamper OK"]
    end = lab.touch(0, 0)
    assert end.outcome == FATAL and steps(end)[-1] == "import-call EINVAL"
    assert [wait.stall_class for wait in lab.waits()] == [4]
    assert lab.touch(0, 0).outcome == FATAL


def test_an_older_copy_is_fatal_and_the_present_one_is_not(lab):
    (old,) = exported(lab)
    lab.touch(0, 0)
    lab.start(1, 0)
    overwrite(lab, 0, lab.host_sees(0).data)
    assert lab.touch(0, 0, length=len(SECRET)).data == SECRET
    lab.start(1, 0)
    overwrite(lab, 0, old)
    assert lab.touch(0, 0).outcome == FATAL


def test_another_guests_page_is_fatal(lab):
    mine, other = exported(lab, 2)
    assert mine != other
    overwrite(lab, 0, other)
    assert lab.touch(0, 0).outcome == FATAL
    assert lab.touch(1, 1, length=len(SECRET)).data == SECRET


def held(folder, word):
    """The files under a folder in which a pattern stands; of sparse files, the parts that were written."""
    found = set()
    for path in Path(folder).rglob("*"):
        if path.is_file() and not path.is_socket():
            with path.open("rb") as file:
                end, at = file.seek(0, os.SEEK_END), 0
                while at < end:
                    try:
                        at = os.lseek(file.fileno(), at, os.SEEK_DATA)
                    except OSError:
                        break
                    hole = os.lseek(file.fileno(), at, os.SEEK_HOLE)
                    if word in os.pread(file.fileno(), hole - at, at):
                        found.add(path.relative_to(folder).as_posix())
                    at = hole
    return found


def test_no_file_of_host_or_devices_holds_a_secret(lab, where):
    lab.lay(
        "mine",
        "whole-folio",
        {**FOLIO, "disk": [{"page": 0, "pages": 2}], "writeback": [{"page": [0]}], "reclaim": [{"page": [1]}]},
    )
    lab.touch(0, 0, data=PUBLIC)
    lab.touch(0, 1, data=SECRET)
    answer = lab.direct_io(1, 0)
    assert (answer.outcome, answer.error) == (DONE, 0) and answer.offset % 4096 == 0
    assert held(where["folder"], PUBLIC) == {"guest/disk", "ultravisor/memory"}
    lab.touch(0, 1, length=1)
    lab.start(2, 0)
    lab.touch(0, 1, length=1)
    assert steps(lab.start(3, 1))[-1] == "reclaim-free DONE"
    assert lab.state().pt["present"][1] == layout.SWAPPED
    assert held(where["folder"], PUBLIC) == {"guest/disk", "host_mm/swap", "ultravisor/memory"}
    assert lab.touch(0, 1, length=len(SECRET)).data == SECRET
    assert lab.touch(0, 1, data=SECRET, length=len(SECRET)).data == SECRET
    assert held(where["folder"], SECRET) <= {"ultravisor/memory"}


def swapped_out(lab, **more):
    """A folio of two pages, the second of which holds SECRET and is swapped out by actor 1."""
    lab.lay("mine", "per-page", {**FOLIO, "reclaim": [{"page": [1]}], **more})
    lab.touch(0, 1, data=SECRET)
    kinds = lab.system.state.who["kind"].tolist()
    assert steps(lab.start(kinds.index(layout.RECLAIM), 1))[-1] == "reclaim-free DONE"
    assert lab.host_sees(1).data == GIVEN_AWAY, "its frame holds nothing of it any more"


def test_a_page_comes_back_from_swap(lab, where):
    swapped_out(lab)
    assert lab.touch(0, 1, length=len(SECRET)).data == SECRET
    swapped_out(lab)
    lab.untrusted.add(lab.group)  # in the rules only a hostile host changes an exported page
    with Path(where["folder"], "host_mm/swap").open("r+b") as file:
        file.seek(decode_meta(lab.cluster.store.read(lab.group, ["meta"])["meta"]).origin + 4096)
        file.write(b"changed")
    assert lab.touch(0, 1).outcome == FATAL


def test_direct_io_brings_a_page_back_from_swap(lab):
    swapped_out(lab, disk=[{"page": 1}])
    assert (io := lab.direct_io(1, 1)).error == 0 and "pin-get OK" in steps(io)
    assert lab.host_sees(1).data != GIVEN_AWAY
    assert lab.touch(0, 1, length=len(SECRET)).data == SECRET


def test_a_writeback_leaves_in_swap_what_is_not_in_memory(lab):
    swapped_out(lab, writeback=[{"page": [0]}])
    assert steps(lab.start(1, 0))[-1] == "writeback-end DONE"
    assert lab.touch(0, 1, length=len(SECRET)).data == SECRET


def test_what_a_reset_zeroed_does_not_come_back_from_swap(lab):
    swapped_out(lab, reboot=[{}])
    assert lab.reboot(2).outcome == DONE
    assert lab.touch(0, 1, length=len(SECRET)).data == bytes(len(SECRET))
    assert lab.state().pt["present"][1] == layout.MAPPED


@pytest.mark.parametrize("service", ["guest", "host_mm"])
def test_the_files_bypass_the_page_cache(where, service):
    pid = next(part["pid"] for part in where["services"] if part["service"] == service)
    name = {"guest": "disk", "host_mm": "swap"}[service]
    (number,) = (fd.name for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.resolve().name == name)
    flags = Path(f"/proc/{pid}/fdinfo/{number}").read_text().split("flags:")[1].split()[0]
    assert int(flags, 8) & os.O_DIRECT


def test_a_disk_reads_what_it_wrote(lab):
    lab.lay("mine", "per-page", {**FOLIO, "disk": [{"page": 0, "starts": 2}]})
    lab.touch(0, 0, data=PUBLIC)
    lab.direct_io(1, 0)
    lab.touch(0, 0, data=b"x" * 64)
    assert lab.direct_io(1, 0, read=True).error == 0
    assert lab.touch(0, 0, length=len(PUBLIC)).data == PUBLIC


def test_a_read_from_disk_into_an_exported_page(lab):
    """Direct I/O on a secure page moves its cipher text: the same bytes may come back, older ones are fatal."""
    lab.lay("mine", "per-page", {**FOLIO, "disk": [{"page": 1, "starts": 3}]})
    lab.untrusted.add(lab.group)
    lab.touch(0, 1, data=SECRET)
    lab.direct_io(1, 1)
    assert lab.direct_io(1, 1, read=True).error == 0
    assert lab.touch(0, 1, length=len(SECRET)).data == SECRET
    assert lab.validated().accepted
    lab.direct_io(1, 1, read=True)
    assert lab.touch(0, 1).outcome == FATAL
    told = lab.validated()
    assert not told.accepted and "a disk that reads into one does so" in told.why, "in the rules only tamper does"


def test_a_pin_that_is_refused(lab):
    lab.lay(
        "mine",
        "per-page",
        {
            "memory": {"folios": [0], "state": ["shared"], "refuses": [0]},
            "disk": [{"page": 0}],
            "virtio": [{"page": 0}],
        },
    )
    answer = lab.direct_io(0, 0)
    assert (answer.outcome, answer.error) == (REFUSED, 14)
    assert lab.configure(1, 0).outcome == REFUSED
    assert lab.state().mm["refs"].tolist() == [0]


# ----------------------------------------------------------------------------------------------------- reboot
def test_a_reboot_zeroes_and_releases_all(lab):
    lab.lay("25", "whole-folio")
    lab.touch(0, 1, data=SECRET)
    lab.configure(1, 0)
    done = lab.reboot(2)
    assert done.outcome == DONE and steps(done)[-1] == "reboot-reset DONE"
    assert "ring-teardown OK" in steps(done) and lab.state().mm["refs"].tolist() == [0, 0]
    assert lab.host_sees(1).data == bytes(4096)
    assert lab.touch(0, 1, length=len(SECRET)).data == bytes(len(SECRET)), "it runs again, with new pages"


def test_a_machine_that_is_shut_down_runs_no_more(lab):
    lab.lay("mine", "per-page", {**FOLIO, "reboot": [{"shutdown": True, "starts": 2}]})
    assert lab.reboot(1, shutdown=True).outcome == DONE
    for order in (lambda: lab.touch(0, 1), lambda: lab.share(0, 1), lambda: lab.reboot(1)):
        with pytest.raises(InputError) as error:
            order()
        assert (error.value.reason, error.value.value) == ("MACHINE_STOPPED", "shut down")


# -------------------------------------------------------------------------------------------------- workloads
def workload(lab, timeout=60, **more):
    request = guest_pb2.RunWorkloadRequest(group=lab.group, actor=0, **more)
    return list(lab.cluster.guest.RunWorkload(request, timeout=timeout))


def test_a_workload_counts_its_imports(lab):
    lab.lay("mine", "per-page", {"memory": {"folios": [0] * 8, "state": ["exported"]}, "vcpu": [{}]})
    *_, end = workload(lab, pages=[0, 1, 2, 3] * 50, batch=7)
    assert (end.outcome, end.done, end.total, end.exceptions) == (DONE, 200, 200, 4)
    assert lab.state().uv["state"].tolist() == [SECURE] * 4 + [EXPORTED] * 4


def test_a_workload_says_where_it_stalls(lab):
    lab.lay("03", "whole-folio")
    lab.configure(1, 0)
    *_, end = workload(lab, pages=[0, 0, 0, 1, 0], patience_us=300_000)
    assert (end.outcome, end.done, end.total) == (WAITS, 3, 5)
    assert end.wait.held_by == "virtio 1's long-term pin on page 0, another page of the folio"


def test_a_recording_is_replayed(lab):
    file = ROOT / "traces/python-startup.lackey.gz"
    lab.lay("mine", "per-page", {"memory": {"folios": [0] * 64, "state": ["exported"]}, "vcpu": [{}]})
    recorded = load_touches(file)["page"][:3000]
    news = workload(lab, recording=file.read_bytes(), touches=3000)
    assert (news[-1].outcome, news[-1].done, news[-1].total) == (DONE, 3000, 3000)
    assert news[-1].exceptions == len(set((recorded % 64).tolist()))
    assert [one.done for one in news] == sorted(one.done for one in news)


@pytest.mark.parametrize("recording", [b"no recording", b"\x1f\x8b no gzip"])
def test_a_recording_that_is_none(lab, recording):
    lab.lay("mine", "per-page", FOLIO)
    with pytest.raises(InputError) as error:
        workload(lab, recording=recording)
    assert error.value.reason == "BAD_INPUT" and error.value.what.startswith("recording: ")


# ------------------------------------------------------------------------------------- once, however often asked
ONCE = {**FOLIO, "disk": [{"page": 0}], "virtio": [{"page": 0}], "writeback": [{"page": [0]}], "reboot": [{}]}


@pytest.mark.parametrize(("call", "actor"), [("share", 0), ("direct_io", 1), ("configure", 2), ("reboot", 4)])
def test_a_repeated_order_is_answered_as_before(lab, call, actor):
    lab.lay("mine", "whole-folio", ONCE)
    name, arguments = request_id(), (actor,) if call == "reboot" else (actor, 0)
    first = getattr(lab, call)(*arguments, request=name)
    after = lab.state()
    assert first.outcome == DONE and getattr(lab, call)(*arguments, request=name) == first
    assert layout.pack(lab.state()) == layout.pack(after)
    if call != "share":
        assert after.actor["budget"][actor] == 0


@pytest.mark.parametrize("pause", [0, 0.002, 0.01])
@pytest.mark.parametrize(("call", "actor"), [("Share", 0), ("DirectIo", 1), ("Configure", 2), ("Reboot", 4)])
def test_an_order_whose_answer_was_lost_is_done_once(lab, call, actor, pause):
    """The client goes away right after asking, before, while or after it is done, and asks again."""
    lab.lay("mine", "whole-folio", {**ONCE, "vcpu": [{"share": [1], "starts": 1}]})
    place = {} if call == "Reboot" else {"page": 1 if call == "Share" else 0}
    request = getattr(guest_pb2, f"{call}Request")(group=lab.group, actor=actor, request_id=request_id(), **place)
    first = getattr(lab.cluster.guest, call).future(request, timeout=10)
    time.sleep(pause)
    first.cancel()
    again = getattr(lab.cluster.guest, call)(request)
    assert again.outcome == DONE and lab.state().actor["budget"][actor] == 0
    assert getattr(lab.cluster.guest, call)(request) == again


def test_a_repeated_start_is_done_once(lab):
    lab.lay("mine", "whole-folio", ONCE)
    name = request_id()
    first = lab.start(3, 0, request=name)
    events = len(list(lab.cluster.store.history(lab.group)))
    assert steps(first)[-1] == "writeback-end DONE" and lab.start(3, 0, request=name).steps
    assert len(list(lab.cluster.store.history(lab.group))) == events
    with pytest.raises(InputError) as error:
        lab.start(3, 0)
    assert error.value.reason == "NO_STARTS_LEFT"


def test_a_write_whose_answer_was_lost_is_done_once(lab):
    lab.lay("mine", "per-page", FOLIO)
    request = guest_pb2.TouchRequest(group=lab.group, actor=0, page=1, data=b"first", request_id=request_id())
    lab.cluster.guest.Touch(request)
    lab.touch(0, 1, data=b"later")
    lab.cluster.guest.Touch(request)
    assert lab.touch(0, 1, length=5).data == b"later"
