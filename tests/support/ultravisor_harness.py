"""A machine under an ultravisor, for tests: one machine, the model's pages behind it, and calls that are checked."""

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from msgspec.structs import replace

from services.ultravisor import sie
from services.ultravisor.firmware import Firmware
from services.ultravisor.machine_state import BASE_STORAGE, GIB, MIB, Machine, inject
from ultrafolio.engine.interp import to_lists
from ultrafolio.engine.load import interpreted
from ultrafolio.model.layout import MAPPED, PAGE_SIZE, PGM_3D, blank
from ultrafolio.uvcall import image
from ultrafolio.uvcall.calls import BY_COMMAND, CALLS, CPU_LOAD, HOST
from ultrafolio.uvcall.uvcb import pack, unpack

RULES = interpreted()
PAGES_AT = GIB
"""Absolute address of page 0; a guest finds it at its own address 0."""

INIT = {"stor_origin": 2 * GIB, "stor_len": BASE_STORAGE}
CONFIGURATION = {
    "conf_base_stor": 256 * MIB, "conf_var_stor": 257 * MIB, "guest_stor_origin": 0, "guest_stor_len": 42 * MIB,
    "sca": 258 * MIB, "asce": 259 * MIB | 0x100,
}  # fmt: skip
ANOTHER = CONFIGURATION | {
    "conf_base_stor": 266 * MIB,
    "conf_var_stor": 267 * MIB,
    "sca": 268 * MIB,
    "asce": 269 * MIB | 0x100,
}
CPU = {"stor_origin": 260 * MIB, "number": 0, "state_origin": 261 * MIB}
SECOND_CPU = {"stor_origin": 270 * MIB, "number": 1, "state_origin": 271 * MIB}
PLAIN = bytes(range(256)) * 32
"""The image of the guests here: two pages."""
HOST_KEY = X25519PrivateKey.from_private_bytes(bytes(32))
SEALED = image.seal(PLAIN, [HOST_KEY.public_key().public_bytes_raw()])
HEADER = {"header_origin": 262 * MIB, "header_len": len(SEALED.header)}
HOST_CALLS = [name for name, call in CALLS.items() if call.installed and call.who == HOST]


class ModelPages:
    """The protocol `Pages` over the interpreter's state: every transition is a rule of the model."""

    def __init__(self, pages=8, vms=2, misc=0):
        self.state, self.misc = to_lists(blank(pages, 1, vms)), misc
        self.held = {page: SEALED.pages[offset:][:PAGE_SIZE] for page, offset in ((0, 0), (1, PAGE_SIZE))}

    def locate(self, address, of):
        page = (address - (PAGES_AT if of is None else 0)) // PAGE_SIZE
        if not 0 <= page < len(self.state.uv) or (of is not None and self.state.pt[page].present != MAPPED):
            return None
        return page

    def exception(self, of, page):
        return RULES.hw_guest(self.state, of.vm, page)

    def import_(self, of, page):
        return RULES.uv_import(self.state, of.vm, page, self.misc)

    def unpack(self, of, page, key, tweak, offset):
        self.held[page] = image.decrypt(key, tweak, offset, self.held[page])
        return RULES.uv_import(self.state, of.vm, page, self.misc)

    def content(self, page):
        return self.held[page]

    def unpin(self, of, page):
        return RULES.uv_unpin(self.state, of.vm, page)

    def share(self, of, page):
        return RULES.uv_share(self.state, of.vm, page)

    def unshare(self, of, page):
        return RULES.uv_unshare(self.state, of.vm, page)

    def export(self, page):
        return RULES.uv_export(self.state, page)

    def destroy(self, page):
        return RULES.uv_destroy(self.state, page)

    def pin(self, page):
        return RULES.uv_pin(self.state, page)

    def unshare_all(self, of):
        return RULES.uv_unshare_all(self.state, of.vm)

    def reset(self, of):
        return RULES.uv_reset(self.state, of.vm)

    def snapshot(self):
        return [(uv.state, uv.owner, uv.shared) for uv in self.state.uv]


class Bench:
    """A machine and its pages; `execute` commits what a call leaves behind.

    Tests that go through it run over gRPC too, on a bench of a cluster (test_uv_service.py): they change the
    machine by its methods only, and compare what was with what is.
    """

    def __init__(self, machine=None, **pages):
        self.machine, self.pages = machine or Machine(seed=b"test"), ModelPages(**pages)
        self.firmware = firmware(self.pages)
        self.origin, self.operand = PAGES_AT, SEALED.header

    def execute(self, block, caller=None, **rest):
        answer = self.firmware.execute(self.machine, block, caller, operand=self.operand, **rest)
        self.machine = answer.machine
        return answer

    def clear(self):
        self.machine = self.machine.clear()

    def inject(self, command, condition_code, count):
        self.machine = inject(self.machine, command, condition_code, count)

    def diagnose_308(self, guest, subcode):
        self.machine = sie.diagnose_308(self.machine, guest, subcode)

    def enter(self, guest, cpu, asce, prefix=0, running=()):
        """Start a processor whose prefix area is at the guest's address `prefix`."""
        of, first = self.machine.configurations.get(guest), prefix // PAGE_SIZE
        resident = of and all(not RULES.hw_guest(self.pages.state, of.vm, page) for page in (first, first + 1))
        return sie.enter(self.machine, guest, cpu, asce, bool(resident), running)

    def host_accesses(self, origin, length):
        """The exceptions of reading and of writing real storage outside of guests, page by page."""
        return {PGM_3D if self.machine.donated(at) else 0 for at in range(origin, origin + length, PAGE_SIZE)}

    def ok(self, name, caller=None, **fields):
        """The call succeeds, and changes nothing of the block but rc and the outputs. Returns the fields."""
        block = pack(name, **fields)
        answer = self.execute(block, caller)
        read = unpack(answer.block)
        assert (answer.cc, read.rc, answer.interruption, answer.interception) == (0, 1, 0, 0), (name, hex(read.rc))
        for key in CALLS[name].inputs:
            assert read.fields[key] == fields.get(key, 0)
        return read.fields

    def refused(self, rc, name, caller=None, *, length=None, cpus_running=1, **fields):
        """The call fails with `rc` and changes nothing but that: block, machine and pages stay as they were."""
        block, before, pages = pack(name, length=length, **fields), self.machine, self.pages.snapshot()
        answer = self.execute(block, caller, cpus_running=cpus_running)
        read = unpack(answer.block)
        assert (answer.cc, answer.interruption) == (1, 0)
        assert read.rc in rc if isinstance(rc, (range, tuple)) else read.rc == rc, (name, hex(read.rc))
        assert BY_COMMAND[read.command].returns(read.rc)
        assert answer.block[:4] + bytes(4) + answer.block[8:] == block
        assert self.machine == before and self.pages.snapshot() == pages

    def created(self, cpus=1, **configuration):
        """Initialised, with a configuration and a processor; their handles."""
        if self.machine.base is None:
            self.ok("initialise", **INIT)
        guest = self.ok("create_configuration", **(configuration or CONFIGURATION))["guest_handle"]
        return guest, self.ok("create_cpu", guest_handle=guest, **CPU)["cpu_handle"]

    def booted(self):
        """A guest that is ready to run."""
        guest, cpu = self.created()
        self.ok("set_parameters", guest_handle=guest, **HEADER)
        for page in range(2):
            self.ok("unpack", guest_handle=guest, gaddr=page * PAGE_SIZE, tweak=SEALED.tweak, offset=page * PAGE_SIZE)
        self.ok("verify", guest_handle=guest)
        self.ok("cpu_set_state", cpu_handle=cpu, state=CPU_LOAD)
        return guest, cpu

    def asce(self, guest):
        return self.machine.configurations[guest].asce


def firmware(pages):
    return Firmware(pages, lambda header: image.open_header(header, HOST_KEY))


def blocks(guest, cpu, origin=PAGES_AT):
    """A well-formed block of every installed call, against a machine with this guest and processor."""
    handles = {"guest_handle": guest, "cpu_handle": cpu}
    fields = {
        "initialise": INIT, "create_configuration": ANOTHER, "create_cpu": SECOND_CPU, "set_parameters": HEADER,
        "import": {"gaddr": PAGE_SIZE}, "unpin": {"gaddr": PAGE_SIZE}, "unpack": {"gaddr": PAGE_SIZE, "tweak": 7},
        "export": {"paddr": origin}, "destroy_page": {"paddr": origin}, "pin": {"paddr": origin},
        "share": {"paddr": PAGE_SIZE}, "unshare": {"paddr": PAGE_SIZE}, "cpu_set_state": {"state": CPU_LOAD},
    }  # fmt: skip
    made = {}
    for name, call in CALLS.items():
        if call.installed:
            known = {key: value for key, value in handles.items() if key in call.inputs}
            made[name] = pack(name, **known, **fields.get(name, {}))
    return made


def changed(machine, handle, **fields):
    """The machine with other values in a configuration."""
    return machine.put(replace(machine.configurations[handle], **fields))
