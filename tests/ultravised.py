"""A machine under an ultravisor, for tests: one machine, the model's pages behind it, and calls that are checked."""

from msgspec.structs import replace

from services.ultravisor.firmware import Firmware
from services.ultravisor.inventory import BASE_STORAGE, GIB, MIB, PAGE, Machine
from ultrafolio.engine.interp import to_lists
from ultrafolio.engine.load import interpreted
from ultrafolio.model.layout import MAPPED, blank
from ultrafolio.rpc.uvcb import pack, unpack
from ultrafolio.rpc.uvcb_calls import BY_COMMAND, CALLS, CPU_LOAD, HOST

RULES = interpreted()
PAGES_AT = GIB
"""Absolute address of page 0; a guest finds it at its own address 0."""

INIT = {"stor_origin": 2 * GIB, "stor_len": BASE_STORAGE}
CONFIGURATION = {
    "conf_base_stor": 256 * MIB, "conf_var_stor": 257 * MIB, "guest_stor_origin": 0, "guest_stor_len": 42 * MIB,
    "sca": 258 * MIB, "asce": 259 * MIB | 0x100,
}  # fmt: skip
ANOTHER = CONFIGURATION | {
    "conf_base_stor": 266 * MIB, "conf_var_stor": 267 * MIB, "sca": 268 * MIB, "asce": 269 * MIB | 0x100,
}  # fmt: skip
CPU = {"stor_origin": 260 * MIB, "number": 0, "state_origin": 261 * MIB}
SECOND_CPU = {"stor_origin": 270 * MIB, "number": 1, "state_origin": 271 * MIB}
HEADER = {"header_origin": 262 * MIB, "header_len": 0x280}
HOST_CALLS = [name for name, call in CALLS.items() if call.installed and call.who == HOST]


class ModelPages:
    """The protocol `Pages` over the interpreter's state: every transition is a rule of the model."""

    def __init__(self, pages=8, vms=2, misc=0):
        self.state, self.misc = to_lists(blank(pages, 1, vms)), misc

    def locate(self, address, vm):
        page = (address - (PAGES_AT if vm is None else 0)) // PAGE
        if not 0 <= page < len(self.state.uv) or (vm is not None and self.state.pt[page].present != MAPPED):
            return None
        return page

    def import_(self, vm, page):
        return RULES.uv_import(self.state, vm, page, self.misc)

    def unpack(self, vm, page, tweak, offset):
        return RULES.uv_import(self.state, vm, page, self.misc)

    def unpin(self, vm, page):
        return RULES.uv_unpin(self.state, vm, page)

    def share(self, vm, page):
        return RULES.uv_share(self.state, vm, page)

    def unshare(self, vm, page):
        return RULES.uv_unshare(self.state, vm, page)

    def export(self, page):
        return RULES.uv_export(self.state, page)

    def destroy(self, page):
        return RULES.uv_destroy(self.state, page)

    def pin(self, page):
        return RULES.uv_pin(self.state, page)

    def unshare_all(self, vm):
        return RULES.uv_unshare_all(self.state, vm)

    def snapshot(self):
        return [(uv.state, uv.owner, uv.shared) for uv in self.state.uv]


class Bench:
    """A machine and its pages; `call` commits what a call leaves behind."""

    def __init__(self, machine=None, **pages):
        self.machine, self.pages = machine or Machine(seed=b"test"), ModelPages(**pages)
        self.firmware = Firmware(self.pages)

    def execute(self, block, caller=None, **rest):
        answer = self.firmware.execute(self.machine, block, caller, **rest)
        self.machine = answer.machine
        return answer

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
        assert self.machine is before and self.pages.snapshot() == pages

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
            self.ok("unpack", guest_handle=guest, gaddr=page * PAGE, tweak=7, offset=page * PAGE)
        self.ok("verify", guest_handle=guest)
        self.ok("cpu_set_state", cpu_handle=cpu, state=CPU_LOAD)
        return guest, cpu

    def asce(self, guest):
        return self.machine.configurations[guest].asce


def blocks(guest, cpu):
    """A well-formed block of every installed call, against a machine with this guest and processor."""
    handles = {"guest_handle": guest, "cpu_handle": cpu}
    fields = {
        "initialise": INIT, "create_configuration": ANOTHER, "create_cpu": SECOND_CPU, "set_parameters": HEADER,
        "import": {"gaddr": PAGE}, "unpin": {"gaddr": PAGE}, "unpack": {"gaddr": PAGE, "tweak": 7},
        "export": {"paddr": PAGES_AT}, "destroy_page": {"paddr": PAGES_AT}, "pin": {"paddr": PAGES_AT},
        "share": {"paddr": PAGE}, "unshare": {"paddr": PAGE}, "cpu_set_state": {"state": CPU_LOAD},
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
