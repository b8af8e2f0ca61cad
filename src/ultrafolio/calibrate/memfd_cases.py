"""The cases of in-place conversion (docs/conformance.md) that a VMM can drive alone, asked of a kernel that has it."""

from __future__ import annotations

from ultrafolio.model.layout import PAGE_SIZE

from . import kvm
from .kvm import Refused
from .memfd_probes import EAGAIN, OK, PRIVATE, SHARED, SIGBUS, VALUE, File, Kernel, Missing, Observation, made
from .sample import NotPossible

ROUNDS = 200
"""Conversions of a race; user space cannot place two steps at once."""
REFUSALS = 3


def convertible(kernel: Kernel, pages: int, flags: int) -> File:
    """A file of a VM with private memory, whose pages can be converted. Raises Missing."""
    types = kernel.capability("KVM_CAP_VM_TYPES")
    file = made(kernel, pages, flags)
    if not file.converts():
        raise Missing(f"{kvm.CONVERSION}: the file has no KVM_SET_MEMORY_ATTRIBUTES2 (ENOTTY)")
    if not types >> kvm.KVM_X86_SW_PROTECTED_VM & 1:
        raise Missing(f"KVM_CAP_VM_TYPES is {types:#x}: no type has private memory (KVM_X86_SW_PROTECTED_VM)")
    try:
        return made(kernel, pages, flags, kvm.KVM_X86_SW_PROTECTED_VM)
    except Refused as refused:
        raise NotPossible(f"a VM of type KVM_X86_SW_PROTECTED_VM: {refused.error}") from None


def to_private(kernel: Kernel) -> Observation:
    """G1: a shared page to private."""
    file = convertible(kernel, 1, SHARED)
    return seen(file.touch(0), file.convert(0, 1, private=True), file.touch(0), wanted=(OK, (OK, -1), SIGBUS))


def to_shared(kernel: Kernel) -> Observation:
    """G2: a private page to shared."""
    file = convertible(kernel, 1, PRIVATE)
    return seen(file.touch(0), file.convert(0, 1, private=False), file.touch(0), wanted=(SIGBUS, (OK, -1), OK))


def nothing_to_do(kernel: Kernel) -> Observation:
    """G3: a private page to private."""
    file = convertible(kernel, 1, PRIVATE)
    return seen(file.convert(0, 1, private=True), file.touch(0), wanted=((OK, -1), SIGBUS))


def one_pinned(kernel: Kernel) -> Observation:
    """G4: four pages, of which page 2 is pinned."""
    file = convertible(kernel, 4, SHARED)
    pin = file.pin(2)
    answer = file.convert(0, 4, private=True)
    return seen(pin, answer, *touches(file, 4), wanted=(OK, (EAGAIN, 2), OK, OK, OK, OK))


def each_alone(kernel: Kernel) -> Observation:
    """G5: the same pages one by one."""
    file = convertible(kernel, 3, SHARED)
    pin = file.pin(1)
    answers = [file.convert(page, 1, private=True) for page in range(3)]
    return seen(pin, *answers, *touches(file, 3), wanted=(OK, (OK, -1), (EAGAIN, 1), (OK, -1), SIGBUS, OK, SIGBUS))


def mixed_range(kernel: Kernel) -> Observation:
    """G6: the pin ends, and all pages are asked for, of which some are private already."""
    file = convertible(kernel, 3, SHARED)
    file.pin(1)
    for page in range(3):
        file.convert(page, 1, private=True)
    return seen(
        file.unpin(1), file.convert(0, 3, private=True), *touches(file, 3), wanted=(OK, (OK, -1), *[SIGBUS] * 3)
    )


def own_batch(kernel: Kernel) -> Observation:
    """G7: the page is in the batch of the CPU that converts."""
    kernel.run_on(kernel.cpus()[0])
    file = convertible(kernel, 1, SHARED)
    file.fill(0)
    return seen(file.convert(0, 1, private=True), file.touch(0), wanted=((OK, -1), SIGBUS))


def other_batch(kernel: Kernel) -> Observation:
    """G8: the page is in the batch of another CPU."""
    file = convertible(kernel, 1, SHARED)
    here, other = two_cpus(kernel)
    kernel.run_on(other)
    file.fill(0)
    kernel.run_on(here)
    return seen(file.convert(0, 1, private=True), file.touch(0), wanted=((OK, -1), SIGBUS))


def pinned_and_batched(kernel: Kernel) -> Observation:
    """G10: the page is pinned and in another CPU's batch."""
    file = convertible(kernel, 1, SHARED)
    here, other = two_cpus(kernel)
    kernel.run_on(other)
    file.fill(0)
    kernel.run_on(here)
    return seen(file.pin(0), file.convert(0, 1, private=True), wanted=(OK, (EAGAIN, 0)))


def two_processes(kernel: Kernel) -> Observation:
    """G11: two processes map the page."""
    file = convertible(kernel, 1, SHARED)
    before = [file.touch(0, process=process) for process in (0, 1)]
    answer = file.convert(0, 1, private=True)
    after = [file.touch(0, process=process) for process in (0, 1)]
    return seen(*before, answer, *after, wanted=(OK, OK, (OK, -1), SIGBUS, SIGBUS))


def race_of_a_fault(kernel: Kernel) -> Observation:
    """G12: a process touches the page all the time."""
    file = convertible(kernel, 1, SHARED)
    answers: set[str] = set()
    wrong = 0
    for _ in range(ROUNDS):
        file.meanwhile(0)
        answer, at = file.convert(0, 1, private=True)
        answers.add(answer)
        wrong += answer == OK and file.touch(0) != SIGBUS
        wrong += answer != OK and at != 0
        file.convert(0, 1, private=False)
    return raced(answers, wrong)


def race_of_a_pin(kernel: Kernel) -> Observation:
    """G13: the page is pinned and let go all the time."""
    file = convertible(kernel, 1, SHARED)
    answers: set[str] = set()
    wrong = 0
    for _ in range(ROUNDS):
        file.meanwhile(0, pin=True)
        answer, at = file.convert(0, 1, private=True)
        answers.add(answer)
        wrong += answer == OK and file.pin(0) == OK
        wrong += answer != OK and at != 0
        file.convert(0, 1, private=False)
    return raced(answers, wrong)


def raced(answers: set[str], wrong: int) -> Observation:
    """Returns whether each conversion of a race was answered with 0, or -EAGAIN at the page, and no touch or pin worked
    on a private page; and what was seen. wrong: how many were not so."""
    return answers <= {OK, EAGAIN} and not wrong, f"{ROUNDS} conversions: {', '.join(sorted(answers))}; wrong: {wrong}"


def not_allocated(kernel: Kernel) -> Observation:
    """G14: conversion before allocation, both ways."""
    file = convertible(kernel, 1, SHARED)
    there = file.convert(0, 1, private=True), file.touch(0)
    back = file.convert(0, 1, private=False), file.touch(0)
    return seen(*there, *back, wanted=((OK, -1), SIGBUS, (OK, -1), OK))


def hole_of_converted(kernel: Kernel) -> Observation:
    """G15: a hole in a page that was converted to private."""
    file = convertible(kernel, 1, SHARED)
    file.write(0, VALUE)
    answer = file.convert(0, 1, private=True)
    return seen(answer, file.punch(0, PAGE_SIZE), file.touch(0), wanted=((OK, -1), OK, SIGBUS))


def long_pin(kernel: Kernel) -> Observation:
    """G16: the page is pinned for long: every request is refused, until the VMM ends its pin."""
    file = convertible(kernel, 1, SHARED)
    pin = file.pin(0)
    refused = [file.convert(0, 1, private=True) for _ in range(REFUSALS)]
    return seen(
        pin,
        *refused,
        file.unpin(0),
        file.convert(0, 1, private=True),
        wanted=(OK, *[(EAGAIN, 0)] * REFUSALS, OK, (OK, -1)),
    )


def two_cpus(kernel: Kernel) -> tuple[int, int]:
    """Two CPUs of this process. Raises NotPossible where it has one."""
    cpus = kernel.cpus()
    if len(cpus) < 2:
        raise NotPossible("needs two CPUs")
    return cpus[0], cpus[1]


def touches(file: File, pages: int) -> list[str]:
    return [file.touch(page) for page in range(pages)]


def seen(*answers: object, wanted: tuple[object, ...]) -> Observation:
    """Answers compared with those of the rules, and in words: that of a conversion with the page that it names."""
    return answers == wanted, ", ".join(_word(answer) for answer in answers)


def _word(answer: object) -> str:
    if not isinstance(answer, tuple):
        return str(answer)
    error, page = answer
    return f"{error} at page {page}" if page >= 0 else str(error)
