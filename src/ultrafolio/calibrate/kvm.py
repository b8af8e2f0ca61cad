"""KVM's interface as far as guest_memfd needs it: numbers, structures, and calls that return the error's name.

Source of what has none named: include/uapi/linux/kvm.h of Linux 6.18. Numbers of calls are in the form of
include/uapi/asm-generic/ioctl.h, which x86, arm64, riscv and s390 use.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from typing import Final

from .sample import NotPossible

DEVICE: Final = "/dev/kvm"
KVMIO: Final = 0xAE
_WRITE, _READ = 1, 2

CAPABILITIES: Final = {
    "KVM_CAP_USER_MEMORY2": 231, "KVM_CAP_MEMORY_FAULT_INFO": 232, "KVM_CAP_MEMORY_ATTRIBUTES": 233,
    "KVM_CAP_GUEST_MEMFD": 234, "KVM_CAP_VM_TYPES": 235, "KVM_CAP_PRE_FAULT_MEMORY": 236,
    "KVM_CAP_GUEST_MEMFD_FLAGS": 244,
}  # fmt: skip
"""Capability -> its number. KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES has had several: whether a file has the conversion is
asked of the call itself (`has_conversion`)."""
CONVERSION: Final = "KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES"

# flags of KVM_CREATE_GUEST_MEMFD, since 6.18
GUEST_MEMFD_FLAG_MMAP, GUEST_MEMFD_FLAG_INIT_SHARED = 1, 2
# flags of a memory slot; KVM_MEM_GUEST_MEMFD since 6.8
KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, KVM_MEM_GUEST_MEMFD = 1, 2, 4
KVM_MEMORY_ATTRIBUTE_PRIVATE: Final = 1 << 3
# types of a VM on x86: arch/x86/include/uapi/asm/kvm.h
KVM_X86_DEFAULT_VM, KVM_X86_SW_PROTECTED_VM = 0, 1
# modes of fallocate(2): include/uapi/linux/falloc.h
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2


class CreateGuestMemfd(ctypes.Structure):
    """struct kvm_create_guest_memfd, 6.8."""

    _fields_ = (("size", ctypes.c_uint64), ("flags", ctypes.c_uint64), ("reserved", ctypes.c_uint64 * 6))


class MemoryRegion2(ctypes.Structure):
    """struct kvm_userspace_memory_region2, 6.8."""

    _fields_ = (
        ("slot", ctypes.c_uint32), ("flags", ctypes.c_uint32), ("guest_phys_addr", ctypes.c_uint64),
        ("memory_size", ctypes.c_uint64), ("userspace_addr", ctypes.c_uint64), ("guest_memfd_offset", ctypes.c_uint64),
        ("guest_memfd", ctypes.c_uint32), ("pad1", ctypes.c_uint32), ("pad2", ctypes.c_uint64 * 14),
    )  # fmt: skip


class MemoryAttributes2(ctypes.Structure):
    """struct kvm_memory_attributes2, as posted since February 2026 ("guest_memfd: In-place conversion support", patch
    "Add support for KVM_SET_MEMORY_ATTRIBUTES2") and queued for 7.4."""

    _fields_ = (
        ("offset", ctypes.c_uint64), ("size", ctypes.c_uint64), ("attributes", ctypes.c_uint64),
        ("flags", ctypes.c_uint64), ("error_offset", ctypes.c_uint64), ("reserved", ctypes.c_uint64 * 11),
    )  # fmt: skip


def _io(number: int, direction: int = 0, size: int = 0) -> int:
    return direction << 30 | size << 16 | KVMIO << 8 | number


KVM_CREATE_VM, KVM_CHECK_EXTENSION, KVM_GET_VCPU_MMAP_SIZE = _io(0x01), _io(0x03), _io(0x04)
KVM_CREATE_VCPU, KVM_RUN = _io(0x41), _io(0x80)
KVM_SET_USER_MEMORY_REGION2: Final = _io(0x49, _WRITE, ctypes.sizeof(MemoryRegion2))
KVM_CREATE_GUEST_MEMFD: Final = _io(0xD4, _WRITE | _READ, ctypes.sizeof(CreateGuestMemfd))
KVM_SET_MEMORY_ATTRIBUTES2: Final = _io(0xD2, _WRITE | _READ, ctypes.sizeof(MemoryAttributes2))
# sizes of struct kvm_regs and struct kvm_sregs of x86
REGS_BYTES, SREGS_BYTES = 144, 312
KVM_SET_REGS, KVM_GET_SREGS = _io(0x82, _WRITE, REGS_BYTES), _io(0x83, _READ, SREGS_BYTES)
KVM_SET_SREGS = _io(0x84, _WRITE, SREGS_BYTES)


class Refused(Exception):
    """A call failed. error: the name of its errno, such as EINVAL."""

    def __init__(self, error: OSError) -> None:
        self.error = name_of(error.errno)
        super().__init__(self.error)


def name_of(number: int | None) -> str:
    """The name of an errno, as the kernel calls it."""
    name = errno.errorcode.get(number or 0, f"errno {number}")
    return "EOPNOTSUPP" if name == "ENOTSUP" else name


def call(fd: int, number: int, argument: int | ctypes.Structure | bytes = 0) -> int:
    """ioctl(2). Returns its result; a structure has what the kernel wrote into it. Raises Refused."""
    try:
        if isinstance(argument, ctypes.Structure):
            return fcntl.ioctl(fd, number, argument, True)  # type: ignore[call-overload,no-any-return]
        if isinstance(argument, bytes):
            fcntl.ioctl(fd, number, argument)
            return 0
        return fcntl.ioctl(fd, number, argument)
    except OSError as error:
        raise Refused(error) from None


def call_buffer(fd: int, number: int, buffer: ctypes.Array[ctypes.c_char]) -> None:
    """ioctl(2) on a buffer, into which the kernel may write. Raises Refused."""
    try:
        fcntl.ioctl(fd, number, buffer, True)
    except OSError as error:
        raise Refused(error) from None


def opened() -> int:
    """A descriptor of /dev/kvm. Raises NotPossible where it is missing, or closed to this user."""
    try:
        return os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise NotPossible(f"{DEVICE}: {error.strerror}") from None


def has_conversion(memfd: int) -> bool:
    """Whether the file has KVM_SET_MEMORY_ATTRIBUTES2. A request for no bytes changes nothing: the call that is there
    says EINVAL."""
    try:
        call(memfd, KVM_SET_MEMORY_ATTRIBUTES2, MemoryAttributes2())
    except Refused as refused:
        return refused.error != "ENOTTY"
    return True


def set_slot(
    vm: int, slot: int, guest: int, length: int, user: int, flags: int = 0, memfd: tuple[int, int] | None = None
) -> str:
    """KVM_SET_USER_MEMORY_REGION2: `length` bytes at guest address `guest`, with the process's memory at `user`; memfd:
    a guest_memfd and the offset in it."""
    fd, start = memfd or (0, 0)
    asked = MemoryRegion2(
        slot=slot, flags=flags | (KVM_MEM_GUEST_MEMFD if memfd else 0), guest_phys_addr=guest, memory_size=length,
        userspace_addr=user, guest_memfd=fd, guest_memfd_offset=start,
    )  # fmt: skip
    try:
        call(vm, KVM_SET_USER_MEMORY_REGION2, asked)
    except Refused as refused:
        return refused.error
    return "0"
