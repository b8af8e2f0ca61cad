"""Kernels by version as policies: linux-6.14; with a fix, linux-6.14+3ec8a8330a1a; without one, linux-7.1~42546fc642e9.

A range of versions is one preset, with the choices and bugs that its last kernels have; an earlier one of the range is
the preset without a fix. Sources and stable versions: docs/kernel-fixes.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ..errors import InputError
from .fixes import Fix, fix, order, standing
from .policies import Policy

GUP_BUG, LOCK_BUG, FAULT_BUG = "gup-skips-failed-page", "freeze-without-pte-lock", "faultin-false-success"


@dataclass(frozen=True, slots=True)
class Kernel:
    """The mainline versions from `first` to `last` ("" for: and later), and what they do.

    about     in a few words, with the commits that brought it
    carries   fixes that its last stable kernels have and its mainline versions have not
    leaves    fixes that it lacks and whose bug the preset leaves out, each with the reason
    """

    first: str
    last: str
    about: str
    policy: Policy
    carries: tuple[str, ...] = ()
    leaves: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """What the preset is called: linux- and its first version."""
        return f"linux-{self.first}"

    @property
    def versions(self) -> str:
        return f"Linux {self.first} and later" if not self.last else (
            f"Linux {self.first}" if self.first == self.last else f"Linux {self.first}-{self.last}")  # fmt: skip

    @property
    def newest(self) -> str:
        """The version whose fixes it has: the last one, or what is newest now."""
        return self.last or self.first


_PAGE = Policy(large="never", variants=(GUP_BUG,))
_SPLIT = Policy(large="split", import_ref="waiting", variants=(GUP_BUG,))
_HVA = Policy(large="split", after_split="false-success", drain="all", import_ref="held", variants=(GUP_BUG,))
_WIGGLE = replace(_HVA, after_split="retry", split_writeback=1, variants=())
_GMAP = replace(_WIGGLE, import_lock="vm", large_at="after-export", unmap="folio")
_UNUSED = ("d4bb00704a66", "it needs CMMA, which a secure guest has not")
_LEAK = ("6ae67dcac742", "it needs a call that finds no memory")

KERNELS: tuple[Kernel, ...] = (
    Kernel("5.7", "6.3", "imports freeze the page's own count, which no page of a large folio matches (214d9bbcd3a6); "
           "export before the import of a foreign page (72b1daff2671)", _PAGE),
    Kernel("6.4", "6.9", "a trylock of the folio (c148dc8e2fa4); 6.6.44 refuses large folios (259e660d91d0), mainline "
           "tries them for ever", replace(_PAGE, large="refuse"), carries=("259e660d91d0",)),
    Kernel("6.10", "6.13", "since 6.11 large folios are split, with a reference over the split and over the wait for "
           "writeback (eef88fe45ac9, 3f29f6537f54); 6.10 refuses them", _SPLIT),
    Kernel("6.14", "6.15", "make_hva_secure: a reference from the walk on, every CPU drained, success after a split "
           "(d8dfda5af0be)", _HVA),
    Kernel("6.16", "6.19", "a split is no success, and a dirty folio is written back first (3ec8a8330a1a, "
           "bd428b8c79ed, ab73b29efd36); 6.18 mends the fast pin (d16a74f0f266)", _WIGGLE),
    Kernel("7.0", "7.0", "one import at a time per VM (cf3ce3d69d56), on the rewritten guest tables (e38c884df921); "
           "exports and unmaps whole folios (21401ce49706)",
           replace(_GMAP, variants=(FAULT_BUG, LOCK_BUG)), leaves=(_LEAK, _UNUSED)),
    Kernel("7.1", "7.1", "the page-table lock is held again, and a failed fault-in is no success (42546fc642e9, "
           "9a1dfbbd3506)", _GMAP, carries=("d4bb00704a66", "5670b7f927f8")),
    Kernel("7.2", "", "an adapter interrupt of a secure guest pins its page for a moment (c9a568838086)",
           replace(_GMAP, interrupt="pin")),
)  # fmt: skip
_NAME = re.compile(r"linux-(\d+\.\d+)(?:\.\d+)?((?:[+~][0-9a-f]+)*)")


def is_kernel(name: str) -> bool:
    """Whether a policy's name is meant to be a kernel."""
    return name.startswith("linux-")


def names() -> list[str]:
    """The presets' names, oldest first."""
    return [kernel.name for kernel in KERNELS]


def kernel_of(version: str) -> Kernel:
    """The range that a version lies in. InputError for one before the first."""
    for kernel in KERNELS:
        if order(version) >= order(kernel.first) and (not kernel.last or order(version) <= order(kernel.last)):
            return kernel
    raise InputError("no kernel of the lab", value=f"linux-{version}", allowed=", ".join(k.versions for k in KERNELS),
                     cause="secure guests came with Linux 5.7", then="ultrafolio policies")  # fmt: skip


def find(name: str) -> Policy:
    """The policy of linux-VERSION, with each +COMMIT a fix more and with each ~COMMIT a fix less.

    InputError for what is no such name, and for a fix that the kernel has or lacks already, that it never needed, that
    the lab does not know, or that changes nothing here.
    """
    found = _NAME.fullmatch(name)
    if not found:
        raise InputError("unknown kernel", value=name, allowed="linux-6.14, linux-6.14+3ec8a8330a1a or "
                         "linux-7.1~42546fc642e9", then="ultrafolio policies")  # fmt: skip
    kernel = kernel_of(found[1])
    policy = kernel.policy
    for sign, commit in re.findall(r"([+~])([0-9a-f]+)", found[2]):
        change = _with if sign == "+" else _without
        policy = change(name, kernel, policy, fix(commit))
    return policy


def _refused(name: str, kernel: Kernel, row: Fix, cause: str) -> InputError:
    return InputError(f"{name}: {row.commit} makes no difference", value=row.subject,
                      allowed=f"a fix that {kernel.versions} lacks after +, one that it has after ~", cause=cause,
                      then="docs/kernel-fixes.md says which kernels have it")  # fmt: skip


def _has(kernel: Kernel, row: Fix) -> bool:
    return row.commit in kernel.carries or standing(row, kernel.newest) == "has the fix"


def _with(name: str, kernel: Kernel, policy: Policy, row: Fix) -> Policy:
    if _has(kernel, row):
        raise _refused(name, kernel, row, f"{kernel.versions} has this fix already")
    if standing(row, kernel.newest) == "is older than the bug":
        raise _refused(name, kernel, row, f"{kernel.versions} never needed it: the bug came with {row.first_bad}")
    if left := dict(kernel.leaves).get(row.commit):
        raise _refused(name, kernel, row, f"the preset leaves its bug out: {left}")
    _must_show(name, kernel, row)
    gone = {value for field, value in row.without if field == "variants"}
    changed = {field: value for field, value in row.having if field != "variants"}
    return replace(policy, variants=tuple(v for v in policy.variants if v not in gone), **changed)  # type: ignore[arg-type]


def _without(name: str, kernel: Kernel, policy: Policy, row: Fix) -> Policy:
    left_out = row.commit in dict(kernel.leaves)
    if not _has(kernel, row) and not left_out:
        older = standing(row, kernel.newest) == "is older than the bug"
        raise _refused(name, kernel, row, f"{kernel.versions} never had the bug: it came with {row.first_bad}" if older
                       else f"{kernel.versions} is without it as it is")  # fmt: skip
    _must_show(name, kernel, row)
    bugs = {str(value) for field, value in row.without if field == "variants"}
    changed = {field: value for field, value in row.without if field != "variants"}
    return replace(policy, variants=tuple(sorted({*policy.variants, *bugs})), **changed)  # type: ignore[arg-type]


def _must_show(name: str, kernel: Kernel, row: Fix) -> None:
    if not row.without and not row.having:
        raise _refused(name, kernel, row, row.why_not or f"it is no choice of an import; {row.shown_by} shows it")
