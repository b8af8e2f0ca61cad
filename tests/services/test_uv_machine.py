"""The ultravisor's machine in the shared state: lost races, lost answers, turns; on a store in memory."""

import msgspec
import pytest

from services.ultravisor.commits import Part
from services.ultravisor.contents import Contents
from services.ultravisor.machine import KEY, Machines
from services.ultravisor.machine_state import decode, inject
from services.ultravisor.pages import Pages
from ultrafolio.model.layout import PAGE_SIZE, SECURE, UV_BUSY, UV_ERROR, UV_OK, blank
from ultrafolio.rpc.messages import laboratory_handle
from ultrafolio.rpc.v1 import ultravisor_pb2 as pb
from ultrafolio.state.crossing import Result
from ultrafolio.state.memory import Memory, MemoryStore
from ultrafolio.state.sections import Meta, split
from ultrafolio.state.store import Commit, Turn
from ultrafolio.uvcall import image
from ultrafolio.uvcall.calls import CALLS
from ultrafolio.uvcall.uvcb import pack, unpack
from ultravisor_harness import CONFIGURATION, HEADER, INIT

ORIGIN = 1 << 32


class Store(MemoryStore):
    """A store of keys. meanwhile: a change by another process just before the next swap;  deaf: whether the swap's
    answer is lost."""

    def __init__(self, memory):
        super().__init__(memory, "ultravisor")
        self.kept, self.meanwhile, self.deaf = None, None, False

    def get(self, key):
        assert key == KEY
        return self.kept

    def deleted(self, groups):
        return set()

    def swap(self, key, old, new):
        if self.meanwhile:
            change, self.meanwhile = self.meanwhile, None
            self.kept = change(decode(self.kept)).encode()
        if self.kept != old:
            return False
        self.kept = new
        deaf, self.deaf = self.deaf, False
        return not deaf  # the second try, for which the store returns False


class Bench:
    def __init__(self, folder):
        self.memory = Memory()
        self.store, self.contents = Store(self.memory), Contents(folder)
        state = blank(4, 1, 1)
        self.meta, parts = Meta(state.cfg, state.who, 1, [], ORIGIN, "a test"), split(state)
        self.store.create("g", {"uv": parts["uv"], "seal": self.meta.blank("seal").tobytes(), "pt": parts["pt"]}, b"")
        self.pages = Pages(self.store, self.contents, "g", self.meta)
        self.machines = Machines(self.store, self.contents, {"g": self.pages})

    @property
    def machine(self):
        return decode(self.store.kept)

    def execute(self, name, *, guest=None, part=None, operand=b"", request="", **fields):
        block = pack(name, **fields)
        asked = pb.ExecuteRequest(group="g", vm=0, control_block=block, operand=operand, request_id=request)
        return self.machines.execute(asked, guest, part)

    def ok(self, name, **more):
        answer = self.execute(name, **more)
        assert (answer.condition_code, unpack(answer.control_block).rc) == (0, 1)
        return unpack(answer.control_block).fields

    def turn(self):
        """A turn, as taken by another service."""
        turn = Turn("a token", "guest", 0, 0, 0)
        assert self.store.commit("g", Commit("1", "somebody", take=turn)).status == "done"
        return turn.token

    def journal(self):
        return [msgspec.msgpack.decode(entry, type=Result).code for entry in self.memory.groups["g"].journal]


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    bench.ok("initialise", **INIT)
    yield bench
    bench.contents.close()


@pytest.fixture
def guest(bench):
    """The handle of an unpacking guest, and its image, which is in its pages."""
    handle = bench.ok("create_configuration", **CONFIGURATION)["guest_handle"]
    made = image.seal(bytes(range(256)) * 32, [bench.machines.host_key])
    header = {"header_origin": HEADER["header_origin"], "header_len": len(made.header)}
    bench.ok("set_parameters", guest_handle=handle, operand=made.header, **header)
    for offset, data in image.pages_of(made.pages):
        bench.pages.access(None, [(offset // PAGE_SIZE, 0, 0, data)])
    return handle, made.tweak


def test_a_lost_race_does_a_call_once(bench, guest):
    """Another caller injects an answer while an image page is unpacked: both are stored, the page is measured once."""
    handle, tweak = guest
    bench.store.meanwhile = lambda machine: inject(machine, CALLS["export"].command, 2, 1)
    bench.ok("unpack", guest_handle=handle, gaddr=0, tweak=tweak, offset=0)
    assert bench.machine.configurations[handle].unpacked == 1 and len(bench.machine.injections) == 1
    bench.ok("unpack", guest_handle=handle, gaddr=PAGE_SIZE, tweak=tweak, offset=PAGE_SIZE)
    bench.ok("verify", guest_handle=handle)


def test_a_lost_answer_of_the_store(bench):
    """A swap is applied but reported as failed: nothing is created twice."""
    bench.store.deaf = True
    handle = bench.ok("create_configuration", **CONFIGURATION)["guest_handle"]
    assert list(bench.machine.configurations) == [handle] and bench.machine.issued == 1


def test_a_lost_answer_of_the_service(bench):
    """A repeated request of the same caller gets the first answer."""
    first = bench.execute("create_configuration", request="mine", **CONFIGURATION)
    assert bench.execute("create_configuration", request="mine", **CONFIGURATION) == first
    assert len(bench.machine.configurations) == 1
    theirs = bench.execute("create_configuration", request="mine", guest=0, **CONFIGURATION)
    assert unpack(theirs.control_block).rc == 0x0002 and not unpack(theirs.control_block).fields["guest_handle"]


@pytest.mark.parametrize("cc", [2, 3])
def test_busy_in_a_turn_is_in_the_journal_where_a_step_goes_on_with_it(bench, cc):
    handle = laboratory_handle("g", 0)
    for name, fields, journal in (
        ("export", {"paddr": ORIGIN}, []),
        ("pin", {"paddr": ORIGIN}, []),
        ("import", {"guest_handle": handle, "gaddr": 0}, [UV_BUSY]),
    ):
        bench.machines.inject(CALLS[name].command, 1, cc)
        part = Part(bench.turn() if name == "export" else "a token", 0)
        answer = bench.execute(name, part=part, **fields)
        assert (answer.condition_code, answer.result, bench.journal()) == (cc, UV_BUSY, journal)
    again = bench.execute("import", part=part, guest_handle=handle, gaddr=0)
    assert again.result == UV_BUSY and bench.journal() == [UV_BUSY]  # this index of the journal has its answer


def test_a_refusal_in_a_turn_is_an_error_to_its_step(bench):
    """Nothing was imported, and no result may claim it."""
    part = Part(bench.turn(), 0)
    refused = bench.execute("import", part=part, guest_handle=5, gaddr=0)
    assert (refused.condition_code, refused.result, bench.journal()) == (1, UV_ERROR, [UV_ERROR])
    good = bench.execute("import", part=part._replace(place=1), guest_handle=laboratory_handle("g", 0), gaddr=0)
    assert (good.condition_code, good.result, bench.journal()) == (0, UV_OK, [UV_ERROR, UV_OK])
    assert bench.memory.groups["g"].sections["uv"][0] == SECURE


def test_the_machine_outlives_the_process(bench, guest):
    handle, tweak = guest
    bench.ok("unpack", guest_handle=handle, gaddr=0, tweak=tweak, offset=0)
    pages = Pages(bench.store, bench.contents, "g", bench.meta)
    bench.machines = Machines(bench.store, bench.contents, {"g": pages})
    bench.ok("unpack", guest_handle=handle, gaddr=PAGE_SIZE, tweak=tweak, offset=PAGE_SIZE)
    bench.ok("verify", guest_handle=handle)
