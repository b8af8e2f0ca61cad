"""Memory of a service: what one message becomes when it is decoded, and what the calls in progress hold."""

import threading
from array import array

import grpc
import pytest

from patience import EARLIER, NEVER
from running_cluster import ROOT, running
from services.common import memory
from services.guest import workload
from test_limits import peak, reason
from ultrafolio.errors import InputError
from ultrafolio.model import scenario
from ultrafolio.model.policies import find
from ultrafolio.rpc.client import connect, stamp
from ultrafolio.rpc.cluster import Cluster
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.v1 import guest_pb2, ultravisor_pb2

LIMIT_MIB = 512
"""Of the ultravisor, the host MM and the guest, in docker-compose.yml."""
ACCESSES, PAGES = ultravisor_pb2.AccessRequest, guest_pb2.RunWorkloadRequest


def refused(data, shape):
    """Returns the reason why a message is not decoded, "" if it is."""
    try:
        memory.check("a test", data, shape.DESCRIPTOR)
    except StatusError as error:
        return error.reason
    return ""


def accesses(number):
    """Returns a message with so many empty accesses, of two bytes each."""
    return bytes([ACCESSES.DESCRIPTOR.fields_by_name["accesses"].number << 3 | 2, 0]) * number


def test_the_fields_of_a_large_message_are_counted_before_it_is_decoded():
    assert refused(accesses(memory.MOST_FIELDS), ACCESSES) == ""
    assert refused(accesses(memory.MOST_FIELDS + 1), ACCESSES) == "TOO_MANY"
    one = ultravisor_pb2.PageAccess(page=1, offset=2, length=3)
    whole = ACCESSES(accesses=[one] * (memory.MOST_FIELDS // 4)).SerializeToString()
    assert refused(whole, ACCESSES) == "" and refused(whole + accesses(1), ACCESSES) == "TOO_MANY", "nested ones, too"


def test_unknown_and_damaged_fields_are_counted_or_left_to_the_decoder():
    assert refused(b"\x78\x01" * (memory.MOST_FIELDS + 1), ACCESSES) == "TOO_MANY", "a field that no message has"
    for damaged in (b"\xff" * 200_000, b"\x1a\xff\xff\x7f" + bytes(100_000), b"\x79" * 100_001, b"\x0b" * 100_000):
        assert refused(damaged, ACCESSES) == ""


def test_packed_numbers_are_bounded():
    pages = PAGES.DESCRIPTOR.fields_by_name["pages"].number
    for size, why in ((memory.MOST_PACKED, ""), (memory.MOST_PACKED + 1, "TOO_MANY")):
        packed = PAGES(recording=bytes(70_000)).SerializeToString() + bytes([pages << 3 | 2])
        while size:
            packed += bytes([size & 0x7F | (0x80 if size > 0x7F else 0)])
            size >>= 7
        assert refused(packed + bytes(memory.MOST_PACKED + 1), PAGES) == why


def test_what_calls_hold_is_bounded_and_given_back():
    held = memory.Held(100)
    with held.during(60), held.during(40):
        with pytest.raises(StatusError) as caught, held.during(1):
            raise AssertionError("it is within the bound")
        assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED and caught.value.reason == "TOO_MUCH_HELD"
    with held.during(100):
        assert held.bytes == 100


def test_a_workload_holds_two_bytes_for_a_touch():
    pages = workload.pages_of(b" L 1ffe005000,8\n L 1ffe006000,8\n" * 50, 3, 7)
    assert isinstance(pages, array) and pages.itemsize == 2 and len(pages) == 7


# ------------------------------------------------------------------------------------------------- a real cluster
@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A group in which every touch of page 1 waits."""
    with running(tmp_path_factory.mktemp("c")) as where, Cluster.at(where) as cluster:
        story = scenario.read(ROOT / "scenarios/25-reboot-with-device.toml")
        cluster.lay_out("hangs", scenario.system(story, find("whole-folio", story.tables)), story.title)
        cluster.guest.Configure(stamp(guest_pb2.ConfigureRequest(group="hangs", actor=1, page=0)))
        cluster.where = where
        yield cluster


def at_once(number, call):
    """Make so many calls at once. Returns the names of their statuses."""
    said = []

    def one():
        try:
            call()
            said.append("OK")
        except InputError as error:
            said.append(error.reason)

    threads = [threading.Thread(target=one) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5 * NEVER)
    assert len(said) == number
    return set(said)


def test_large_requests_that_wait_stay_within_the_containers_memory(lab):
    """Sixty touches of 3 MiB each, which would wait with their messages, and workloads of a million pages each."""
    padding = b"\x82\x7d" + b"\x80\x80\xc0\x01" + bytes(3 << 20)  # a field that no message has
    data = guest_pb2.TouchRequest(group="hangs", actor=0, page=1).SerializeToString() + padding
    guest = next(part["address"] for part in lab.where["services"] if part["service"] == "guest")
    with connect(guest, "lab", retry=False) as channel:
        touch = channel.unary_unary("/ultrafolio.rpc.v1.GuestService/Touch")
        assert "TOO_MUCH_HELD" in at_once(60, lambda: touch(data, timeout=8))
    pages = guest_pb2.RunWorkloadRequest(group="hangs", actor=0, pages=[1] * 1_000_000)
    assert "TOO_MUCH_HELD" in at_once(12, lambda: list(lab.guest.RunWorkload(pages, timeout=EARLIER)))
    assert peak(lab, "guest") < LIMIT_MIB
    assert reason(lab.guest.Touch, guest_pb2.TouchRequest(group="hangs", actor=0, page=9)) == "NO_SUCH_PAGE"


def test_a_message_of_millions_of_accesses_is_refused_small(lab):
    address = next(part["address"] for part in lab.where["services"] if part["service"] == "ultravisor")
    before = peak(lab, "ultravisor")
    for caller, why in (("lab", "TOO_MANY"), ("guest:0", "TOO_MANY"), ("ultravisor", "ROLE_NOT_ALLOWED")):
        with connect(address, caller, retry=False) as channel, pytest.raises(StatusError) as caught:
            channel.unary_unary("/ultrafolio.rpc.v1.UltravisorService/Access")(accesses(8_000_000), timeout=NEVER)
        assert caught.value.reason == why
    assert peak(lab, "ultravisor") < before + 150, "16 MB as sent; 450 MB more if it is decoded"
