"""Linux interfaces that Python lacks. Each acts on this process only, and is undone at the end."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import mmap
import os
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np

from ultrafolio.model.layout import PAGE_SIZE

from .sample import NotPossible

THP = Path("/sys/kernel/mm/transparent_hugepage")
# include/uapi/asm-generic/mman-common.h
MADV_DONTNEED, MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_COLD, MADV_PAGEOUT = 4, 14, 15, 20, 21
# include/uapi/linux/kernel-page-flags.h
FLAGS = {"LOCKED": 0, "DIRTY": 4, "LRU": 5, "WRITEBACK": 8, "MMAP": 11, "ANON": 12, "HEAD": 15, "TAIL": 16, "THP": 22}
# include/uapi/linux/io_uring.h; the numbers of newer system calls are the same on every architecture
IO_URING_SETUP, IO_URING_REGISTER, REGISTER_BUFFERS, UNREGISTER_BUFFERS = 425, 427, 0, 1
SYNC_START, SYNC_WHOLE = 2, 7
F_SEAL_WRITE = 8


@functools.cache
def libc() -> Any:
    """The C library. Raises NotPossible except on Linux with pages of 4 KiB."""
    if sys.platform != "linux" or mmap.PAGESIZE != PAGE_SIZE:
        raise NotPossible("needs Linux with pages of 4 KiB")
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    return library


def failed(what: str) -> NotPossible:
    """The NotPossible for a call of `libc` that returned an error, from errno."""
    return NotPossible(f"{what}: {os.strerror(ctypes.get_errno())}")


class Region:
    """A mapping of `size` bytes at a multiple of `size`, a power of two: anonymous, or of the file `fd` from its start.

    `bytes`: its content as a flat array of uint8; a view must not outlive the region. With `huge`, transparent huge
    pages are requested for an anonymous region, and not for its neighbours, so that no larger folio fits.
    """

    def __init__(self, size: int, *, fd: int = -1, huge: bool = False) -> None:
        libc()
        if fd < 0:
            self._map = mmap.mmap(-1, 2 * size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        else:
            self._map = mmap.mmap(fd, size, mmap.MAP_SHARED)
        whole = np.frombuffer(self._map, np.uint8)
        start = whole.ctypes.data
        self._first = -start % size if fd < 0 else 0
        self.size, self.address = size, start + self._first
        self.bytes = whole[self._first : self._first + size]
        del whole
        try:
            if fd < 0:
                self._map.madvise(MADV_NOHUGEPAGE)
            if huge:
                self.advise(MADV_HUGEPAGE)
        except OSError as error:
            self.close()
            raise NotPossible(f"madvise: {error.strerror}") from None

    def advise(self, advice: int, start: int = 0, length: int | None = None) -> None:
        """Call madvise(2) on bytes of the region. Raises OSError with the kernel's errno."""
        self._map.madvise(advice, self._first + start, self.size if length is None else length)

    def protect_again(self, page: int) -> None:
        """Write-protect a page and undo it: a folio mapped by one PMD is then mapped by PTEs, and is not split."""
        for allowed in (mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE):
            if libc().mprotect(ctypes.c_void_p(self.address + page * PAGE_SIZE), ctypes.c_size_t(PAGE_SIZE), allowed):
                raise failed("mprotect")

    def close(self) -> None:
        """Unmap the region."""
        del self.bytes
        self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@contextlib.contextmanager
def pinned(address: int, length: int = PAGE_SIZE) -> Iterator[None]:
    """A context manager: a long-term pin (FOLL_PIN | FOLL_LONGTERM) on memory of this process, as of a virtio ring, by
    a registered buffer of io_uring. Raises NotPossible if io_uring is missing or disabled."""
    ring = libc().syscall(IO_URING_SETUP, 1, ctypes.create_string_buffer(120))
    if ring < 0:
        raise failed("io_uring, which pins")
    try:
        buffers = struct.pack("QQ", address, length)
        if libc().syscall(IO_URING_REGISTER, ring, REGISTER_BUFFERS, buffers, 1):
            raise failed("io_uring, registering a buffer")
        yield
        if libc().syscall(IO_URING_REGISTER, ring, UNREGISTER_BUFFERS, None, 0):
            raise failed("io_uring, dropping its buffer")
    finally:
        os.close(ring)


@contextlib.contextmanager
def referenced(address: int) -> Iterator[None]:
    """A context manager: a reference (FOLL_GET) on a page of this process, which is put into a pipe. Raises NotPossible
    without vmsplice."""
    reader, writer = os.pipe()
    try:
        vector = (ctypes.c_uint64 * 2)(address, PAGE_SIZE)
        if libc().vmsplice(writer, vector, ctypes.c_size_t(1), 0) != PAGE_SIZE:
            raise failed("vmsplice")
        yield
        os.read(reader, PAGE_SIZE)
    finally:
        os.close(reader)
        os.close(writer)


class PageFlags:
    """/proc/kpageflags for the pages of this process. Raises NotPossible for users other than root."""

    @functools.cached_property
    def _files(self) -> tuple[int, int]:
        """Returns the open files /proc/kpageflags and /proc/self/pagemap. Raises NotPossible without the rights."""
        try:
            flags = os.open("/proc/kpageflags", os.O_RDONLY)
            return flags, os.open("/proc/self/pagemap", os.O_RDONLY)
        except OSError as error:
            raise NotPossible(f"{error.filename}: {error.strerror}; needs root") from None

    def frame(self, address: int) -> int:
        """The page frame number at `address`, which must be mapped. Raises NotPossible if the kernel hides it."""
        (entry,) = struct.unpack("Q", os.pread(self._files[1], 8, address // PAGE_SIZE * 8))
        if not entry >> 63 or not entry & (1 << 55) - 1:
            raise NotPossible("/proc/self/pagemap tells no page frames; needs CAP_SYS_ADMIN")
        return int(entry & (1 << 55) - 1)

    def of(self, frame: int) -> set[str]:
        """Those of FLAGS that are set on a page frame."""
        (word,) = struct.unpack("Q", os.pread(self._files[0], 8, frame * 8))
        return {name for name, bit in FLAGS.items() if word >> bit & 1}

    def at(self, address: int) -> set[str]:
        """Those of FLAGS that are set on the page at `address`."""
        return self.of(self.frame(address))

    def close(self) -> None:
        for fd in self.__dict__.pop("_files", ()):
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def counter(size_kb: int, name: str) -> int:
    """A counter of anonymous folios of one size, of the whole machine. Raises NotPossible if the kernel lacks it."""
    try:
        return int((THP / f"hugepages-{size_kb}kB/stats/{name}").read_text())
    except (OSError, ValueError):
        raise NotPossible(f"no counter {name} of folios of {size_kb} KiB (it needs Linux 6.10 or newer)") from None


def folio_sizes() -> list[int]:
    """The sizes of anonymous large folios that the kernel supports, in KiB, ascending; empty for none."""
    found = (folder.name for folder in THP.glob("hugepages-*kB") if (folder / "stats/anon_fault_alloc").exists())
    return sorted(int(name.removeprefix("hugepages-").removesuffix("kB")) for name in found)


def is_offered(size_kb: int) -> bool:
    """Whether the current settings give folios of this size to a process that requests them by madvise."""
    own, everyone = _chosen(THP / f"hugepages-{size_kb}kB/enabled"), _chosen(THP / "enabled")
    return (everyone if own == "inherit" else own) in ("always", "madvise")


@contextlib.contextmanager
def offered(size_kb: int, *, change: bool = False) -> Iterator[None]:
    """A context manager in which folios of this size are offered. `change`: change a setting that refuses them, and
    restore it.

    Raises NotPossible if they are refused and `change` is false or not permitted.
    """
    setting = THP / f"hugepages-{size_kb}kB/enabled"
    if is_offered(size_kb):
        yield
        return
    before = _chosen(setting)
    if not change:
        raise NotPossible(
            f"folios of {size_kb} KiB are not offered: {setting} is {before}; "
            "as root, --folio-sizes offers them while it measures"
        )
    try:
        setting.write_text("madvise")
    except OSError as error:
        raise NotPossible(f"{setting}: {error.strerror}") from None
    try:
        yield
    finally:
        setting.write_text(before)


def _chosen(setting: Path) -> str:
    """Returns the word in brackets of a kernel setting. Raises NotPossible if it cannot be read."""
    try:
        text = setting.read_text()
    except OSError as error:
        raise NotPossible(f"{setting}: {error.strerror}") from None
    return text[text.index("[") + 1 : text.index("]")]


@contextlib.contextmanager
def on_cpu() -> Iterator[list[int]]:
    """A context manager with the CPUs that this thread may use. It restores the thread's affinity at the end."""
    libc()
    allowed = os.sched_getaffinity(0)
    try:
        yield sorted(allowed)
    finally:
        os.sched_setaffinity(0, allowed)


@contextlib.contextmanager
def scratch(folder: Path, size: int) -> Iterator[int]:
    """A context manager: the descriptor of an unnamed file of `size` bytes in `folder`, written and synced to disk."""
    try:
        fd, name = tempfile.mkstemp(prefix=".ultrafolio-", dir=folder)
    except OSError as error:
        raise NotPossible(f"no file can be made in {folder}: {error.strerror}") from None
    try:
        os.unlink(name)
        for start in range(0, size, 1 << 20):
            os.pwrite(fd, os.urandom(min(1 << 20, size - start)), start)
        os.fsync(fd)
        yield fd
    except OSError as error:
        raise NotPossible(f"a file in {folder}: {error.strerror}") from None
    finally:
        os.close(fd)


def sync_range(fd: int, length: int, how: int) -> None:
    """sync_file_range(2) from the start of the file: SYNC_START only starts the writes, SYNC_WHOLE waits for them."""
    if libc().sync_file_range(fd, ctypes.c_int64(0), ctypes.c_int64(length), how):
        raise failed("sync_file_range")


def is_cached(region: Region) -> bool:
    """Whether the first page of a file's region is in the page cache, mapped or not."""
    word = ctypes.create_string_buffer(1)
    if libc().mincore(ctypes.c_void_p(region.address), ctypes.c_size_t(PAGE_SIZE), word):
        raise failed("mincore")
    return bool(word.raw[0] & 1)
