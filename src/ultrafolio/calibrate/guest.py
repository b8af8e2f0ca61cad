"""A guest of a few instructions, in the real mode of x86: it adds 1 to a byte of its memory, and says so."""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct
from typing import Protocol

from ultrafolio.model.layout import PAGE_SIZE

from . import kvm
from .sample import NotPossible

CODE_AT, DATA_AT = 0x1000, 0x10000
"""Guest addresses of the program, and of the file's first page."""
PORT = 0x10
# mov al,[0]; inc al; mov [0],al; out PORT,al; jmp to the first. [0] is in the segment DS, at DATA_AT.
PROGRAM = bytes([0xA0, 0, 0, 0xFE, 0xC0, 0xA2, 0, 0, 0xE6, PORT, 0xEB, 0xF4])
KVM_EXIT_IO = 2
# arch/x86/include/uapi/asm/kvm.h: struct kvm_sregs begins with the segments cs, ds; a segment has its base at byte 0
# and its selector at byte 12. struct kvm_regs has rip and rflags as its last two fields.
_CS, _DS, _SEGMENT = 0, 1, 24
_RIP, _RFLAGS, _WORD = 16, 17, 8
_EXIT_REASON_AT = 8
"""Offset of exit_reason in struct kvm_run."""


class Memory(Protocol):
    """A file of a VM: its descriptors, its size, and the size of struct kvm_run."""

    vm: int
    fd: int
    size: int

    def run_size(self) -> int: ...


class Guest:
    """One vCPU of the file's VM. Raises NotPossible on another architecture than x86-64."""

    def __init__(self, file: Memory) -> None:
        if platform.machine() != "x86_64":
            raise NotPossible("the guest's program is one of x86-64")
        self._other, self._code = mmap.mmap(-1, file.size), mmap.mmap(-1, PAGE_SIZE)
        self._code[: len(PROGRAM)] = PROGRAM
        for slot, at, memory, memfd in ((0, CODE_AT, self._code, None), (1, DATA_AT, self._other, (file.fd, 0))):
            address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
            if (answer := kvm.set_slot(file.vm, slot, at, len(memory), address, memfd=memfd)) != "0":
                raise NotPossible(f"a memory slot of the guest: {answer}")
        self._vcpu = kvm.call(file.vm, kvm.KVM_CREATE_VCPU, 0)
        self._run = mmap.mmap(self._vcpu, file.run_size())
        self._begin()

    def _begin(self) -> None:
        """Set the segments and the instruction pointer."""
        try:
            segments = bytearray(self._read_segments())
            for segment, base in ((_CS, 0), (_DS, DATA_AT)):
                struct.pack_into("<Q", segments, segment * _SEGMENT, base)
                struct.pack_into("<H", segments, segment * _SEGMENT + 12, base >> 4)
            kvm.call(self._vcpu, kvm.KVM_SET_SREGS, bytes(segments))
            registers = bytearray(kvm.REGS_BYTES)
            struct.pack_into("<Q", registers, _RIP * _WORD, CODE_AT)
            struct.pack_into("<Q", registers, _RFLAGS * _WORD, 2)
            kvm.call(self._vcpu, kvm.KVM_SET_REGS, bytes(registers))
        except kvm.Refused as refused:
            raise NotPossible(f"the registers of the guest: {refused.error}") from None

    def _read_segments(self) -> bytes:
        made = (ctypes.c_char * kvm.SREGS_BYTES)()
        kvm.call_buffer(self._vcpu, kvm.KVM_GET_SREGS, made)
        return bytes(made)

    def add(self) -> str:
        """Run until the guest has added 1 to the first byte of page 0. Returns "0", the name of an error, or the number
        of another exit. Raises NotPossible if KVM did the addition in the memory of the process that the slot names
        beside the file: then it emulates the guest's instructions, and no fault of a guest happens."""
        was = self._other[0]
        try:
            kvm.call(self._vcpu, kvm.KVM_RUN)
        except kvm.Refused as refused:
            return refused.error
        (reason,) = struct.unpack_from("<I", self._run, _EXIT_REASON_AT)
        if reason != KVM_EXIT_IO:
            return f"exit {reason}"
        if self._other[0] != was:
            raise NotPossible("KVM emulates the guest's instructions here: its accesses go by the process's memory")
        return "0"
