"""A guest's boot over gRPC: encrypted by its owner, unpacked by the import rules, verified; and its end."""

import os

import pytest

from cluster_driver import DONE, REFUSED, Driven
from running_cluster import running
from ultrafolio.errors import InputError
from ultrafolio.model.layout import EXPORTED, NON_SECURE, PAGE_SIZE, PINNED_SHARED, SECURE, SHARED
from ultrafolio.rpc.client import request_id
from ultrafolio.rpc.messages import laboratory_handle
from ultrafolio.rpc.v1 import guest_pb2, host_mm_pb2, ultravisor_pb2
from ultrafolio.state.sections import decode_meta
from ultrafolio.uvcall import image, uvcb
from ultrafolio.uvcall.calls import CALLS

RING, REBOOT = 2, 3
MEMORY = {
    "title": "a guest to boot",
    "memory": {"folios": [2, 0, 0, 0, 0], "state": ["non_secure"]},
    "vcpu": [{"starts": 9}, {"starts": 9}],
    "virtio": [{"page": 7, "starts": 9}],
    "reboot": [{"starts": 9}],
}
IMAGE = os.urandom(4 * PAGE_SIZE)


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    with running(tmp_path_factory.mktemp("c")) as where:
        yield where


@pytest.fixture
def it(where):
    it = Driven(where)
    it.lay("boot", "import-lock", MEMORY)
    yield it
    it.close()


def boot(it, plain=IMAGE, page=0, request="", actor=0):
    asked = guest_pb2.BootRequest(
        group=it.group, actor=actor, page=page, image=plain, request_id=request or request_id()
    )
    return it.cluster.guest.Boot(asked, timeout=60)


def sealed(it, plain=IMAGE, page=0):
    key = it.cluster.ultravisor.HostKey(ultravisor_pb2.HostKeyRequest()).key
    return image.seal(plain, [key], page * PAGE_SIZE)


def create(it, header, cpus=2):
    asked = host_mm_pb2.CreateGuestRequest(group=it.group, cpus=cpus, header=header, request_id=request_id())
    return it.cluster.host.CreateGuest(asked)


def unpack(it, tweak, data, page=0, offset=0):
    it.cluster.host.Unpack(host_mm_pb2.UnpackRequest(group=it.group, page=page, image=data, tweak=tweak, offset=offset))
    for at in range(len(data) // PAGE_SIZE):
        assert it.touch(0, page + at).outcome == DONE


def start(it):
    answer = it.cluster.host.StartGuest(host_mm_pb2.StartGuestRequest(group=it.group)).answer
    return answer.call, answer.rc, answer.interception


def destroy(it):
    return it.cluster.host.DestroyGuest(host_mm_pb2.DestroyGuestRequest(group=it.group)).answer.rc


def execute(it, name, **fields):
    block = uvcb.pack(name, **fields)
    answer = it.cluster.ultravisor.Execute(ultravisor_pb2.ExecuteRequest(group=it.group, control_block=block))
    return answer.condition_code, uvcb.unpack(answer.control_block).rc


def origin_of(it):
    return decode_meta(it.cluster.store.read(it.group, ["meta"])["meta"]).origin


def states(it):
    return it.state().uv["state"].tolist()


@pytest.mark.parametrize("policy", ["per-page", "whole-folio", "split-writeback", "import-lock"])
@pytest.mark.parametrize("page", [0, 2])
def test_a_guest_boots_and_reads_its_image(it, policy, page):
    it.lay("boot", policy, MEMORY)
    plain, before = os.urandom(4 * PAGE_SIZE), laboratory_handle(it.group, 0)
    booted = boot(it, plain, page)
    assert (booted.outcome, booted.pages) == (DONE, 4) and booted.configuration not in (0, before)
    assert (booted.answer.call, booted.answer.rc, booted.answer.interception) == ("enter", 1, 0)
    read = [it.touch(1, page + at, length=PAGE_SIZE) for at in range(4)]
    assert b"".join(one.data for one in read) == plain and not any(one.exceptions for one in read)
    for at in range(4):
        assert it.host_sees(page + at).exception == 0x3D
    assert states(it)[page : page + 4] == [SECURE] * 4 and states(it)[7] == NON_SECURE
    assert execute(it, "import", guest_handle=before, gaddr=7 * PAGE_SIZE) == (1, 0x20)
    assert execute(it, "import", guest_handle=booted.configuration, gaddr=7 * PAGE_SIZE) == (0, 1)


def test_the_host_never_holds_plain_text(it):
    """The host has the image before it is unpacked, only as cipher text."""
    made = sealed(it)
    assert create(it, made.header).answer.rc == 1
    it.cluster.host.Unpack(host_mm_pb2.UnpackRequest(group=it.group, image=made.pages, tweak=made.tweak))
    held = b"".join(it.host_sees(page).data for page in range(4))
    assert held == made.pages and all(IMAGE[at : at + 16] not in held for at in range(0, len(IMAGE), 16))


def test_the_life_of_a_booted_guest(it):
    """Share, pin, export and import, unshare, reboot: by its real handle, and the image's bytes come back."""
    assert boot(it).outcome == DONE
    assert it.share(0, 1).outcome == DONE
    assert it.host_sees(1).data == IMAGE[PAGE_SIZE : 2 * PAGE_SIZE]
    assert it.share(1, 7).outcome == DONE and it.configure(RING, 7).outcome == DONE
    assert states(it)[7] == PINNED_SHARED and states(it)[1] == SHARED
    assert it.unshare(0, 1).outcome == DONE
    origin = origin_of(it)
    assert execute(it, "export", paddr=origin + 2 * PAGE_SIZE) == (0, 1) and states(it)[2] == EXPORTED
    assert it.host_sees(2).data != IMAGE[2 * PAGE_SIZE : 3 * PAGE_SIZE]
    assert it.touch(0, 2, length=PAGE_SIZE).data == IMAGE[2 * PAGE_SIZE : 3 * PAGE_SIZE]
    assert it.reboot(REBOOT).outcome == DONE
    assert states(it) == [NON_SECURE] * 8
    assert it.touch(0, 3, length=8).data == bytes(8)
    assert start(it) == ("enter", 1, 0x70)  # its prefix area is destroyed too
    assert it.touch(0, 0).outcome == it.touch(0, 1).outcome == DONE
    assert start(it) == ("enter", 1, 0)


def test_a_guest_is_destroyed_and_booted_again(it):
    first = boot(it)
    assert boot(it).answer.rc == 0x110 and it.touch(0, 0, length=8).data == IMAGE[:8]
    assert destroy(it) == 1 and states(it) == [NON_SECURE] * 8
    assert destroy(it) == 0x20 and start(it)[:2] == ("verify", 0x20)
    assert execute(it, "import", guest_handle=first.configuration, gaddr=0) == (1, 0x20)
    second = boot(it, IMAGE[::-1])
    assert second.outcome == DONE and second.configuration != first.configuration
    assert it.touch(0, 0, length=PAGE_SIZE).data == IMAGE[::-1][:PAGE_SIZE]


def test_two_guests_in_one_address_space(it):
    """Each has its own image, key and handle; neither reads the other's pages; one is destroyed alone."""
    two = MEMORY | {"vcpu": [{"guest": 0}, {"guest": 1}], "virtio": []}
    it.lay("boot", "import-lock", two)
    guests = [boot(it, plain, 4 * n, actor=n) for n, plain in enumerate((IMAGE, IMAGE[::-1]))]
    assert [one.outcome for one in guests] == [DONE, DONE]
    assert it.state().uv["owner"].tolist() == [0] * 4 + [1] * 4
    assert execute(it, "import", guest_handle=guests[1].configuration, gaddr=0) == (1, 0x111)
    assert destroy(it) == 1 and states(it) == [NON_SECURE] * 4 + [SECURE] * 4
    assert it.touch(1, 5, length=PAGE_SIZE).data == IMAGE[::-1][PAGE_SIZE : 2 * PAGE_SIZE]


def test_an_image_of_one_page(it):
    booted = boot(it, IMAGE[:PAGE_SIZE], 3)
    assert (booted.outcome, booted.pages) == (DONE, 1) and states(it)[3:6] == [SECURE, SECURE, NON_SECURE]
    assert destroy(it) == 1
    booted = boot(it, IMAGE[:PAGE_SIZE], 7)
    assert (booted.outcome, booted.answer.interception) == (REFUSED, 0x70) and states(it) == [NON_SECURE] * 8


def test_a_boot_that_is_repeated_happens_once(it):
    first, again = (boot(it, request="boot-me") for _ in range(2))
    assert first == again and first.outcome == DONE


def test_an_interrupted_boot_is_restarted(it):
    create(it, sealed(it).header)
    assert boot(it).outcome == DONE and it.touch(0, 3, length=PAGE_SIZE).data == IMAGE[3 * PAGE_SIZE :]


ALIEN = [
    pytest.param(lambda header: image.seal(IMAGE, [b"\x09" + bytes(31)]).header, 0x108, id="for another machine"),
    pytest.param(lambda header: header[:-1] + bytes([header[-1] ^ 1]), 0x112, id="altered"),
    pytest.param(lambda header: header[:60], 0x112, id="cut short"),
    pytest.param(lambda header: b"", 0x103, id="none"),
    pytest.param(lambda header: bytes(0x2001), 0x103, id="too long"),
]


@pytest.mark.parametrize(("change", "rc"), ALIEN)
def test_headers_that_are_refused_leave_nothing(it, change, rc):
    refused = create(it, change(sealed(it).header))
    assert (refused.configuration, refused.answer.call, refused.answer.rc) == (0, "set_parameters", rc)
    assert start(it)[:2] == ("verify", 0x20)
    assert boot(it).outcome == DONE


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


IMAGES = {
    "as it is": lambda it, made: unpack(it, made.tweak, made.pages),
    "flipped byte": lambda it, made: unpack(it, made.tweak, flipped(made.pages, 2 * PAGE_SIZE + 5)),
    "another key": lambda it, made: unpack(it, made.tweak, sealed(it).pages),
    "another tweak": lambda it, made: unpack(it, made.tweak ^ 1, made.pages),
    "a page missing": lambda it, made: unpack(it, made.tweak, made.pages[: 3 * PAGE_SIZE]),
    "a page too many": lambda it, made: unpack(it, made.tweak, made.pages + bytes(PAGE_SIZE)),
    "pages exchanged": lambda it, made: unpack(
        it, made.tweak, made.pages[PAGE_SIZE : 2 * PAGE_SIZE] + made.pages[:PAGE_SIZE] + made.pages[2 * PAGE_SIZE :]
    ),
    "elsewhere": lambda it, made: unpack(it, made.tweak, made.pages, 4),
    "out of order": lambda it, made: [
        unpack(it, made.tweak, made.pages[at * PAGE_SIZE : (at + 1) * PAGE_SIZE], at, at * PAGE_SIZE)
        for at in (0, 2, 1, 3)
    ],
    "touched too early": lambda it, made: [it.touch(0, 1), unpack(it, made.tweak, made.pages)],
}


@pytest.mark.parametrize("how", IMAGES)
def test_verify_knows_the_image(it, how):
    """After any change of the image by the host, verify fails (rc 0x112), and the guest is not entered."""
    made = sealed(it)
    guest = create(it, made.header)
    IMAGES[how](it, made)
    good = how == "as it is"
    assert start(it)[:2] == (("enter", 1) if good else ("verify", 0x112))
    entry = ultravisor_pb2.EnterRequest(configuration=guest.configuration, cpu=guest.cpus[0])
    assert it.cluster.ultravisor.Enter(entry).interception == 0x20  # not with this address space, nor unverified
    assert execute(it, "unpack", guest_handle=guest.configuration, gaddr=0) == ((1, 0x111) if good else (0, 1))


def test_busy_while_it_unpacks(it):
    """The repeated touch repeats an unpack that was answered busy or partial."""
    for cc in (2, 3):
        inject = ultravisor_pb2.InjectRequest(command=CALLS["unpack"].command, count=1, condition_code=cc)
        it.cluster.ultravisor.Inject(inject)
        booted = boot(it)
        assert booted.outcome == DONE and booted.pages == 4
        assert "EAGAIN (UVC busy)" in [step.word for step in booted.steps]
        assert destroy(it) == 1


def test_pages_are_unpacked_between_create_and_start_only(it):
    """Before there is no guest; after it is too late."""
    for when in ("before", "after"):
        with pytest.raises(InputError) as caught:
            it.cluster.host.Unpack(host_mm_pb2.UnpackRequest(group=it.group, image=IMAGE))
        assert caught.value.reason == "NOT_BOOTING" and (when == "after" or boot(it).outcome == DONE)
    assert it.touch(0, 0, length=PAGE_SIZE).data == IMAGE[:PAGE_SIZE]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image": IMAGE[:-1]}, "BAD_INPUT"),
        ({"image": b""}, "BAD_INPUT"),
        ({"page": 5}, "NO_SUCH_PAGE"),
        ({"actor": 2}, "NO_SUCH_ACTOR"),
        ({"group": "nobody"}, "GROUP_NOT_FOUND"),
    ],
)
def test_misuse(it, change, reason):
    fields = {"group": it.group, "image": IMAGE, "request_id": request_id()} | change
    with pytest.raises(InputError) as caught:
        it.cluster.guest.Boot(guest_pb2.BootRequest(**fields))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("CreateGuest", host_mm_pb2.CreateGuestRequest(cpus=0)),
        ("CreateGuest", host_mm_pb2.CreateGuestRequest(cpus=249)),
        ("CreateGuest", host_mm_pb2.CreateGuestRequest(cpus=1, vm=1)),
        ("Unpack", host_mm_pb2.UnpackRequest(image=b"x")),
        ("Unpack", host_mm_pb2.UnpackRequest(image=bytes(PAGE_SIZE), page=8)),
        ("Unpack", host_mm_pb2.UnpackRequest()),
    ],
)
def test_misuse_of_the_host(it, name, request_):
    request_.group = it.group
    with pytest.raises(InputError) as caught:
        getattr(it.cluster.host, name)(request_)
    assert caught.value.reason in ("BAD_CPUS", "NO_SUCH_MACHINE", "BAD_IMAGE", "NO_SUCH_PAGE")
