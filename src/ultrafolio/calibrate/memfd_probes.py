"""Compare the rules of guest_memfd with the running kernel: what a VMM can see of a file, its pages, pins and holes.

A probe gets a kernel (`memfd.Running`, or one that answers in its place), and returns whether the kernel does what the
rules say, and what it did. It raises NotPossible, or Missing with the capability that the kernel lacks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ultrafolio.model.layout import PAGE_SIZE
from ultrafolio.nouns import plural

from . import kvm
from .kvm import Refused
from .sample import NotPossible

Observation = tuple[bool, str]
SHARED = kvm.GUEST_MEMFD_FLAG_MMAP | kvm.GUEST_MEMFD_FLAG_INIT_SHARED
PRIVATE = kvm.GUEST_MEMFD_FLAG_MMAP
OK, SIGBUS, EAGAIN, EFAULT, EINVAL = "0", "SIGBUS", "EAGAIN", "EFAULT", "EINVAL"
VALUE = 7
TRIES = 32
"""Attempts of a probe when another process drained the batch meanwhile."""


class Missing(Exception):
    """The kernel lacks what the probe needs; the message is its capability, and what it answered."""


class File(Protocol):
    """A guest_memfd, as memfd.File describes it."""

    def map(self, *, private: bool = False) -> str: ...
    def touch(self, page: int, process: int = 0) -> str: ...
    def read(self, page: int, process: int = 0) -> int: ...
    def write(self, page: int, value: int, process: int = 0) -> str: ...
    def fill(self, page: int) -> None: ...
    def pin(self, page: int) -> str: ...
    def unpin(self, page: int) -> str: ...
    def splice(self, page: int) -> str: ...
    def spliced(self) -> int: ...
    def punch(self, start: int, length: int) -> str: ...
    def allocate(self, start: int, length: int) -> str: ...
    def converts(self) -> bool: ...
    def convert(self, page: int, pages: int, private: bool) -> tuple[str, int]: ...
    def bind(self, start: int, length: int, *, elsewhere: bool = False, flags: int = 0) -> str: ...
    def unbind(self) -> str: ...
    def meanwhile(self, page: int, *, pin: bool = False) -> None: ...
    def is_on_lru(self, page: int) -> bool: ...
    def guest_adds(self) -> str: ...


class Kernel(Protocol):
    """A kernel, as memfd.Running describes it. release: its version."""

    release: str

    def capability(self, name: str) -> int: ...
    def create(self, size: int, flags: int, kind: int = ...) -> File: ...
    def cpus(self) -> list[int]: ...
    def run_on(self, cpu: int) -> None: ...
    def drain(self) -> None: ...


Probe = Callable[[Kernel], Observation]


# ------------------------------------------------------------------------------------------- files
def mapped_kind(kernel: Kernel) -> Observation:
    """mmap(2) of files with and without the flag."""
    without = made(kernel, 1, kvm.GUEST_MEMFD_FLAG_INIT_SHARED).map()
    with_flag, copy = made(kernel, 1, SHARED).map(), made(kernel, 1, SHARED).map(private=True)
    seen = (without, with_flag, copy)
    return seen == ("ENODEV", OK, EINVAL), (
        f"without GUEST_MEMFD_FLAG_MMAP: {without}; with it: {with_flag}; as MAP_PRIVATE: {copy}"
    )


def sizes(kernel: Kernel) -> Observation:
    """KVM_CREATE_GUEST_MEMFD with sizes and flags that it must refuse."""
    asked = {
        "one page": (PAGE_SIZE, SHARED),
        "no bytes": (0, SHARED),
        "a page and a byte": (PAGE_SIZE + 1, SHARED),
        "a negative size": (1 << 63, SHARED),
        "an unknown flag": (PAGE_SIZE, 1 << 40),
    }
    seen = {name: _created(kernel, *given) for name, given in asked.items()}
    return list(seen.values()) == [OK, *[EINVAL] * 4], said(seen)


def _created(kernel: Kernel, size: int, flags: int) -> str:
    try:
        kernel.create(size, flags)
    except Refused as refused:
        return refused.error
    return OK


def bindings(kernel: Kernel) -> Observation:
    """KVM_SET_USER_MEMORY_REGION2: which ranges of a file a slot may have."""
    file, other = made(kernel, 4, SHARED), made(kernel, 4, SHARED)
    seen = {
        "half a page further": file.bind(PAGE_SIZE // 2, PAGE_SIZE),
        "beyond the end": file.bind(3 * PAGE_SIZE, 2 * PAGE_SIZE),
        "by another VM": file.bind(0, PAGE_SIZE, elsewhere=True),
        "read-only": file.bind(0, PAGE_SIZE, flags=kvm.KVM_MEM_READONLY),
        "with a dirty log": file.bind(0, PAGE_SIZE, flags=kvm.KVM_MEM_LOG_DIRTY_PAGES),
        "all of it": file.bind(0, 4 * PAGE_SIZE),
        "a page of it twice": file.bind(PAGE_SIZE, PAGE_SIZE),
    }
    right = list(seen.values()) == [*[EINVAL] * 5, OK, EINVAL]
    again = (other.bind(0, PAGE_SIZE), other.unbind(), other.bind(0, PAGE_SIZE))
    seen |= {"again after the slot is deleted": again[2]}
    return right and again == (OK, OK, OK), said(seen)


# ------------------------------------------------------------------------------------------- touches
def shared_touch(kernel: Kernel) -> Observation:
    """A touch of a shared page faults it in for each process."""
    file = made(kernel, 2, SHARED)
    first, written, seen = file.read(0), file.write(0, VALUE), file.read(0, process=1)
    return (first, written, seen) == (0, OK, VALUE), (
        f"first read: {first}; a write: {written}; another process then reads {seen}"
    )


def private_touch(kernel: Kernel) -> Observation:
    """A touch of a private page, by reading and writing, and of one that is allocated."""
    file = made(kernel, 2, PRIVATE)
    seen = {"read": file.touch(0), "write": file.write(0, VALUE)}
    file.allocate(PAGE_SIZE, PAGE_SIZE)
    seen |= {"an allocated page": file.touch(1), "by another process": file.touch(1, process=1)}
    return set(seen.values()) == {SIGBUS}, said(seen)


# ------------------------------------------------------------------------------------------- pins
def pin_shared(kernel: Kernel) -> Observation:
    """A long-term pin of a page that is mapped, and of one that GUP must fault in."""
    file = made(kernel, 2, SHARED)
    file.write(0, VALUE)
    seen = {"a mapped page": file.pin(0), "a page nobody touched": file.pin(1)}
    seen |= {"a touch under the pin": file.touch(0), "unpin": file.unpin(0), "the other unpin": file.unpin(1)}
    return set(seen.values()) == {OK}, said(seen)


def pin_private(kernel: Kernel) -> Observation:
    """A pin, and a reference by vmsplice, on a private page."""
    file = made(kernel, 1, PRIVATE)
    seen = {"pin": file.pin(0), "vmsplice": file.splice(0)}
    return set(seen.values()) == {EFAULT}, said(seen)


def plain_reference(kernel: Kernel) -> Observation:
    """A page in a pipe is the page of the file, until the file has a hole there."""
    file = made(kernel, 1, SHARED)
    file.write(0, VALUE)
    taken = file.splice(0)
    file.write(0, VALUE + 1)
    there = file.spliced() if taken == OK else -1
    return (taken, there) == (OK, VALUE + 1), f"vmsplice: {taken}; after a write the pipe has {there}"


# ------------------------------------------------------------------------------------------- holes
def hole(kernel: Kernel) -> Observation:
    """A hole in shared pages: unmapped and freed; the next touch has a page of zeros. The attribute stays."""
    file = made(kernel, 3, SHARED)
    for page in range(3):
        file.write(page, VALUE)
    answer = file.punch(PAGE_SIZE, PAGE_SIZE)
    seen = [file.read(page) for page in range(3)]
    return (answer, seen) == (OK, [VALUE, 0, VALUE]), f"punch: {answer}; the three pages then read {seen}"


def hole_private(kernel: Kernel) -> Observation:
    """A hole in a private page: the host may touch it no more than before."""
    file = made(kernel, 1, PRIVATE)
    before, answer, after = file.touch(0), file.punch(0, PAGE_SIZE), file.touch(0)
    return (before, answer, after) == (SIGBUS, OK, SIGBUS), f"before: {before}; punch: {answer}; after: {after}"


def hole_under_pin(kernel: Kernel) -> Observation:
    """A hole beside a pin and a plain reference: it does not wait, and the old page lives on outside the file."""
    file = made(kernel, 2, SHARED)
    file.write(0, VALUE)
    file.write(1, VALUE)
    taken = (file.splice(0), file.pin(1))
    answer = file.punch(0, 2 * PAGE_SIZE)
    now, old = [file.read(0), file.read(1)], file.spliced()
    right = (taken, answer, now, old) == ((OK, OK), OK, [0, 0], VALUE)
    return right, f"punch: {answer}; the file then reads {now}; the pipe still has {old}"


def hole_sizes(kernel: Kernel) -> Observation:
    """Holes and allocations that fallocate(2) must refuse."""
    file = made(kernel, 4, SHARED)
    seen = {
        "a hole half a page further": file.punch(PAGE_SIZE // 2, PAGE_SIZE),
        "of half a page": file.punch(0, PAGE_SIZE // 2),
        "of no bytes": file.punch(0, 0),
        "an allocation beyond the end": file.allocate(3 * PAGE_SIZE, 2 * PAGE_SIZE),
        "a hole over the end": file.punch(3 * PAGE_SIZE, 2 * PAGE_SIZE),
        "an allocation": file.allocate(0, 4 * PAGE_SIZE),
    }
    return list(seen.values()) == [*[EINVAL] * 4, OK, OK], said(seen)


# ------------------------------------------------------------------------------------------- batches, the guest
def batch(kernel: Kernel) -> Observation:
    """A page that a touch has just allocated is in the LRU batch of the toucher's CPU, and not on the LRU."""
    before = after = True
    for _ in range(TRIES):
        kernel.run_on(kernel.cpus()[0])
        file = made(kernel, 1, SHARED)
        file.fill(0)
        before = file.is_on_lru(0)
        kernel.drain()
        after = file.is_on_lru(0)
        if not before:
            break
    return (before, after) == (False, True), f"on the LRU: {before}; after this CPU's batches are drained: {after}"


def guest_fault(kernel: Kernel) -> Observation:
    """A guest's touch faults the file's page into KVM's table; after a hole it faults again, and finds zeros."""
    file = made(kernel, 1, SHARED)
    file.write(0, VALUE)
    first, then = file.guest_adds(), file.read(0)
    file.punch(0, PAGE_SIZE)
    again, new = file.guest_adds(), file.read(0)
    right = (first, then, again, new) == (OK, VALUE + 1, OK, 1)
    return right, f"the guest adds 1: {first}, {then}; after a hole: {again}, {new}"


# ------------------------------------------------------------------------------------------- helpers
def made(kernel: Kernel, pages: int, flags: int, kind: int = kvm.KVM_X86_DEFAULT_VM) -> File:
    """A file of so many pages. Raises Missing without guest_memfd, or without the flags."""
    if not kernel.capability("KVM_CAP_GUEST_MEMFD"):
        raise Missing("KVM_CAP_GUEST_MEMFD is 0")
    offered = kernel.capability("KVM_CAP_GUEST_MEMFD_FLAGS")
    if flags & ~offered:
        raise Missing(f"KVM_CAP_GUEST_MEMFD_FLAGS is {offered}, and not {SHARED} (MMAP | INIT_SHARED)")
    try:
        return kernel.create(pages * PAGE_SIZE, flags, kind)
    except Refused as refused:
        raise NotPossible(f"KVM_CREATE_GUEST_MEMFD of {plural(pages, 'page')}: {refused.error}") from None


def said(seen: dict[str, str]) -> str:
    """Answers in one line."""
    return "; ".join(f"{name}: {answer}" for name, answer in seen.items())
