"""The ultravisor's conformance case 1 to 22, by number, as kvm-unit-tests asks them.

Outside: 19 (attestation is not installed: the answer is 0x0002 and the bit is clear, see case 5).
"""

import pytest

from services.ultravisor.lifecycle import variable_length
from services.ultravisor.machine_state import (
    CONFIGURATION_BASE,
    CPU_STORAGE,
    GIB,
    MAX_CPU_NUMBER,
    MAX_GUEST_ADDRESS,
    MIB,
)
from services.ultravisor.sie import PREFIX, VALIDITY
from ultrafolio.model.layout import EXPORTED, NON_SECURE, PAGE_SIZE, PGM_3D, PINNED_SHARED, SECURE, SHARED, UV_BUSY
from ultrafolio.uvcall import image
from ultrafolio.uvcall.calls import CALLS, CPU_LOAD, CPU_OPERATING, CPU_STOPPED
from ultrafolio.uvcall.uvcb import pack, unpack
from ultravisor_harness import ANOTHER, CONFIGURATION, CPU, HEADER, HOST_CALLS, INIT, PLAIN, SECOND_CPU, Bench, blocks

RAM = 4 * GIB
GUEST_CALLS = ["query", "share", "unshare"]


def bad_headers(good):
    """Cut short; of another machine; altered in magic, slots, key, end."""
    yield 0x103, good[:-1]
    yield 0x108, image.seal(PLAIN, [b"\x09" + bytes(31)]).header
    for at in (0, 8, 100, len(good) - 1):
        yield 0x112, good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :]


def rc(answer):
    return unpack(answer.block).rc


@pytest.mark.parametrize("name", [name for name in HOST_CALLS if name != "initialise"])
def test_1_uninitialized(name):
    """uv-host test_uv_uninitialized: a zeroed block of the right length."""
    Bench().refused(0x0003, name)


@pytest.mark.parametrize("caller", ["host", "guest"])
@pytest.mark.parametrize("name", [*HOST_CALLS, *GUEST_CALLS, "attest"])
def test_2_priv(name, caller):
    """uv-host and uv-guest test_priv: before anything else, even a wrong M3 field and an unreadable block."""
    bench = Bench()
    guest, _ = bench.created()
    block = pack(name)
    for given in (block, block[:8], b""):
        before = bench.machine
        answer = bench.execute(given, guest if caller == "guest" else None, problem_state=True, m3=2)
        assert (answer.interruption, answer.block, answer.result) == (0x02, given, None)
        assert bench.machine == before


@pytest.mark.parametrize("m3", [4, 2])
def test_3_i3(m3):
    """uv-host test_i3: a specification exception, before the block is looked at."""
    bench = Bench()
    for given in (pack("initialise", **INIT), b""):
        answer = bench.execute(given, m3=m3)
        assert (answer.interruption, answer.block, bench.machine.base) == (0x06, given, None)


@pytest.mark.parametrize("name", [*HOST_CALLS, "query"])
def test_4_access(name):
    """uv-host test_access: block on an invalid page, header on a valid one and the rest not (crossing)."""
    bench = Bench()
    block = blocks(*bench.created(), bench.origin)[name]
    before, pages = bench.machine, bench.pages.snapshot()
    for cut in (0, 7, 8, len(block) - 1):
        answer = bench.execute(block[:cut])
        assert (answer.interruption, answer.block) == (0x11, block[:cut])
    assert bench.machine == before and bench.pages.snapshot() == pages


def bits(bench, caller=None):
    return bench.ok("query", caller)["calls"]


@pytest.mark.parametrize("initialised", [False, True])
def test_5_invalid_on_the_host(initialised):
    """uv-host test_invalid: bogus, share, unshare, attest and what else is not installed."""
    bench = Bench()
    if initialised:
        bench.created()
    answer = bench.execute(bytes.fromhex("0008 4242 0000 0000"))
    assert (answer.cc, answer.block) == (1, bytes.fromhex("0008 4242 0002 0000"))
    told = bits(bench)
    for name, call in CALLS.items():
        if not call.installed or call.who == "guest":
            bench.refused(0x0002, name)
            assert call.bit is None or not told >> (255 - call.bit) & 1
        else:
            assert call.bit is None or told >> (255 - call.bit) & 1


def test_5_invalid_in_the_guest():
    """uv-guest test_invalid: every host call; share and unshare bits are set, and equal."""
    bench = Bench()
    guest, cpu = bench.created()
    for name in HOST_CALLS:
        before = bench.machine
        answer = bench.execute(blocks(guest, cpu, bench.origin)[name], guest)
        assert (answer.cc, rc(answer), bench.machine) == (1, 0x0002, before)
        assert CALLS[name].bit is None or not bits(bench, guest) >> (255 - CALLS[name].bit) & 1
    assert [bits(bench, guest) >> (255 - bit) & 1 for bit in (0, 8, 9)] == [1, 1, 1]


def test_6_query():
    """uv-host test_query: too short, the minimum, the full lengths of kernel and kvm-unit-tests."""
    bench = Bench()
    bench.refused(0x0005, "query", length=0xA0)
    short = bench.execute(pack("query", length=0xA8))
    assert (short.cc, rc(short)) == (1, 0x0100)
    assert "features" in unpack(short.block).fields and "header_versions" not in unpack(short.block).fields
    for length in (0x100, 0x120):
        full = bench.execute(pack("query", length=length))
        told = unpack(full.block)
        assert (full.cc, told.rc) == (0, 0x0001)
        assert (told.fields["max_guest_cpu_id"], told.fields["uv_base_stor_len"]) == (MAX_CPU_NUMBER, INIT["stor_len"])
        assert told.fields["calls"] == unpack(short.block).fields["calls"] != 0


@pytest.mark.parametrize(
    ("expected", "fields", "how"),
    [
        pytest.param(0x005, {}, {"length": 0x40}, id="hdr invalid length"),
        pytest.param(0x103, {"stor_len": INIT["stor_len"] - 8}, {}, id="storage invalid length"),
        pytest.param((0x104, 0x105), {"stor_origin": RAM}, {}, id="storage origin is the end"),
        pytest.param(0x104, {"stor_origin": RAM + 8}, {}, id="storage origin invalid"),
        pytest.param(0x105, {"stor_origin": RAM - MIB}, {}, id="storage + length invalid"),
        pytest.param(0x105, {"stor_origin": RAM - 8}, {}, id="storage + length invalid, unaligned"),
        pytest.param(0x108, {"stor_origin": GIB}, {}, id="storage below 2GB"),
        pytest.param(0x104, {"stor_origin": 2 * GIB + PAGE_SIZE}, {}, id="storage not on 1 MiB"),
        pytest.param(0x102, {}, {"cpus_running": 2}, id="too many running cpus"),
    ],
)
def test_7_init(expected, fields, how):
    """uv-host test_init, each against a machine where the good call then succeeds once."""
    bench = Bench()
    bench.refused(expected, "initialise", **how, **(INIT | fields))
    bench.ok("initialise", **INIT)
    bench.refused(0x101, "initialise", **INIT)


@pytest.mark.parametrize(
    ("expected", "fields", "how"),
    [
        pytest.param(0x005, {}, {"length": 0x78}, id="hdr invalid length"),
        pytest.param(0x101, {"guest_stor_origin": MAX_GUEST_ADDRESS + 2 * MIB + 1}, {}, id="MSO > max guest addr"),
        pytest.param(0x102, {"guest_stor_origin": MAX_GUEST_ADDRESS - MIB}, {}, id="MSO + MSL > max guest addr"),
        pytest.param(0x105, {"asce": CONFIGURATION["asce"] & ~0x100}, {}, id="ASCE private bit missing"),
        pytest.param(0x105, {"asce": CONFIGURATION["asce"] | 0x20}, {}, id="ASCE bit 58 set"),
        pytest.param(0x108, {"conf_base_stor": RAM + 8}, {}, id="base storage origin > available memory"),
        pytest.param(0x109, {"conf_base_stor": 0x1000}, {}, id="base storage origin contains lowcore"),
        pytest.param(0x10E, {"conf_var_stor": 0x1000}, {}, id="variable storage area contains lowcore"),
        pytest.param(0x10C, {"sca": 0}, {}, id="sca == 0"),
        pytest.param(0x10D, {"sca": RAM + 4 * PAGE_SIZE}, {}, id="sca inaccessible"),
        pytest.param(0x10A, {"conf_base_stor": INIT["stor_origin"]}, {}, id="base storage donated"),
        pytest.param(0x10A, {"conf_base_stor": 256 * MIB + PAGE_SIZE}, {}, id="base storage not on 16 KiB"),
        pytest.param(
            0x10B, {"conf_var_stor": CONFIGURATION["conf_base_stor"]}, {}, id="variable storage in base storage"
        ),
        pytest.param(0x10B, {"conf_var_stor": RAM - PAGE_SIZE}, {}, id="variable storage beyond memory"),
        pytest.param(0x10D, {"sca": CONFIGURATION["conf_var_stor"]}, {}, id="sca in variable storage"),
        pytest.param(0x102, {"guest_stor_len": 0}, {}, id="MSL == 0"),
    ],
)
def test_8_config_create(expected, fields, how):
    """uv-host test_config_create: one fault at a time; the handle stays 0 and no storage is donated."""
    bench = Bench()
    bench.ok("initialise", **INIT)
    bench.refused(expected, "create_configuration", **how, **(CONFIGURATION | fields))
    assert len(list(bench.machine.storages())) == 1
    assert bench.ok("create_configuration", **CONFIGURATION)["guest_handle"]


def test_9_donated_storage_raises_3d():
    """uv-host access_check_3d: every page of base and variable storage, and none around them."""
    bench = Bench()
    bench.created()
    ranges = [
        (INIT["stor_origin"], INIT["stor_len"]),
        (CONFIGURATION["conf_base_stor"], CONFIGURATION_BASE),
        (CONFIGURATION["conf_var_stor"], variable_length(CONFIGURATION["guest_stor_len"])),
        (CPU["stor_origin"], CPU_STORAGE),
    ]
    for origin, length in ranges:
        assert bench.host_accesses(origin, length) == {PGM_3D}
        assert (
            bench.host_accesses(origin - PAGE_SIZE, PAGE_SIZE) == bench.host_accesses(origin + length, PAGE_SIZE) == {0}
        )
        for name in ("export", "pin", "destroy_page"):
            bench.refused(range(0x100, 0x8000), name, paddr=origin)
    assert variable_length(42 * MIB) == 2 * PAGE_SIZE + 42 * PAGE_SIZE  # uv-host: base + (MSL / 1 MiB) * variable


def test_10_config_reuse():
    """uv-host: the same block again; the same ASCE with new storage, without a handle."""
    bench = Bench()
    bench.created()
    bench.refused(range(0x100, 0x8000), "create_configuration", **CONFIGURATION)
    bench.refused(range(0x104, 0x8000), "create_configuration", **(ANOTHER | {"asce": CONFIGURATION["asce"]}))
    bench.refused(range(0x104, 0x8000), "create_configuration", **(CONFIGURATION | {"asce": ANOTHER["asce"]}))
    assert bench.ok("create_configuration", **ANOTHER)["guest_handle"]


@pytest.mark.parametrize(
    ("expected", "fields", "how"),
    [
        pytest.param(0x005, {}, {"length": 0x58}, id="hdr invalid length"),
        pytest.param(0x103, {"number": MAX_CPU_NUMBER + 1}, {}, id="invalid cpu #"),
        pytest.param(0x103, {"number": MAX_CPU_NUMBER + 2}, {}, id="invalid cpu #, number of cpus + 1"),
        pytest.param(0x105, {"stor_origin": RAM + PAGE_SIZE}, {}, id="cpu stor inaccessible"),
        pytest.param(0x106, {"stor_origin": 0}, {}, id="cpu stor in lowcore"),
        pytest.param(0x107, {"state_origin": RAM + PAGE_SIZE}, {}, id="SIE SD inaccessible"),
        pytest.param(0x105, {"stor_origin": CONFIGURATION["conf_base_stor"]}, {}, id="cpu stor donated"),
        pytest.param(0x107, {"state_origin": CPU["stor_origin"]}, {}, id="SIE SD in cpu stor"),
    ],
)
def test_11_cpu_create(expected, fields, how):
    """uv-host test_cpu_create."""
    bench = Bench()
    bench.ok("initialise", **INIT)
    guest = bench.ok("create_configuration", **CONFIGURATION)["guest_handle"]
    bench.refused(expected, "create_cpu", guest_handle=guest, **how, **(CPU | fields))
    bench.refused(0x020, "create_cpu", guest_handle=guest + 1, **CPU)
    assert bench.host_accesses(CPU["stor_origin"], CPU_STORAGE) == {0}
    assert bench.ok("create_cpu", guest_handle=guest, **CPU)["cpu_handle"]
    bench.refused(0x104, "create_cpu", guest_handle=guest, **(SECOND_CPU | {"number": 0}))
    assert bench.host_accesses(CPU["stor_origin"], CPU_STORAGE) == {PGM_3D}


def test_12_set_se_header():
    """uv-host test_set_se_header: length, handle, header page invalid or crossing into an invalid one."""
    bench = Bench()
    guest, _ = bench.created()
    bench.refused(0x005, "set_parameters", length=0x48, guest_handle=guest, **HEADER)
    bench.refused(0x020, "set_parameters", guest_handle=guest + 1, **HEADER)
    for origin in (RAM, RAM - 0x80, INIT["stor_origin"], INIT["stor_origin"] - 0x80):
        bench.refused(0x103, "set_parameters", guest_handle=guest, **(HEADER | {"header_origin": origin}))
    for length in (0, 0x2001):
        bench.refused(0x103, "set_parameters", guest_handle=guest, **(HEADER | {"header_len": length}))
    good = bench.operand
    for expected, bench.operand in bad_headers(good):
        bench.refused(expected, "set_parameters", guest_handle=guest, **HEADER)
    bench.operand = good
    bench.ok("set_parameters", guest_handle=guest, **HEADER)


def test_13_destroy():
    """uv-host test_cpu_destroy, test_config_destroy; not while it has a processor."""
    bench = Bench()
    guest, cpu = bench.created()
    bench.refused(0x111, "destroy_configuration", guest_handle=guest)
    bench.refused(0x005, "destroy_cpu", length=0x38, cpu_handle=cpu)
    bench.refused(0x021, "destroy_cpu", cpu_handle=cpu + 1)
    bench.ok("destroy_cpu", cpu_handle=cpu)
    bench.refused(0x021, "destroy_cpu", cpu_handle=cpu)
    bench.refused(0x005, "destroy_configuration", length=0x38, guest_handle=guest)
    bench.refused(0x020, "destroy_configuration", guest_handle=guest + 1)
    bench.ok("destroy_configuration", guest_handle=guest)
    bench.refused(0x020, "destroy_configuration", guest_handle=guest)
    assert [storage.origin for storage in bench.machine.storages()] == [INIT["stor_origin"]]
    again, _ = bench.created()
    assert again != guest


def test_14_clear():
    """uv-host test_clear: nothing is donated, every call is refused; it can be initialised again."""
    bench = Bench()
    guest, cpu = bench.booted()
    donated = list(bench.machine.storages())
    bench.clear()
    assert len(donated) == 4
    assert all(bench.host_accesses(storage.origin, storage.length) == {0} for storage in donated)
    for name, block in blocks(guest, cpu, bench.origin).items():
        if name in HOST_CALLS and name != "initialise":
            answer = bench.execute(block)
            assert (answer.cc, rc(answer)) == (1, 0x0003)
    after = bench.created()
    assert not {guest, cpu} & set(after)


def test_15_sharing():
    """uv-guest test_sharing: length, success, an address outside guest storage, an old handle."""
    bench = Bench()
    guest, _ = bench.booted()
    for name, then in (("share", SHARED), ("unshare", SECURE)):
        bench.refused(0x005, name, guest, length=0x28, paddr=PAGE_SIZE)
        bench.refused(0x101, name, guest, paddr=42 * MIB + PAGE_SIZE)
        bench.refused(0x101, name, guest, paddr=PAGE_SIZE + 8)
        bench.refused(0x020, name, guest ^ 1, paddr=PAGE_SIZE)
        bench.ok(name, guest, paddr=PAGE_SIZE)
        assert bench.pages.state.uv[1].state == then


def test_15_pinned_unshare_exits():
    """the guest's unshare exits with 0x6c and repeats; the host's unpin completes it."""
    bench = Bench()
    guest, _ = bench.booted()
    bench.refused(0x111, "pin", paddr=bench.origin)
    bench.ok("share", guest, paddr=0)
    bench.ok("pin", paddr=bench.origin)
    block = pack("unshare", paddr=0)
    for _ in range(2):
        answer = bench.execute(block, guest)
        assert (answer.interception, answer.block, bench.pages.state.uv[0].state) == (0x6C, block, PINNED_SHARED)
    bench.ok("unpin", guest_handle=guest, gaddr=0)
    bench.ok("unshare", guest, paddr=0)
    assert bench.pages.state.uv[0].state == SECURE


@pytest.mark.parametrize("shared", [False, True], ids=["unshared", "shared"])
@pytest.mark.parametrize("prefix", [0, 0x8000], ids=["prefix 0", "prefix 0x8000"])
@pytest.mark.parametrize("which", [0, 1], ids=["page 0", "page 1"])
def test_16_prefix(which, prefix, shared):
    """pv-icptcode run_icpt_122_tests: an exported prefix page, then its import."""
    bench = Bench(pages=16)
    guest, cpu = bench.booted()
    first = prefix // PAGE_SIZE
    for page in (first, first + 1):
        bench.ok("import", guest_handle=guest, gaddr=page * PAGE_SIZE)
    if shared:
        bench.ok("share", guest, paddr=(first + which) * PAGE_SIZE)

    def sie():
        return bench.enter(guest, cpu, bench.asce(guest), prefix)

    assert sie() == 0
    bench.ok("export", paddr=bench.origin + (first + which) * PAGE_SIZE)
    assert sie() == PREFIX
    bench.ok("import", guest_handle=guest, gaddr=(first + which) * PAGE_SIZE)
    assert sie() == 0
    assert bench.pages.state.uv[first + which].state == (SHARED if shared else SECURE)


def test_17_validity():
    """pv-icptcode: 64 flips in each handle, foreign handles, another ASCE, a running processor."""
    bench = Bench()
    guest, cpu = bench.booted()
    other = bench.ok("create_configuration", **ANOTHER)["guest_handle"]
    foreign = bench.ok("create_cpu", guest_handle=other, **SECOND_CPU)["cpu_handle"]
    asce = bench.asce(guest)
    wrong = [(guest ^ 1 << bit, cpu) for bit in range(64)] + [(guest, cpu ^ 1 << bit) for bit in range(64)]
    bench.ok("cpu_set_state", cpu_handle=foreign, state=CPU_LOAD)
    for state_description in [*wrong, (guest, foreign), (other, cpu), (cpu, guest), (0, 0)]:
        assert bench.enter(*state_description, asce) == VALIDITY
    for other_asce in (bench.asce(other), asce ^ 0x100, 0):
        assert bench.enter(guest, cpu, other_asce) == VALIDITY
    assert bench.enter(guest, cpu, asce, running={cpu}) == VALIDITY
    assert bench.enter(guest, cpu, asce, running={foreign}) == 0
    assert bench.enter(other, foreign, bench.asce(other)) == VALIDITY  # its image is not verified


RESET = [
    ("cpu_set_state", {"state": CPU_STOPPED}), ("unshare_all", {}), ("prepare_reset", {}), ("cpu reset", {}),
    ("cpu_set_state", {"state": CPU_LOAD}),
]  # fmt: skip


@pytest.mark.parametrize(("subcode", "reset"), [(0, "cpu_reset_clear"), (1, "cpu_reset_initial")])
def test_18_diag308(subcode, reset):
    """pv-ipl: every prefix of the chain is a validity interception, and no step can be taken before its turn."""
    bench = Bench()
    guest, cpu = bench.booted()
    chain = [(reset if name == "cpu reset" else name, fields) for name, fields in RESET]
    bench.ok("share", guest, paddr=PAGE_SIZE)

    def handles(name):
        return {"cpu_handle": cpu} if "cpu_handle" in CALLS[name].inputs else {"guest_handle": guest}

    def sie():
        return bench.enter(guest, cpu, bench.asce(guest))

    assert sie() == 0
    for _ in range(2):  # the second time, what the first reset left behind does not count
        bench.diagnose_308(guest, subcode)
        for place, (name, fields) in enumerate(chain):
            assert sie() == VALIDITY
            for later, rest in chain[place + 1 :]:
                bench.refused(0x111, later, **handles(later), **rest)
            bench.refused(0x111, "cpu_set_state", cpu_handle=cpu, state=CPU_OPERATING)
            bench.ok(name, **handles(name), **fields)
        assert sie() == 0
    assert bench.pages.state.uv[1].state == SECURE
    bench.ok("cpu_set_state", cpu_handle=cpu, state=CPU_STOPPED)
    assert sie() == VALIDITY


def test_20_export_of_an_exported_or_non_secure_page():
    bench = Bench()
    guest, _ = bench.booted()
    for page, state in ((0, EXPORTED), (0, EXPORTED), (5, NON_SECURE)):
        bench.ok("export", paddr=bench.origin + page * PAGE_SIZE)
        assert bench.pages.state.uv[page].state == state
    bench.ok("export", paddr=3 * GIB)  # no page of any guest
    bench.refused(0x111, "pin", paddr=3 * GIB)


def test_21_destroy_of_a_non_secure_page():
    """As new firmware does it; the old one's 0x107 stands in the table."""
    bench = Bench()
    bench.booted()
    for _ in range(2):
        bench.ok("destroy_page", paddr=bench.origin)
        assert bench.pages.state.uv[0].state == NON_SECURE
    assert CALLS["destroy_page"].returns(0x107)


@pytest.mark.parametrize("cc", [2, 3], ids=["busy", "partial"])
def test_22_busy_and_partial(cc):
    """The block stays as it is and is issued again; a block that is refused anyway uses nothing up."""
    bench = Bench()
    guest, _ = bench.booted()
    bench.inject(CALLS["import"].command, cc, 2)
    bench.refused(0x020, "import", guest_handle=guest + 1, gaddr=5 * PAGE_SIZE)
    block, before = pack("import", guest_handle=guest, gaddr=5 * PAGE_SIZE), bench.pages.snapshot()
    for _ in range(2):
        bench.ok("export", paddr=bench.origin + 6 * PAGE_SIZE)
        answer = bench.execute(block)
        assert (answer.cc, answer.block, answer.result) == (cc, block, UV_BUSY)
        assert bench.pages.snapshot() == before
    bench.ok("import", guest_handle=guest, gaddr=5 * PAGE_SIZE)
    assert bench.pages.state.uv[5].state == SECURE and not bench.machine.injections
