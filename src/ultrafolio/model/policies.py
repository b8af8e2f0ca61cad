"""The policies that have names: the presets, the kernels by version, and the user's own.

A policy is written as a small TOML table; what it does not say is taken from its `base` (model.md §4):

    [policy.mine]
    base = "split"
    refs = "page"
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..errors import InputError, one_of
from ..fields import Field, read_toml, take
from . import kernels
from .guest_memfd import policy as memfd
from .guest_memfd.policy import MemfdPolicy
from .policy import CHOICES, VARIANTS, Policy

AnyPolicy = Policy | MemfdPolicy
"""A policy of any design."""

PRESETS: dict[str, tuple[str, Policy]] = {
    "per-page": ("seed, idealised: references per page too", Policy(refs="page")),
    "whole-folio": ("seed: the proposal's intended result", Policy(track="folio", accessible="folio")),
    "whole-folio-literal": (
        "the posted loops, on large folios (the posted kernel refused those)",
        Policy(track="folio", accessible="folio-literal"),
    ),
    "refuse-large": ("the idea of Linux 6.4-6.9", Policy(large="refuse")),
    "split": ("the idea of Linux 6.10-6.13", Policy(large="split")),
    "split-false-success": (
        "the idea of Linux 6.14-6.15",
        Policy(large="split", after_split="false-success", drain="all", import_ref="held"),
    ),
    "split-writeback": (
        "the idea of Linux 6.16-6.19",
        Policy(large="split", after_split="retry", split_writeback=1, drain="all", import_ref="held"),
    ),
    "import-lock": (
        "the idea of Linux 7.0",
        Policy(
            large="split",
            after_split="retry",
            split_writeback=1,
            drain="all",
            import_lock="vm",
            large_at="after-export",
            import_ref="held",
        ),
    ),
    "folio-bitmap": ("what-if", Policy(track="folio+bitmap", drain="all")),
    "folio-bitmap-pins": ("what-if", Policy(track="folio+bitmap", refs="page", drain="all")),
}

FIELDS = {
    "base": Field("text", "split"),
    **{name: Field("choice", None, choices=words) for name, words in CHOICES.items()},
    "split_writeback": Field("int", None, 0, 2),
    "give_up": Field("int", None, 1, 255),
    "variants": Field("texts", None),
}


def design_of(policy: AnyPolicy) -> str:
    """Returns the name of a policy's design."""
    return policy.design if isinstance(policy, MemfdPolicy) else "s390"


def fits_machine(policy: AnyPolicy, machine: str) -> bool:
    """Whether a machine can enforce what a policy of its design decides."""
    return not isinstance(policy, MemfdPolicy) or policy.fits(machine)


def presets_for(design: str, machine: str, folios: list[int]) -> tuple[str, ...]:
    """Returns the names of a design's presets that fit a machine; those with huge pages only where a folio is of order
    1 or more."""
    if design == "s390":
        return tuple(PRESETS)
    presets = {name: policy for name, (_, policy) in memfd.PRESETS.items() if policy.fits(machine)}
    return tuple(name for name, policy in presets.items() if policy.large == "none" or any(folios))


def presets_of(design: str) -> tuple[str, ...]:
    """Returns the names of a design's presets."""
    return tuple(PRESETS if design == "s390" else memfd.PRESETS)


def any_from_table(table: Mapping[str, Any], where: str) -> AnyPolicy:
    """The policy that a TOML table describes: one of the design of its `base`. InputError as from_table()."""
    return memfd.from_table(table, where) if table.get("base") in memfd.PRESETS else from_table(table, where)


def of_design(design: str, table: Mapping[str, Any], where: str) -> AnyPolicy:
    """The policy of a design that a TOML table describes, with or without `base`. InputError as from_table()."""
    return memfd.from_table(table, where) if design == "guest_memfd" else from_table(table, where)


def from_table(table: Mapping[str, Any], where: str) -> Policy:
    """The policy of s390 that a TOML table describes. InputError for any field or value that is not one of the
    choices."""
    values = take(table, where, FIELDS, then="ultrafolio policies")
    base = _s390(values.pop("base"))
    for name in values["variants"] or ():
        if name not in VARIANTS:
            raise one_of(f"{where}: variants", name, VARIANTS, then="ultrafolio policies")
    if values["variants"] is not None:
        values["variants"] = tuple(sorted(set(values["variants"])))
    return replace(base, **{name: value for name, value in values.items() if value is not None})


def differences(base: AnyPolicy, policy: AnyPolicy) -> dict[str, Any]:
    """Returns the choices in which a policy differs from another one of its design, with its values."""
    return {name: value for name, value in asdict(policy).items() if getattr(base, name) != value}


def names() -> list[str]:
    """The names of the presets and of the kernels of s390."""
    return [*PRESETS, *kernels.names()]


def find(name: str, tables: Mapping[str, Any] | None = None) -> Policy:
    """The policy of s390 called `name`, as find_any(). InputError as of_s390()."""
    return of_s390(find_any(name, tables), name)


def of_s390(policy: AnyPolicy, name: str) -> Policy:
    """Returns the policy, for an engine that runs the rules of s390 only. InputError for one of another design."""
    if isinstance(policy, MemfdPolicy):
        raise InputError(
            "a policy of a design that this does not support",
            value=f"{name}, of the design {policy.design}",
            allowed="a policy of the design s390",
            cause="what was asked for has the rules of s390 only",
            then="ultrafolio policies",
        )
    return policy


def find_any(name: str, tables: Mapping[str, Any] | None = None) -> AnyPolicy:
    """The policy called `name`, of any design: one of `tables` (a file's [policy.NAME] blocks), a preset, a kernel
    (kernels.find), or FILE.toml[#NAME]; or one of these with choices that differ, as in `split,refs=page,drain=all`.

    A FILE.toml holds one [policy.NAME] table, or several and the name after `#` says which.
    """
    tables = tables or {}
    _refuse_shipped(tables)
    if name in tables:
        return any_from_table(tables[name], f"[policy.{name}]")
    first, *changes = name.split(",")
    if changes and all("=" in change for change in changes):
        return _changed(find_any(first, tables), changes, name)
    file, _, which = name.partition("#")
    if file.endswith(".toml"):
        blocks = read_toml(Path(file)).get("policy", {})
        _refuse_shipped(blocks)
        if not which and len(blocks) == 1:
            which = next(iter(blocks))
        if which not in blocks:
            raise one_of(f"{file}: no [policy.{which or 'NAME'}] table", which, blocks, then="ultrafolio policies")
        return any_from_table(blocks[which], f"{file}: [policy.{which}]")
    return _preset(name, tables)


def _changed(base: AnyPolicy, changes: Iterable[str], name: str) -> AnyPolicy:
    """A policy with other values, CHOICE=VALUE, of some choices. InputError for an unknown choice or value."""
    fields = memfd.FIELDS if isinstance(base, MemfdPolicy) else FIELDS
    said = dict(change.split("=", 1) for change in changes)
    table = {choice: int(value) if value.isdecimal() else value for choice, value in said.items()}
    known = {choice: field for choice, field in fields.items() if choice not in ("base", "variants")}
    values = take(table, f"policy {name}", known, then="ultrafolio policies")
    return replace(base, **{choice: values[choice] for choice in table})


def _refuse_shipped(blocks: Iterable[str]) -> None:
    """InputError where a [policy.NAME] block has the name of a preset or a kernel."""
    for taken in blocks:
        if taken in (*names(), *memfd.PRESETS):
            raise InputError(
                f"[policy.{taken}]: a preset or a kernel has this name",
                value=taken,
                allowed="any other name",
                cause="it would stand in for the shipped one unseen",
                then=f"name it [policy.my-{taken}], and --policy my-{taken}",
            )


def _preset(name: str, tables: Iterable[str] = ()) -> AnyPolicy:
    """The preset of any design, or the kernel, of this name. InputError as _s390()."""
    return memfd.PRESETS[name][1] if name in memfd.PRESETS else _s390(name, tables)


def _s390(name: str, tables: Iterable[str] = ()) -> Policy:
    """The preset of s390, or the kernel, of this name. InputError, which also names the `tables`, if there is none."""
    if name in PRESETS:
        return PRESETS[name][1]
    if kernels.is_kernel(name):
        return kernels.find(name)
    raise one_of("unknown policy", name, [*tables, *names(), *memfd.PRESETS], then="ultrafolio policies")
