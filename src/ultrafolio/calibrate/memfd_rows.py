"""The rows of the comparison with guest_memfd of a running kernel: each probe, its case, its rules, their words."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from ultrafolio.model import designs
from ultrafolio.model.rule import Rule

from . import memfd_cases as cases
from . import memfd_probes as probes
from .child import LIMIT_S, Ended, TooLong, apart
from .kvm import CAPABILITIES, Refused
from .memfd import Running
from .memfd_probes import Kernel, Missing, Probe
from .probes import AGREES, DIFFERS, IMPOSSIBLE, MISSING, Finding
from .sample import NotPossible

DESIGN: Final = designs.GUEST_MEMFD
_TOUCH = ("user-touch", "user-lock", "user-lookup", "user-map")
_PIN = ("pin-start", "gup-walk", "gup-get", "gup-recheck", "dma-ready")
_UNPIN = ("dma-unmap", "unpin")
_HOLE = ("hole-start", "hole-lock", "hole-punch", "hole-end")
_FAULT = ("vcpu-run", "vcpu-again", "fault-snapshot", "fault-lock", "fault-lookup", "fault-unlock", "fault-map")
_REFUSED = ("vmm-start", "convert-lock", "convert-test", "convert-unmap", "convert-pinned")
_DONE = (*_REFUSED, "convert-count", "convert-zap", "convert-store", "convert-end")
_TO_SHARED = ("vmm-start", "convert-lock", "convert-test", "convert-zap", "convert-store", "convert-end")

Row = tuple[str, tuple[str, ...], str, Probe]
ROWS: tuple[Row, ...] = (
    ("", (), "a file is mapped by processes only with GUEST_MEMFD_FLAG_MMAP, and only shared", probes.mapped_kind),
    ("", (), "sizes are whole pages, flags those that the capability names", probes.sizes),
    ("", (), "a slot has whole pages of its own VM's file, each page in one slot at most", probes.bindings),
    ("", _TOUCH, "a touch of a shared page faults it in, in any process", probes.shared_touch),
    ("", ("user-lookup",), "a touch of a private page is SIGBUS, allocated or not", probes.private_touch),
    ("", (*_PIN, *_TOUCH[1:], *_UNPIN), "a pin faults its page in, and stays until the VMM ends it", probes.pin_shared),
    ("", ("user-lookup",), "a pin or reference of a private page is -EFAULT", probes.pin_private),
    ("", ("plain-put", "pipe-read"), "a plain reference is one on the page of the file", probes.plain_reference),
    ("", _HOLE, "a hole unmaps and frees its pages; the next touch has a new one; they stay shared", probes.hole),
    ("", ("hole-punch",), "the model has no hole beside what keeps a page: that page lives on outside the file",
     probes.hole_under_pin),
    ("", ("hole-start",), "a hole has whole pages; an allocation ends with the file", probes.hole_sizes),
    ("", ("lru-add",), "a page that was just allocated is in its CPU's LRU batch, until that is drained", probes.batch),
    ("", _FAULT, "a guest's touch maps the page; after a hole it faults again", probes.guest_fault),
    ("G1", _DONE, "a shared page to private: 0, then SIGBUS", cases.to_private),
    ("G2", _TO_SHARED, "a private page to shared: 0, then the host may touch it", cases.to_shared),
    ("G3", ("vmm-start", "convert-lock", "convert-test"), "a private page to private: 0", cases.nothing_to_do),
    ("G4", _REFUSED, "one of four pages pinned: -EAGAIN at that page, all four still shared", cases.one_pinned),
    ("G5", _DONE, "each alone: only the pinned page is refused", cases.each_alone),
    ("G6", _DONE, "after the unpin, a range of which some pages are private: 0", cases.mixed_range),
    ("G7", (*_DONE, "convert-drain-own"), "a page in this CPU's batch: 0 in the same call", cases.own_batch),
    ("G8", (*_DONE, "convert-drain-all"), "a page in another CPU's batch: 0 in the same call", cases.other_batch),
    ("G10", _REFUSED, "pinned and in a batch: -EAGAIN", cases.pinned_and_batched),
    ("G11", _DONE, "two processes map the page: 0, then SIGBUS in both", cases.two_processes),
    ("G12", _DONE, "beside touches: 0 or -EAGAIN, and no process keeps a private page", cases.race_of_a_fault),
    ("G13", _DONE, "beside pins: 0 or -EAGAIN, and no pin is on a private page", cases.race_of_a_pin),
    ("G14", (*_DONE, *_TO_SHARED), "not allocated: 0, and a later touch obeys the attribute", cases.not_allocated),
    ("G15", _HOLE, "a hole in a private page: the host may touch it no more than before", probes.hole_private),
    ("G15", (*_HOLE, *_DONE), "a hole in a page that was converted: the attribute stays", cases.hole_of_converted),
    ("G16", (*_REFUSED, "vmm-retry"), "a long pin: -EAGAIN each time, until the VMM ends it; then 0", cases.long_pin),
)  # fmt: skip
"""(case of docs/conformance.md or "", rules, their words, probe)."""

_GUEST = "a step of the guest: it has no way to tell this process what it did"
_VMM = "a decision of the VMM, which this process would be"
_INSIDE = "happens inside one call, and leaves nothing that user space could read"
_OWN_REASON = {
    "fault-attribute": "a software-protected VM takes an access for the kind of the attribute (kvm_mmu_page_fault, "
    "v6.10), so none is of the other kind",
    **dict.fromkeys(
        ("convert-restructure", "convert-rollback", "fresh-unlock", "fresh-split"), "huge pages of a file are proposals"
    ),
}


def findings(kernel: Kernel | None = None) -> list[Finding]:
    """A finding per row, then the rules that no row is about. Without /dev/kvm, or without the right to open it: one
    finding that says so, for every rule. kernel: one that answers in place of the running one."""
    if kernel is None:
        try:
            kernel = Running()
        except NotPossible as error:
            every = tuple(rule.name for rule in DESIGN.rules.values())
            return [Finding(every, "", f"skipped: {error}", IMPOSSIBLE, design=DESIGN.name)]
    made = [_finding(kernel, *row) for row in ROWS]
    told = {name for _, rules, _, _ in ROWS for name in rules}
    rest: dict[str, list[str]] = {}
    for rule in DESIGN.rules.values():
        if rule.name not in told:
            rest.setdefault(_reason(rule), []).append(rule.name)
    return made + [Finding(tuple(names), "", why, IMPOSSIBLE, design=DESIGN.name) for why, names in rest.items()]


def _reason(rule: Rule) -> str:
    """Why no row is about a rule."""
    return _OWN_REASON.get(rule.name) or {"guest": _GUEST, "vmm": _VMM}.get(rule.actor, _INSIDE)


def _finding(kernel: Kernel, case: str, rules: tuple[str, ...], says: str, probe: Probe) -> Finding:
    """Run a probe in a process of its own. Returns its finding."""
    made = partial(Finding, tuple(dict.fromkeys(rules)), says, case=case, design=DESIGN.name)
    try:
        verdict, saw = apart(partial(_ask, probe, kernel))
    except TooLong:
        return made(f"no answer within {LIMIT_S:g} s; the probe was ended", IMPOSSIBLE)
    except Ended as ended:
        return made(f"the probe ended by {ended.how}", IMPOSSIBLE)
    if verdict == _DEFECT:
        raise RuntimeError(saw)
    return made(saw, verdict)


_DEFECT = "defect"


def _ask(probe: Probe, kernel: Kernel) -> tuple[str, str]:
    """(verdict, what the kernel did, or why it was not asked) of a probe."""
    try:
        right, saw = probe(kernel)
    except Missing as missing:
        return MISSING, f"missing: {missing}"
    except NotPossible as error:
        return IMPOSSIBLE, str(error)
    except Refused as refused:
        return IMPOSSIBLE, f"a call of the probe was refused: {refused.error}"
    except OSError as error:
        return IMPOSSIBLE, f"a call of the probe failed: {error.strerror}"
    except Exception:
        return _DEFECT, traceback.format_exc()
    return AGREES if right else DIFFERS, saw


def by_rule(found: Sequence[Finding]) -> dict[str, str]:
    """What the rows say of each rule: differs if one of its rows does, else agrees if one does, else the first reason
    why it was not asked."""
    said: dict[str, str] = {}
    for verdict in (DIFFERS, AGREES, None):
        for one in found:
            for name in one.rules if verdict in (one.verdict, None) else ():
                said.setdefault(name, one.saw if verdict is None else one.verdict)
    return {rule.name: said[rule.name] for rule in DESIGN.rules.values() if rule.name in said}


def capabilities(kernel: Kernel | None = None) -> Mapping[str, Any]:
    """The capabilities that the kernel answers with, by name; empty without /dev/kvm."""
    try:
        asked = kernel or Running()
        return {name: asked.capability(name) for name in CAPABILITIES}
    except (NotPossible, Refused):
        return {}
