"""Kernels by version as policies: linux-6.14; with a fix, linux-6.14+3ec8a8330a1a; without one, linux-7.1~42546fc642e9.

A range of versions is one preset, with the choices and bugs that its last kernels have; any version of the range is a
name of it. What an earlier version did is the preset without a fix: Linux 6.17 itself is linux-6.17~d16a74f0f266. A
point release is its mainline version.
Sources and stable versions: docs/kernel-fixes.md.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from ..errors import InputError
from .fixes import FIXES, Fix, fix, order, standing
from .policy import Policy

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
        """What the preset is called: linux- and the first version of the range."""
        return f"linux-{self.first}"

    @property
    def versions(self) -> str:
        return (
            f"Linux {self.first} and later"
            if not self.last
            else (f"Linux {self.first}" if self.first == self.last else f"Linux {self.first}-{self.last}")
        )

    @property
    def newest(self) -> str:
        """The version whose fixes it has: the last one, or what is newest now."""
        return self.last or self.first

    def each(self) -> Iterator[str]:
        """Its mainline versions, oldest first; of an open range those that are known."""
        last = order(self.newest)
        for major in range(order(self.first)[0], last[0] + 1):
            for minor in range(LAST_MINOR.get(major, last[1]) + 1):
                if order(self.first) <= order(f"{major}.{minor}") <= last:
                    yield f"{major}.{minor}"


LAST_MINOR = {5: 19, 6: 19}
"""The last minor version of each major one that has ended."""

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
    """Returns the range of a version. Raises InputError for a version before the first, and for one that does not
    exist."""
    major, minor = order(version)[:2]
    for kernel in KERNELS if minor <= LAST_MINOR.get(major, minor) else ():
        if order(version) >= order(kernel.first) and (not kernel.last or (major, minor) <= order(kernel.last)[:2]):
            return kernel
    raise InputError(
        "no kernel of the lab",
        value=f"linux-{version}",
        allowed=", ".join(k.versions for k in KERNELS),
        cause="secure guests came with Linux 5.7; 5.19 and 6.19 are the last of their series",
        then="ultrafolio policies",
    )


def find(name: str) -> Policy:
    """The policy of linux-VERSION, with each +COMMIT a fix more and with each ~COMMIT a fix less.

    The order of the changes does not matter, and one that is taken back is none. InputError for what is no such name,
    and for a fix that the kernel has or lacks already, that it never needed, that the lab does not know, or that
    changes nothing here.
    """
    found = _NAME.fullmatch(name)
    if not found:
        raise InputError(
            "unknown kernel",
            value=name,
            allowed="linux-6.14, linux-6.14+3ec8a8330a1a or linux-7.1~42546fc642e9",
            then="ultrafolio policies",
        )
    version = found[1]
    kernel = kernel_of(version)
    now = {row.commit: stands(version, row) for row in FIXES}
    at_first = dict(now)
    for sign, commit in re.findall(r"([+~])([0-9a-f]+)", found[2]):
        row = fix(commit)
        _may_change(name, version, row, sign, now)
        now[row.commit] = HAS if sign == "+" else LACKS
    changed = {commit for commit in now if now[commit] != at_first[commit]}

    def made(some: set[str]) -> Policy:
        stand = {commit: (now if commit in some else at_first)[commit] for commit in now}
        return _made(kernel.policy, stand, some)

    for commit in sorted(changed):
        if made({commit}) == made(set()) and made(changed) == made(changed - {commit}):
            raise _refused(name, version, fix(commit), "a later fix that this kernel has decides the same choice")
    return made(changed)


HAS, LACKS, OLDER, LEFT_OUT = "has the fix", "has the bug", "is older than the bug", "has the bug, left out here"


def stands(version: str, row: Fix) -> str:
    """Returns the relation of a version's preset to a fix: HAS, LACKS, OLDER or LEFT_OUT."""
    kernel = kernel_of(version)
    if row.commit in kernel.carries:
        return HAS
    return LEFT_OUT if row.commit in dict(kernel.leaves) else standing(row, kernel.newest)


def _may_change(name: str, version: str, row: Fix, sign: str, now: dict[str, str]) -> None:
    """Raises InputError if a fix can be neither added nor removed. now: the relation of the kernel to each fix so
    far."""
    stand, linux, kernel = now[row.commit], f"Linux {version}", kernel_of(version)
    why = ""
    if sign == "+" and stand == HAS:
        added = stands(version, row) != HAS
        stable = f": the preset is that of the last stable kernels of {kernel.versions}"
        why = (
            f"the name has this fix already, from an earlier +{row.commit}"
            if added
            else f"{linux} has this fix already" + (stable if row.commit in kernel.carries else "")
        )
        if not added and standing(row, version) == LACKS and row.commit not in kernel.carries:
            why = f"{kernel.versions} is one preset, which has this fix; {linux} itself is linux-{version}~{row.commit}"
    elif sign == "~" and stand in (LACKS, LEFT_OUT):
        why = f"{linux} is without it as it is" if stands(version, row) != HAS else "the name is without it already"
    elif stand == OLDER:
        word = "needed it" if sign == "+" else "had the bug"
        why = f"{linux} never {word}: the bug came with {row.first_bad}"
    if stand == LEFT_OUT:
        why += f"{'; ' if why else ''}the preset leaves its bug out: {dict(kernel.leaves)[row.commit]}"
    if not why and not row.without and not row.having:
        why = row.why_not or f"it is no choice of an import; {row.shown_by} shows it"
    if why:
        raise _refused(name, version, row, why)


def _refused(name: str, version: str, row: Fix, cause: str) -> InputError:
    return InputError(
        f"{name}: {row.commit} makes no difference",
        value=row.subject,
        allowed=f"a fix that Linux {version} lacks after +, one that it has after ~",
        cause=cause,
        then="docs/kernel-fixes.md says which kernels have it",
    )


def _made(policy: Policy, now: dict[str, str], changed: Collection[str]) -> Policy:
    """Returns a range's policy with the fixes of `changed` set as in `now`; of several for one choice the last
    decides."""
    rows = [row for row in FIXES if row.commit in changed]
    choices: dict[str, str | int] = {}
    bugs = set(policy.variants)
    for row in reversed(rows):
        if now[row.commit] != HAS:
            choices |= {field: value for field, value in row.without if not _decided_later(row, field, now)}
            bugs |= {str(value) for field, value in row.without if field == "variants"}
    for row in rows:
        if now[row.commit] == HAS:
            choices |= {field: value for field, value in row.having if not _decided_later(row, field, now)}
            bugs -= {value for field, value in row.without if field == "variants"}
    choices.pop("variants", None)
    return replace(policy, variants=tuple(sorted(bugs)), **choices)  # type: ignore[arg-type]


def _decided_later(row: Fix, choice: str, now: dict[str, str]) -> bool:
    """Whether a later fix, which the kernel has, decides this choice."""
    return any(now[other.commit] == HAS and choice in dict(other.having) for other in FIXES[FIXES.index(row) + 1 :])
