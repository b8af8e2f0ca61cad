"""The ultravisor's state of its machine beside page states: immutable data with an encoding as bytes.

Every call makes a new Machine, which the caller commits by compare-and-set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec

from ultrafolio.errors import InputError
from ultrafolio.model.layout import PAGE_SIZE
from ultrafolio.nouns import plural
from ultrafolio.uvcall.calls import CC_BUSY, CC_PARTIAL, CPU_STOPPED, installed_for
from ultrafolio.uvcall.image import UNMEASURED

MIB, GIB = 1 << 20, 1 << 30

# ---- sizes in Query's answer (fields: kernel §1.3; the values are chosen here)
BASE_STORAGE = 128 * MIB
CONFIGURATION_BASE = 64 * 1024
CONFIGURATION_VIRTUAL = 2 * PAGE_SIZE
VARIABLE_PER_MIB = PAGE_SIZE
CPU_STORAGE = 4 * PAGE_SIZE
MAX_CONFIGURATIONS = 255
MAX_GUEST_ADDRESS = (1 << 42) - 1
MAX_CPU_NUMBER = 247
"""KVM_S390_ESCA_CPU_SLOTS, 248 processors, v6.13."""

MOST_ANSWERED = 32
"""Stored answers of requests: more than a host's processors have in flight at once."""

# ---- phases of a guest's reset (kvm-unit-tests s390x/pv-ipl.c)
NO_RESET, RESET_ASKED, UNSHARED, PREPARED = range(4)


class Storage(msgspec.Struct, frozen=True, array_like=True):
    """A range of storage: origin and length, bytes."""

    origin: int
    length: int

    @property
    def end(self) -> int:
        return self.origin + self.length

    def overlaps(self, other: Storage) -> bool:
        return self.origin < other.end and other.origin < self.end


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """A secure guest.

    handle             its name in calls
    vm                 its number among the owners of pages (ultrafolio.model.layout.UV, `owner`)
    group              the folio group that is its memory; "" for none
    guest              guest storage: where it begins (MSO) and how long it is (MSL), guest absolute addresses
    asce, sca          address space control element that processors must run with; system control area
    base, variable     donated storage
    header             the SE header as it was accepted; b"" before, and where a guest runs without a boot
    measured           digest of the pages unpacked so far (ultrafolio.uvcall.image.measure)
    unpacked           their number;  last: address, tweak and offset of the last of them
    verified           whether the image was verified against the header
    reset              phase of a reset: NO_RESET, RESET_ASKED, UNSHARED, PREPARED
    """

    handle: int
    vm: int
    guest: Storage
    asce: int
    sca: int
    base: Storage
    variable: Storage
    group: str = ""
    header: bytes = b""
    measured: bytes = UNMEASURED
    unpacked: int = 0
    last: tuple[int, int, int] | None = None
    verified: bool = False
    reset: int = NO_RESET


class Cpu(msgspec.Struct, frozen=True, kw_only=True):
    """A secure guest's processor: its handle, that of its configuration, its number, its donated storage, its state.

    reset  whether it was reset, initial or clear, since a reset of its configuration was last prepared
    """

    handle: int
    configuration: int
    number: int
    storage: Storage
    state: int = CPU_STOPPED
    reset: bool = False


class Injection(msgspec.Struct, frozen=True, array_like=True):
    """The next `count` executions of a command end with this condition code, 2 or 3, and do nothing."""

    condition_code: int
    count: int


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """The answer to a request that changed the machine, for a repetition of the request."""

    condition_code: int
    block: bytes


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A machine and its ultravisor.

    ram             real storage, bytes
    seed            handles are derived from it; keep it secret if guests must not guess them
    misc            whether an import itself moves a shared page of another guest (feature bit 0)
    base            storage donated on Initialise; None: not initialised
    configurations  by handle;  cpus: by handle
    issued          handles tried so far;  vms: the next number among the owners of pages
    injections      by command code
    answered        the last requests that changed it, by request id, the oldest first
    changes         number of stored changes; one smaller than seen before shows that the store lost writes
    """

    ram: int = 4 * GIB
    seed: bytes = b""
    misc: bool = False
    base: Storage | None = None
    configurations: dict[int, Configuration] = {}
    cpus: dict[int, Cpu] = {}
    issued: int = 0
    vms: int = 0
    injections: dict[int, Injection] = {}
    answered: dict[str, Kept] = {}
    changes: int = 0

    def encode(self) -> bytes:
        """Returns the machine as bytes; equal machines give equal bytes."""
        ordered = {name: dict(sorted(getattr(self, name).items())) for name in ("configurations", "cpus", "injections")}
        return msgspec.msgpack.encode(self.replace(**ordered))

    def replace(self, **changes: Any) -> Machine:
        return msgspec.structs.replace(self, **changes)

    def answering(self, request: str, condition_code: int, block: bytes) -> Machine:
        """Returns the machine with the answer to one more request."""
        rest = dict(list(self.answered.items())[1 - MOST_ANSWERED :])
        return self.replace(answered=rest | {request: Kept(condition_code, block)})

    def put(self, *items: Configuration | Cpu) -> Machine:
        """Returns the machine with these configurations and processors, which replace those with the same handle."""
        configurations, cpus = dict(self.configurations), dict(self.cpus)
        for item in items:
            if isinstance(item, Cpu):
                cpus[item.handle] = item
            else:
                configurations[item.handle] = item
        return self.replace(configurations=configurations, cpus=cpus)

    def storages(self) -> Iterator[Storage]:
        """All donated storage, absolute addresses."""
        if self.base:
            yield self.base
        for configuration in self.configurations.values():
            yield configuration.base
            yield configuration.variable
        for cpu in self.cpus.values():
            yield cpu.storage

    def donated(self, address: int) -> bool:
        """Whether the byte at this absolute address is donated: a host access raises 0x3d, reading and writing."""
        return any(storage.origin <= address < storage.end for storage in self.storages())

    def accessible(self, storage: Storage) -> bool:
        """Whether all of it is real storage and none of it donated. Guests' pages are not checked."""
        return storage.end <= self.ram and not any(map(storage.overlaps, self.storages()))

    def cpus_of(self, configuration: int) -> list[Cpu]:
        return [cpu for cpu in self.cpus.values() if cpu.configuration == configuration]

    def without(self, groups: Collection[str]) -> Machine:
        """Returns the machine without the guests of these groups, and without their processors."""
        guests = {handle: of for handle, of in self.configurations.items() if of.group not in groups}
        cpus = {handle: cpu for handle, cpu in self.cpus.items() if cpu.configuration in guests}
        return self.replace(configurations=guests, cpus=cpus)

    def handle(self) -> tuple[int, Machine]:
        """Returns a new handle, and the machine that has issued it.

        Handles in use differ in more than one bit and by more than one."""
        issued, used = self.issued, [*self.configurations, *self.cpus]
        while True:
            issued += 1
            made = _handle(self.seed, issued)
            if made and all((made ^ old).bit_count() > 1 and abs(made - old) > 1 for old in used):
                return made, self.replace(issued=issued)

    def clear(self) -> Machine:
        """Returns the machine after diag 308 load normal: not initialised, nothing donated. The caller zeroes storage
        that was donated. Handles are not reused. kvm-unit-tests s390x/uv-host.c test_clear."""
        return Machine(ram=self.ram, seed=self.seed, misc=self.misc, issued=self.issued)


def decode(data: bytes) -> Machine:
    """Returns the machine in these bytes. Raises InputError if they are none."""
    try:
        return msgspec.msgpack.decode(data, type=Machine)
    except msgspec.MsgspecError as error:
        raise InputError("the ultravisor's machine", value=str(error), allowed="what Machine.encode wrote") from None


def laboratory(guests: Mapping[int, tuple[int, Storage]], ram: int = 4 * GIB, group: str = "") -> Machine:
    """Returns an initialised machine with running guests that no call created: {handle: (vm, guest storage)}.

    Their memory is the folio group `group`. The base storage is above real storage and overlaps nothing.
    """
    none = Storage(0, 0)
    made = [
        Configuration(
            handle=handle, vm=vm, guest=guest, asce=0, sca=0, base=none, variable=none, group=group, verified=True
        )
        for handle, (vm, guest) in guests.items()
    ]
    return Machine(ram=ram, base=Storage(ram, BASE_STORAGE)).put(*made)


def inject(machine: Machine, command: int, condition_code: int, count: int) -> Machine:
    """Returns the machine whose next `count` executions of `command` with a well-formed block answer busy (2) or
    partial (3). 0 removes the injection. Raises InputError for a call not installed, or another condition code.
    """
    known = sorted({call.command for guest in (False, True) for call in installed_for(guest)})
    if command not in known:
        raise InputError("command", value=f"{command:#06x}", allowed=", ".join(f"{code:#06x}" for code in known))
    if condition_code not in (CC_BUSY, CC_PARTIAL) or count < 0:
        raise InputError(
            "injected answer",
            value=f"condition code {condition_code}, {plural(count, 'time')}",
            allowed="condition code 2 (busy) or 3 (partial), 0 times or more",
        )
    others = {code: answer for code, answer in machine.injections.items() if code != command}
    return machine.replace(injections=others | ({command: Injection(condition_code, count)} if count else {}))


def _handle(seed: bytes, number: int) -> int:
    """Returns the handle with this number: 64 bits that cannot be guessed without the seed."""
    key = hashlib.blake2b(seed, digest_size=32).digest()
    return int.from_bytes(hashlib.blake2b(number.to_bytes(8, "big"), digest_size=8, key=key).digest(), "big")
