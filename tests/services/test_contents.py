"""Contents of pages: real encryption on export; the import detects every change of cipher text."""

import itertools
import os

import pytest

from cluster_driver import FATAL, Driven
from running_cluster import running
from services.ultravisor.contents import Contents, Seal
from ultrafolio.model.layout import EXPORTED, PAGE_SIZE, SECURE
from ultrafolio.rpc.messages import laboratory_handle
from ultrafolio.rpc.v1 import ultravisor_pb2 as pb
from ultrafolio.state.sections import decode_meta
from ultrafolio.uvcall import uvcb

PLAIN = os.urandom(PAGE_SIZE)


@pytest.fixture
def contents(tmp_path):
    made = Contents(tmp_path)
    yield made
    made.close()


def test_decryption_gives_the_content_before_the_export(contents):
    cipher, seal = contents.encrypt("g", 0, 5, 1, PLAIN)
    assert len(cipher) == PAGE_SIZE and cipher != PLAIN
    assert contents.decrypt("g", 0, 5, seal, cipher) == PLAIN
    again, other = contents.encrypt("g", 0, 5, 2, PLAIN)
    assert again != cipher and other.nonce != seal.nonce


@pytest.mark.parametrize("where", [("g", 1, 5), ("h", 0, 5), ("g", 0, 6)], ids=["guest", "group", "page"])
def test_cipher_text_belongs_to_its_place(contents, where):
    cipher, seal = contents.encrypt("g", 0, 5, 1, PLAIN)
    assert contents.decrypt(*where, seal, cipher) is None


def test_every_changed_byte_is_noticed(contents):
    cipher, seal = contents.encrypt("g", 0, 5, 1, PLAIN)
    for at in (0, 1, 2048, PAGE_SIZE - 1):
        assert contents.decrypt("g", 0, 5, seal, cipher[:at] + bytes([cipher[at] ^ 1]) + cipher[at + 1 :]) is None
    for wrong in (seal._replace(counter=2), seal._replace(nonce=bytes(12)), Seal(1, seal.nonce, bytes(16))):
        assert contents.decrypt("g", 0, 5, wrong, cipher) is None


def test_frames_and_secrets_outlive_the_process(tmp_path):
    first = Contents(tmp_path)
    cipher, seal = first.encrypt("g", 0, 5, 1, PLAIN)
    first.write(1 << 33, 1, cipher)
    kept = first.secret("handles")
    first.close()
    second = Contents(tmp_path)
    assert second.decrypt("g", 0, 5, seal, second.read(1 << 33, 1)) == PLAIN
    assert second.read(1 << 33, 0) == bytes(PAGE_SIZE)
    assert second.secret("handles") == kept != second.secret("host key")
    second.close()
    assert (tmp_path / "key").stat().st_mode & 0o777 == (tmp_path / "memory").stat().st_mode & 0o777 == 0o600


def test_clear_leaves_zeros_there_and_nowhere_else(contents):
    for page in range(6):
        contents.write(page * PAGE_SIZE, page % 2, PLAIN)
    contents.clear(PAGE_SIZE, 3 * PAGE_SIZE)
    left = [contents.read(page * PAGE_SIZE, page % 2) for page in range(6)]
    assert left == [PLAIN, *[bytes(PAGE_SIZE)] * 3, PLAIN, PLAIN]
    contents.clear(1 << 40, 1 << 30)  # beyond all that was written


# ------------------------------------------------------------------------------------------------ over gRPC
MEMORY = {
    "title": "two guests and their pages",
    "memory": {"folios": [0] * 6, "state": ["secure"], "owner": [0, 0, 0, 0, 1, 1]},
    "vcpu": [{"guest": 0}, {"guest": 1}],
}


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    with running(tmp_path_factory.mktemp("c")) as where:
        yield where


@pytest.fixture
def it(where):
    """Pages 0 to 3 of guest 0 and 4, 5 of guest 1, with something in each."""
    it = Driven(where)
    it.lay("contents", "per-page", MEMORY)
    it.origin = decode_meta(it.cluster.store.read(it.group, ["meta"])["meta"]).origin
    for page in range(6):
        it.touch(int(page > 3), page, data=written(page))
    yield it
    it.close()


def written(page, version=1):
    return bytes([page, version]) * (PAGE_SIZE // 2)


def execute(it, name, **fields):
    answer = it.cluster.ultravisor.Execute(pb.ExecuteRequest(group=it.group, control_block=uvcb.pack(name, **fields)))
    return answer.condition_code, uvcb.unpack(answer.control_block).rc


def export(it, page):
    assert execute(it, "export", paddr=it.origin + page * PAGE_SIZE) == (0, 1)
    return it.host_sees(page).data


def bring_back(it, page, vm=0):
    return execute(it, "import", guest_handle=laboratory_handle(it.group, vm), gaddr=page * PAGE_SIZE)


def put(it, page, data, offset=0):
    access = pb.PageAccess(page=page, offset=offset, data=data)
    (seen,) = it.cluster.ultravisor.Access(pb.AccessRequest(group=it.group, accesses=[access])).outcomes
    return seen.exception


def test_an_untouched_page_comes_back(it):
    for version in (1, 2, 3):
        it.touch(0, 1, data=written(1, version))
        cipher = export(it, 1)
        assert len(cipher) == PAGE_SIZE and written(1, version)[:16] not in cipher
        assert bring_back(it, 1) == (0, 1) and it.touch(0, 1, length=PAGE_SIZE).data == written(1, version)


def flip(it):
    cipher = export(it, 1)
    return bytes([cipher[0] ^ 1]) + cipher[1:]


def flip_the_last(it):
    cipher = export(it, 1)
    return cipher[:-1] + bytes([cipher[-1] ^ 0x80])


def replay(it):
    old = export(it, 1)
    assert bring_back(it, 1) == (0, 1)
    it.touch(0, 1, data=written(1, 2))
    export(it, 1)
    return old


def replay_of_the_same_content(it):
    old = export(it, 1)
    assert bring_back(it, 1) == (0, 1) and export(it, 1) != old
    return old


def of_another_page(it):
    export(it, 1)
    return export(it, 2)


def of_another_guest(it):
    export(it, 1)
    return export(it, 4)


TAMPERED = (flip, flip_the_last, replay, replay_of_the_same_content, of_another_page, of_another_guest)


@pytest.mark.parametrize("forge", [*TAMPERED, lambda it: bytes(PAGE_SIZE * bool(export(it, 1)))])
def test_a_tampered_page_is_not_imported(it, forge):
    """rc 0x112, every time, and the page does not change; the original would still be imported."""
    forged = forge(it)
    true = it.host_sees(1).data
    assert forged != true and put(it, 1, forged) == 0
    before = it.state().uv.tobytes()
    for name in ("import", "import", "unpin"):
        fields = {"guest_handle": laboratory_handle(it.group, 0), "gaddr": PAGE_SIZE}
        assert execute(it, name, **fields) == (1, 0x112)
    assert it.state().uv.tobytes() == before and it.state().uv["state"][1] == EXPORTED
    put(it, 1, true)
    assert bring_back(it, 1) == (0, 1) and it.state().uv["state"][1] == SECURE


def test_a_tampered_page_ends_the_guest_that_touches_it(it):
    """As in the kernel: the import is refused, and the VMM gets the error. No rule forged the page, so the stream
    cannot be replayed."""
    put(it, 1, flip(it))
    it.untrusted.add(it.group)
    assert it.touch(0, 1, length=8).outcome == FATAL
    assert it.touch(1, 4, length=PAGE_SIZE).data == written(4)


def test_a_secure_page_cannot_be_written(it):
    for page, offset in itertools.product((0, 5), (0, 100)):
        assert put(it, page, b"host", offset) == 0x3D
    assert it.touch(0, 0, length=PAGE_SIZE).data == written(0) and it.touch(1, 5, length=PAGE_SIZE).data == written(5)


def test_the_page_of_another_guest(it):
    """An exported page of another guest is imported as a new, cleared page."""
    export(it, 4)
    assert bring_back(it, 4, vm=0) == (0, 1)
    assert it.touch(0, 4, length=PAGE_SIZE).data == bytes(PAGE_SIZE)
