"""A guest_memfd of the running kernel: what a VMM can do with it, each call with its answer as a word.

An answer is "0", the name of an errno, or the name of the signal that a touch ends with. Nothing is closed: a probe
runs in a process of its own.
"""

from __future__ import annotations

import ctypes
import fcntl
import itertools
import mmap
import os
import platform
import struct

from ultrafolio.model.layout import PAGE_SIZE

from . import kvm, system
from .guest import Guest
from .kvm import Refused
from .sample import NotPossible
from .toucher import Toucher

_FIRST_SLOT, _RACER = 1, 99
_AWAY = 1 << 32
"""Guest address of the slots that only ask whether they can be bound."""


class Running:
    """The kernel of this machine. Raises NotPossible without /dev/kvm or the right to open it."""

    def __init__(self) -> None:
        system.libc()
        self.release = platform.release()
        self._kvm = kvm.opened()
        self._vms: dict[int, int] = {}

    def capability(self, name: str) -> int:
        """KVM_CHECK_EXTENSION of one of kvm.CAPABILITIES."""
        return kvm.call(self._kvm, kvm.KVM_CHECK_EXTENSION, kvm.CAPABILITIES[name])

    def vm(self, kind: int, *, another: bool = False) -> int:
        """A VM of this type, always the same one unless `another`. Raises Refused."""
        if another or kind not in self._vms:
            made = kvm.call(self._kvm, kvm.KVM_CREATE_VM, kind)
            if another:
                return made
            self._vms[kind] = made
        return self._vms[kind]

    def create(self, size: int, flags: int, kind: int = kvm.KVM_X86_DEFAULT_VM) -> File:
        """A guest_memfd of a VM of this type. Raises Refused."""
        vm = self.vm(kind)
        asked = kvm.CreateGuestMemfd(size=size, flags=flags)
        return File(self, vm, kvm.call(vm, kvm.KVM_CREATE_GUEST_MEMFD, asked), size)

    def cpus(self) -> list[int]:
        """The CPUs that this process may use, ascending."""
        return sorted(os.sched_getaffinity(0))

    def run_on(self, cpu: int) -> None:
        """Run on one CPU from now on; touches of processes that are started later are on it, too."""
        os.sched_setaffinity(0, {cpu})

    def drain(self) -> None:
        """Drain the LRU batches of this CPU, by sealing an empty memfd."""
        fcntl.fcntl(os.memfd_create("ultrafolio", os.MFD_ALLOW_SEALING), fcntl.F_ADD_SEALS, system.F_SEAL_WRITE)

    def run_size(self) -> int:
        """The size of struct kvm_run, as a vCPU maps it."""
        return kvm.call(self._kvm, kvm.KVM_GET_VCPU_MMAP_SIZE)


class File:
    """A guest_memfd. Pages are numbered from 0."""

    def __init__(self, kernel: Running, vm: int, fd: int, size: int) -> None:
        self.kernel, self.vm, self.fd, self.size = kernel, vm, fd, size
        self._memory: mmap.mmap | None = None
        self._processes: dict[int, Toucher] = {}
        self._pins: dict[int, int] = {}
        self._pipe: tuple[int, int] | None = None
        self._slots = itertools.count(_FIRST_SLOT)
        self._guest: Guest | None = None

    def map(self, *, private: bool = False) -> str:
        """mmap(2) of the whole file, MAP_SHARED; private: MAP_PRIVATE."""
        try:
            made = mmap.mmap(self.fd, self.size, mmap.MAP_PRIVATE if private else mmap.MAP_SHARED)
        except OSError as error:
            return kvm.name_of(error.errno)
        self._memory = made
        return "0"

    def touch(self, page: int, process: int = 0) -> str:
        """Process number `process` reads a byte of a page."""
        return self._touched(page, process)[0]

    def read(self, page: int, process: int = 0) -> int:
        """The first byte of a page, or -1 where it cannot be touched."""
        return self._touched(page, process)[1]

    def write(self, page: int, value: int, process: int = 0) -> str:
        """Process number `process` writes the first byte of a page."""
        return self._touched(page, process, value)[0]

    def fill(self, page: int) -> None:
        """This process itself writes a shared page, so that a new one enters its CPU's batch. To start a process would
        drain that: the first write to memory that two processes share does (do_wp_page in mm/memory.c)."""
        ctypes.memset(self.address(page), 1, 1)

    def _touched(self, page: int, process: int, value: int = -1) -> tuple[str, int]:
        """Returns the answer, and the byte that was there before."""
        was = self._process(process).touch(page, value)
        return (was, -1) if isinstance(was, str) else ("0", was)

    def _process(self, number: int) -> Toucher:
        if number not in self._processes:
            self._processes[number] = Toucher(self.mapping(), self._pin_for_a_moment)
        return self._processes[number]

    def _pin_for_a_moment(self, page: int) -> None:
        if self.pin(page) == "0":
            self.unpin(page)

    def meanwhile(self, page: int, *, pin: bool = False) -> None:
        """A process of its own begins to touch a page, or to pin it for a moment, and this call does not wait."""
        self._process(_RACER).begin(page, pin=pin)

    def mapping(self) -> mmap.mmap:
        if self._memory is None and (answer := self.map()) != "0":
            raise NotPossible(f"the file cannot be mapped: {answer}")
        assert self._memory is not None
        return self._memory

    def address(self, page: int) -> int:
        """The address of a page in this process."""
        return ctypes.addressof(ctypes.c_char.from_buffer(self.mapping())) + page * PAGE_SIZE

    def pin(self, page: int) -> str:
        """Pin a page for long, by a registered buffer of io_uring."""
        ring = system.libc().syscall(system.IO_URING_SETUP, 1, ctypes.create_string_buffer(120))
        if ring < 0:
            raise system.failed("io_uring, which pins")
        buffers = struct.pack("QQ", self.address(page), PAGE_SIZE)
        if system.libc().syscall(system.IO_URING_REGISTER, ring, system.REGISTER_BUFFERS, buffers, 1):
            answer = kvm.name_of(ctypes.get_errno())
            os.close(ring)
            return answer
        self._pins[page] = ring
        return "0"

    def unpin(self, page: int) -> str:
        """End the pin of a page."""
        ring = self._pins.pop(page)
        failed = system.libc().syscall(system.IO_URING_REGISTER, ring, system.UNREGISTER_BUFFERS, None, 0)
        answer = kvm.name_of(ctypes.get_errno()) if failed else "0"
        os.close(ring)
        return answer

    def splice(self, page: int) -> str:
        """Put a page into a pipe by vmsplice(2), which takes a plain reference."""
        self._pipe = self._pipe or os.pipe()
        vector = (ctypes.c_uint64 * 2)(self.address(page), PAGE_SIZE)
        done = system.libc().vmsplice(self._pipe[1], vector, ctypes.c_size_t(1), 0)
        return "0" if done == PAGE_SIZE else kvm.name_of(ctypes.get_errno())

    def spliced(self) -> int:
        """The first byte of the oldest page in the pipe, whose reference is dropped."""
        if self._pipe is None:
            raise NotPossible("no page is in the pipe")
        return os.read(self._pipe[0], PAGE_SIZE)[0]

    def punch(self, start: int, length: int) -> str:
        """fallocate(2): punch a hole of `length` bytes from byte `start`."""
        return self._fallocate(kvm.FALLOC_FL_PUNCH_HOLE | kvm.FALLOC_FL_KEEP_SIZE, start, length)

    def allocate(self, start: int, length: int) -> str:
        """fallocate(2): allocate these bytes."""
        return self._fallocate(kvm.FALLOC_FL_KEEP_SIZE, start, length)

    def _fallocate(self, mode: int, start: int, length: int) -> str:
        failed = system.libc().fallocate(self.fd, mode, ctypes.c_int64(start), ctypes.c_int64(length))
        return kvm.name_of(ctypes.get_errno()) if failed else "0"

    def converts(self) -> bool:
        """Whether the file has the conversion."""
        return kvm.has_conversion(self.fd)

    def convert(self, page: int, pages: int, private: bool) -> tuple[str, int]:
        """Convert pages in place. Returns the answer, and the page that a refusal names, or -1."""
        asked = kvm.MemoryAttributes2(
            offset=page * PAGE_SIZE,
            size=pages * PAGE_SIZE,
            attributes=kvm.KVM_MEMORY_ATTRIBUTE_PRIVATE if private else 0,
        )
        try:
            kvm.call(self.fd, kvm.KVM_SET_MEMORY_ATTRIBUTES2, asked)
        except Refused as refused:
            return refused.error, asked.error_offset // PAGE_SIZE
        return "0", -1

    def bind(self, start: int, length: int, *, elsewhere: bool = False, flags: int = 0) -> str:
        """Bind bytes of the file to a new memory slot at an address of its own. elsewhere: of another VM."""
        vm = self.kernel.vm(kvm.KVM_X86_DEFAULT_VM, another=True) if elsewhere else self.vm
        slot = next(self._slots)
        return kvm.set_slot(vm, slot, _AWAY + slot * self.size * 2, length, self.address(0), flags, (self.fd, start))

    def unbind(self) -> str:
        """Delete the last slot that was asked for."""
        slot = next(self._slots) - 1
        self._slots = itertools.count(slot)
        return kvm.set_slot(self.vm, slot, 0, 0, 0)

    def run_size(self) -> int:
        """The size of struct kvm_run, as a vCPU maps it."""
        return self.kernel.run_size()

    def guest_adds(self) -> str:
        """A guest adds 1 to the first byte of page 0. Returns the answer, as guest.Guest.add()."""
        self._guest = self._guest or Guest(self)
        return self._guest.add()

    def is_on_lru(self, page: int) -> bool:
        """Whether a page that this process maps is on the LRU. Raises NotPossible without the page flags."""
        self.mapping()[page * PAGE_SIZE]
        with system.PageFlags() as flags:
            return "LRU" in flags.at(self.address(page))
