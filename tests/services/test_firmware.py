"""The ultravisor call: every block gets an answer, a refusal changes nothing, donated storage never overlaps."""

import itertools
import random
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from msgspec.structs import replace

from services.ultravisor.machine_state import GIB, MIB, RESET_ASKED, Machine, Storage, decode, inject, laboratory
from services.ultravisor.sie import diagnose_308, enter
from ultrafolio.errors import InputError
from ultrafolio.model.layout import EXPORTED, MAPPED, PAGE_SIZE, SECURE, SHARED, UNMAPPED, UV_BUSY, UV_INTEGRITY
from ultrafolio.uvcall.calls import BY_COMMAND, CALLS, CPU_LOAD, CPU_OPERATING, CPU_STOPPED
from ultrafolio.uvcall.uvcb import pack, unpack
from ultravisor_harness import (
    ANOTHER,
    CONFIGURATION,
    CPU,
    HEADER,
    INIT,
    PAGES_AT,
    SEALED,
    SECOND_CPU,
    Bench,
    blocks,
    changed,
)


def fresh():
    return Bench(), 0, 0


def created():
    bench = Bench()
    return bench, *bench.created()


def booted():
    bench = Bench()
    guest, cpu = bench.booted()
    bench.ok("share", guest, paddr=PAGE_SIZE)
    bench.ok("import", guest_handle=guest, gaddr=2 * PAGE_SIZE)
    bench.ok("export", paddr=PAGES_AT + 2 * PAGE_SIZE)
    return bench, guest, cpu


STAGES = {"fresh": fresh, "created": created, "booted": booted}


def judge(bench, block, caller):
    """Execute a block and check the answer's invariants. Pages may change with cc 0 only."""
    before, kept, pages = bench.machine, bench.machine.encode(), bench.pages.snapshot()
    answer = bench.firmware.execute(before, block, caller, operand=SEALED.header)
    assert before.encode() == kept
    assert len(answer.block) == len(block) and 0 <= answer.cc <= 3
    if answer.interruption or answer.interception or answer.cc > 1:
        assert answer.block == block
    else:
        read = unpack(answer.block)
        call = BY_COMMAND.get(read.command)
        assert read.rc == 0x0002 if call is None else call.returns(read.rc), (read, hex(read.rc))
        assert answer.cc == (read.rc != 0x0001)
        assert answer.block[:4] == block[:4]
        if read.rc != 0x0100:
            fields = call.outputs.values() if call else ()
            outputs = {at for field in fields for at in range(field.offset, field.offset + field.width)}
            differ = {at for at in range(8, len(block)) if answer.block[at] != block[at]}
            assert differ <= (set() if answer.cc else outputs)
    if answer.cc or answer.interruption or answer.interception:
        assert answer.machine is before and bench.pages.snapshot() == pages
    assert decode(answer.machine.encode()) == answer.machine
    return answer


@pytest.mark.parametrize("stage", STAGES)
@settings(max_examples=150, deadline=None, derandomize=True)
@given(block=st.binary(max_size=0x130), as_guest=st.booleans(), command=st.sampled_from([None, *BY_COMMAND]))
def test_any_bytes_are_answered(stage, block, as_guest, command):
    bench, guest, _ = STAGES[stage]()
    if command is not None and len(block) >= 8:  # with a header that leads further in
        length = min(len(block), BY_COMMAND[command].length)
        block = length.to_bytes(2, "big") + command.to_bytes(2, "big") + block[4:]
    judge(bench, block, guest if as_guest else None)


def mutated(choose, block):
    """Returns a valid block with a fault: bits, bytes, a number, its length, its command, truncated or extended."""
    data = bytearray(block)
    for _ in range(choose.randint(1, 3)):
        kind = choose.randrange(6)
        at = choose.randrange(len(data))
        if kind == 0:
            data[at] ^= 1 << choose.randrange(8)
        elif kind == 1:
            data[at] = choose.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2 and len(data) >= 0x20:
            at = choose.randrange(0x18, len(data) - 7, 8)
            value = choose.choice(
                (0, PAGE_SIZE - 1, PAGE_SIZE, INIT["stor_origin"], 4 * GIB, 1 << 63, -PAGE_SIZE, -1)
            ) % (1 << 64)
            data[at : at + 8] = value.to_bytes(8, "big")
        elif kind == 3:
            data[:2] = (max(0, len(data) + choose.choice((-8, -1, 1, 8)))).to_bytes(2, "big")
        elif kind == 4:
            data[2:4] = choose.choice(list(BY_COMMAND)).to_bytes(2, "big")
        else:
            data = data[: choose.randrange(8, len(data) + 1)] + choose.randbytes(choose.randrange(9))
    return bytes(data)


@pytest.mark.parametrize("thousands", [1, pytest.param(200, marks=pytest.mark.slow)])
def test_fuzzed_blocks_harm_nothing(thousands):
    """Derived from valid blocks by mutation; most are refused."""
    choose, refused = random.Random(thousands), 0
    for _ in range(40 * thousands):
        bench, guest, cpu = choose.choice(list(STAGES.values()))()
        for name, block in choose.choices(list(blocks(guest, cpu).items()), k=25):
            answer = judge(bench, mutated(choose, block), guest if CALLS[name].who == "guest" else None)
            refused += bool(answer.cc or answer.interruption)
    assert 500 * thousands < refused < 1000 * thousands  # some mutants are harmless: they are executed


def test_a_valid_block_of_every_call_is_executed_somewhere():
    """The blocks that the fuzz mutates are valid: each succeeds in a stage, or after the call that it needs."""
    done = set()
    for make in STAGES.values():
        for name in CALLS:
            bench, guest, cpu = make()
            if not CALLS[name].installed:
                continue
            if name == "destroy_configuration" or name == "destroy_configuration_fast":
                bench.execute(pack("destroy_cpu", cpu_handle=cpu))
            if name in ("unshare_all", "prepare_reset", "cpu_reset", "cpu_reset_initial", "cpu_reset_clear"):
                bench.execute(pack("cpu_set_state", cpu_handle=cpu, state=CPU_STOPPED))
            if name == "prepare_reset":
                bench.execute(pack("unshare_all", guest_handle=guest))
            if name in ("verify", "unpack"):
                bench.execute(pack("set_parameters", guest_handle=guest, **HEADER))
            if name == "verify":
                for offset in (0, PAGE_SIZE):
                    where = {"gaddr": offset, "tweak": SEALED.tweak, "offset": offset}
                    bench.execute(pack("unpack", guest_handle=guest, **where))
            if name == "pin":
                bench.execute(pack("share", paddr=0), guest)
            answer = judge(bench, blocks(guest, cpu)[name], guest if CALLS[name].who == "guest" else None)
            done |= {name} if (answer.cc, answer.interruption) == (0, 0) else set()
    assert done == {name for name, call in CALLS.items() if call.installed}


@pytest.mark.parametrize("handle", ["guest_handle", "cpu_handle"])
def test_64_single_bit_flips_of_a_handle(handle):
    bench, guest, cpu = booted()
    name, value, rc = ("prepare_reset", guest, 0x20) if handle == "guest_handle" else ("destroy_cpu", cpu, 0x21)
    for bit in range(64):
        bench.refused(rc, name, **{handle: value ^ 1 << bit})


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.binary(max_size=8), st.integers(0, 1 << 40))
def test_handles_are_deterministic_and_far_apart(seed, issued):
    machine, handles = Machine(seed=seed, issued=issued), []
    for _ in range(4):
        handle, machine = machine.handle()
        handles.append(handle)
    again, _ = Machine(seed=seed, issued=issued).handle()
    assert again == handles[0] and len(set(handles)) == 4 and all(0 < h < 1 << 64 for h in handles)


def test_a_handle_beside_one_in_use_is_passed_over():
    first, _ = Machine(seed=b"s").handle()
    bench, guest, _ = created()
    configuration = bench.machine.configurations[guest]
    for near in (first, first ^ 1 << 40, first + 1):
        machine = Machine(seed=b"s", configurations={near: configuration})
        assert machine.handle()[0] == Machine(seed=b"s", issued=1).handle()[0] != first


# The life cycle at random, over few places, so that storages meet.
PLACES = st.integers(-2, 40).map(lambda n: 2 * GIB + 128 * MIB + n * 8 * PAGE_SIZE)


class Life(RuleBasedStateMachine):
    seen: ClassVar = set()

    def __init__(self):
        super().__init__()
        self.bench, self.asces = Bench(), itertools.count(1)
        self.bench.created()

    def send(self, name, **fields):
        answer = judge(self.bench, pack(name, **fields), None)
        self.bench.machine = answer.machine
        self.seen.add((name, answer.cc))

    @rule(base=PLACES, variable=PLACES, sca=PLACES, size=st.sampled_from([PAGE_SIZE, MIB, 20 * MIB]))
    def create_configuration(self, base, variable, sca, size):
        self.send(
            "create_configuration",
            conf_base_stor=base,
            conf_var_stor=variable,
            sca=sca,
            guest_stor_len=size,
            asce=next(self.asces) << 12 | 0x100,
        )

    @precondition(lambda self: self.bench.machine.configurations)
    @rule(data=st.data(), storage=PLACES, state=PLACES, number=st.integers(0, 3))
    def create_cpu(self, data, storage, state, number):
        guest = data.draw(st.sampled_from(sorted(self.bench.machine.configurations)))
        self.send("create_cpu", guest_handle=guest, stor_origin=storage, state_origin=state, number=number)

    @precondition(lambda self: self.bench.machine.configurations)
    @rule(
        data=st.data(),
        name=st.sampled_from(
            ["destroy_configuration", "destroy_configuration_fast", "unshare_all", "prepare_reset", "verify"]
        ),
    )
    def of_configuration(self, data, name):
        self.send(name, guest_handle=data.draw(st.sampled_from(sorted(self.bench.machine.configurations))))

    @precondition(lambda self: self.bench.machine.cpus)
    @rule(data=st.data(), name=st.sampled_from(["destroy_cpu", "cpu_reset_initial", "cpu_set_state"]))
    def of_cpu(self, data, name):
        state = {"state": data.draw(st.sampled_from([1, 2, 3, 5]))} if name == "cpu_set_state" else {}
        self.send(name, cpu_handle=data.draw(st.sampled_from(sorted(self.bench.machine.cpus))), **state)

    @invariant()
    def donated_storages_are_apart(self):
        machine, storages = self.bench.machine, list(self.bench.machine.storages())
        assert not any(one.overlaps(other) for one, other in itertools.combinations(storages, 2))
        assert all(machine.donated(one.origin) and machine.donated(one.end - 1) for one in storages)

    @invariant()
    def everything_belongs_to_something(self):
        machine = self.bench.machine
        assert all(cpu.configuration in machine.configurations for cpu in machine.cpus.values())
        assert len({c.vm for c in machine.configurations.values()}) == len(machine.configurations)
        assert decode(machine.encode()) == machine


def test_donated_storage_never_overlaps():
    run_state_machine_as_test(
        Life, settings=settings(max_examples=50, stateful_step_count=25, deadline=None, derandomize=True)
    )
    assert Life.seen >= {(name, cc) for name in ("create_configuration", "create_cpu") for cc in (0, 1)}
    assert Life.seen >= {(name, 0) for name in ("destroy_configuration", "destroy_cpu", "cpu_set_state", "unshare_all")}


@pytest.mark.parametrize("name", [name for name, call in CALLS.items() if call.installed and name != "query"])
def test_a_block_too_long_is_refused(name):
    bench, guest, cpu = booted()
    block = blocks(guest, cpu)[name] + bytes(8)
    block = len(block).to_bytes(2, "big") + block[2:]
    answer = judge(bench, block, guest if CALLS[name].who == "guest" else None)
    assert unpack(answer.block).rc == 0x0005


def test_pages_that_are_busy():
    """Busy of a page is a condition code; the block can be repeated unchanged."""
    bench, guest, _ = booted()
    bench.pages.pin = lambda page: UV_BUSY
    block = pack("pin", paddr=PAGES_AT)
    answer = judge(bench, block, None)
    assert (answer.cc, answer.block, answer.result) == (2, block, UV_BUSY)


def test_page_calls_in_words_of_rc():
    """Not mapped, altered, not shared, of another guest: rc 0x10a, and the two that sources do not publish."""
    bench, guest, _ = booted()
    state = bench.pages.state
    state.pt[3].present = UNMAPPED
    for name in ("import", "unpin"):
        bench.refused(0x10A, name, guest_handle=guest, gaddr=3 * PAGE_SIZE)
        bench.refused(0x10A, name, guest_handle=guest, gaddr=9 * PAGE_SIZE)
        bench.refused(0x101, name, guest_handle=guest, gaddr=PAGE_SIZE + 1)
        bench.refused(0x101, name, guest_handle=guest, gaddr=42 * MIB)
    answer = bench.execute(pack("share", paddr=3 * PAGE_SIZE), guest)
    assert (answer.interruption, answer.machine) == (0x11, bench.machine)
    state.pt[3].present = MAPPED
    state.mm[2].altered = 1
    bench.refused(0x112, "import", guest_handle=guest, gaddr=2 * PAGE_SIZE)
    assert bench.execute(pack("import", guest_handle=guest, gaddr=2 * PAGE_SIZE)).result == UV_INTEGRITY
    other = bench.ok("create_configuration", **ANOTHER)["guest_handle"]
    bench.refused(0x111, "import", guest_handle=other, gaddr=0)
    bench.refused(0x111, "unpack", guest_handle=guest, gaddr=0)  # its image is verified
    bench.refused(0x101, "export", paddr=4 * GIB)
    bench.refused(0x101, "export", paddr=PAGES_AT + 1)
    assert [uv.state for uv in state.uv[:3]] == [SECURE, SHARED, EXPORTED]


def test_numbers_of_guests():
    """By default the next, never a used one, whose pages may exist; or the requested one."""
    bench = Bench()
    bench.ok("initialise", **INIT)
    first = bench.ok("create_configuration", **CONFIGURATION)["guest_handle"]
    bench.ok("destroy_configuration_fast", guest_handle=first)
    second = bench.ok("create_configuration", **CONFIGURATION)["guest_handle"]
    assert bench.machine.configurations[second].vm == 1
    asked = bench.firmware.execute(bench.machine, pack("create_configuration", **ANOTHER), vm=5)
    assert [c.vm for c in asked.machine.configurations.values()] == [1, 5] and asked.machine.vms == 6
    asked = bench.firmware.execute(bench.machine, pack("create_configuration", **ANOTHER), vm=0)
    assert [c.vm for c in asked.machine.configurations.values()] == [1, 0] and asked.machine.vms == 2
    given = bench.machine.configurations[second]
    bench.machine = bench.machine.replace(vms=256)
    bench.refused(0x10F, "create_configuration", **ANOTHER)
    bench.machine = bench.machine.put(*(replace(given, handle=n, asce=n) for n in range(254)))
    many = bench.firmware.execute(bench.machine, pack("create_configuration", **ANOTHER), vm=0)
    assert unpack(many.block).rc == 0x10F
    with pytest.raises(InputError):
        bench.firmware.execute(bench.machine, pack("query"), vm=256)


def test_order_of_checks():
    """The first of several faults decides (kernel §1.5)."""
    bench, guest, cpu = created()
    machine = Machine()
    wrong = pack("destroy_cpu", length=0x38, cpu_handle=cpu + 1)
    execute = bench.firmware.execute
    bogus = wrong[:2] + b"\x42\x42" + wrong[4:]
    assert execute(machine, bogus[:20], m3=1, problem_state=True).interruption == 0x02
    assert execute(machine, bogus[:20], m3=1).interruption == 0x06
    assert execute(machine, bogus[:20]).interruption == 0x11
    found = [
        unpack(execute(m, block).block).rc
        for m, block in (
            (machine, bogus),
            (machine, wrong),
            (bench.machine, wrong),
            (bench.machine, pack("create_cpu", guest_handle=guest ^ 8, **SECOND_CPU | {"number": 999})),
            (bench.machine, pack("create_cpu", guest_handle=guest, **SECOND_CPU | {"number": 999})),
        )
    ]
    assert found == [0x0002, 0x0003, 0x0005, 0x0020, 0x0103]


def test_life_of_an_image():
    """Unpack needs a header, verify ends it, and only then does a processor run."""
    bench, guest, cpu = created()
    bench.refused(0x111, "unpack", guest_handle=guest, gaddr=0)
    bench.refused(0x111, "verify", guest_handle=guest)
    bench.ok("set_parameters", guest_handle=guest, **HEADER)
    bench.refused(0x111, "set_parameters", guest_handle=guest, **HEADER)
    for offset in (0, 0, PAGE_SIZE):  # the same page again, as after a lost answer, is the same page
        bench.refused(0x112, "verify", guest_handle=guest)
        bench.ok("unpack", guest_handle=guest, gaddr=offset, tweak=SEALED.tweak, offset=offset)
    bench.ok("cpu_set_state", cpu_handle=cpu, state=CPU_LOAD)
    assert enter(bench.machine, guest, cpu, bench.asce(guest), True) == 0x20
    bench.ok("verify", guest_handle=guest)
    bench.refused(0x111, "verify", guest_handle=guest)
    bench.refused(0x111, "cpu_reset", cpu_handle=cpu)  # it operates
    assert enter(bench.machine, guest, cpu, bench.asce(guest), True) == 0


def test_reset_waits_for_every_processor():
    bench, guest, cpu = booted()
    second = bench.ok("create_cpu", guest_handle=guest, **SECOND_CPU)["cpu_handle"]
    bench.ok("cpu_set_state", cpu_handle=second, state=CPU_OPERATING)
    bench.ok("cpu_set_state", cpu_handle=cpu, state=CPU_STOPPED)
    pages = bench.pages.snapshot()
    bench.refused(0x111, "unshare_all", guest_handle=guest)
    assert bench.pages.snapshot() == pages and SHARED in [state for state, _, _ in pages]
    bench.ok("cpu_set_state", cpu_handle=second, state=CPU_STOPPED)
    bench.ok("unshare_all", guest_handle=guest)
    assert SHARED not in [state for state, _, _ in bench.pages.snapshot()]
    bench.ok("prepare_reset", guest_handle=guest)
    bench.ok("cpu_reset", cpu_handle=second)
    bench.refused(0x111, "cpu_set_state", cpu_handle=second, state=CPU_LOAD)  # a plain reset is not enough
    bench.ok("cpu_reset_initial", cpu_handle=cpu)
    bench.ok("cpu_set_state", cpu_handle=cpu, state=CPU_LOAD)
    bench.ok("cpu_set_state", cpu_handle=second, state=CPU_OPERATING)
    bench.refused(0x101, "cpu_set_state", cpu_handle=second, state=4)


def test_a_laboratory_machine_runs_page_calls():
    machine = laboratory({77: (0, Storage(0, 8 * PAGE_SIZE)), 99: (1, Storage(0, 8 * PAGE_SIZE))})
    bench = Bench(machine)
    bench.ok("import", guest_handle=99, gaddr=PAGE_SIZE)
    bench.ok("share", 99, paddr=PAGE_SIZE)
    bench.refused(0x20, "import", guest_handle=78, gaddr=0)
    assert (bench.pages.state.uv[1].owner, bench.pages.state.uv[1].state) == (1, SHARED)
    assert not machine.donated(0) and not machine.donated(4 * GIB - 1) and decode(machine.encode()) == machine


@pytest.mark.parametrize(
    "wrong",
    [
        lambda machine: inject(machine, 0x4242, 2, 1),
        lambda machine: inject(machine, CALLS["attest"].command, 2, 1),
        lambda machine: inject(machine, 0x0200, 1, 1),
        lambda machine: inject(machine, 0x0200, 2, -1),
        lambda machine: diagnose_308(machine, 5, 0),
        lambda machine: diagnose_308(machine, 5, 2),
        lambda machine: decode(b"\x00"),
    ],
)
def test_misuse_is_refused(wrong):
    with pytest.raises(InputError):
        wrong(Machine())


def test_injections_count_down_and_are_taken_back():
    machine = inject(inject(Machine(), 0x0200, 3, 2), 0x0200, 2, 1)
    assert len(machine.injections) == 1 and not inject(machine, 0x0200, 2, 0).injections
    bench, guest, _ = created()
    asked = changed(bench.machine, guest, reset=RESET_ASKED)
    assert diagnose_308(bench.machine, guest, 1) == asked != bench.machine
    assert CPU["stor_origin"] in [storage.origin for storage in asked.storages()]
