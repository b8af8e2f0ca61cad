"""The policies: one point in the product of nine choices, the ten presets, and the user's own.

A policy is written as a small TOML table; what it does not say is taken from its `base` (MODEL section 4):

    [policy.mine]
    base = "split"
    refs = "page"
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import one_of
from ..fields import Field, read_toml, take

CHOICES: dict[str, tuple[str, ...]] = {
    "track": ("page", "folio", "folio+bitmap"),
    "accessible": ("page", "folio", "folio-literal"),
    "refs": ("page", "folio"),
    "large": ("direct", "refuse", "split"),
    "after_split": ("again", "retry", "false-success"),
    "drain": ("none", "own-then-all", "all"),
    "import_lock": ("none", "vm"),
    "on_busy": ("refault", "sleep", "give-up"),
}
MEANING = {
    "track": "unit of the arch bit",
    "accessible": "what a pin or a host access makes accessible",
    "refs": "whose references block an import",
    "large": "what an import does with a large folio",
    "after_split": "after a split: go on at once, touch again, or report success without importing (6.14)",
    "split_writeback": "write-backs tried on a dirty iomap folio",
    "drain": "LRU draining on extra references",
    "import_lock": "one import at a time per VM",
    "on_busy": "touch again for ever, sleep until the reference is dropped, or tell the VMM after give_up tries",
    "give_up": "tries before the VMM is told; used where on_busy is give-up",
}


@dataclass(frozen=True, slots=True)
class Policy:
    """The nine choices; `split_writeback` is 0, 1 or 2, `give_up` a number of tries (1 to 255)."""

    track: str = "page"
    accessible: str = "page"
    refs: str = "folio"
    large: str = "direct"
    after_split: str = "again"
    split_writeback: int = 0
    drain: str = "own-then-all"
    import_lock: str = "none"
    on_busy: str = "refault"
    give_up: int = 8

    def codes(self) -> dict[str, int]:
        """The choices as the integers of layout.py, which number them in the same order."""
        values = asdict(self)
        return {name: CHOICES[name].index(v) if name in CHOICES else v for name, v in values.items()}


PRESETS: dict[str, tuple[str, Policy]] = {
    "per-page": ("seed, idealised: references per page too", Policy(refs="page")),
    "whole-folio": ("seed: the proposal's intended result", Policy(track="folio", accessible="folio")),
    "whole-folio-literal": (
        "the posted loops, on large folios (the posted kernel refused those)",
        Policy(track="folio", accessible="folio-literal"),
    ),
    "refuse-large": ("Linux 6.4-6.9", Policy(large="refuse")),
    "split": ("Linux 6.10-6.13", Policy(large="split")),
    "split-false-success": ("Linux 6.14", Policy(large="split", after_split="false-success", drain="all")),
    "split-writeback": (
        "Linux 6.16",
        Policy(large="split", after_split="retry", split_writeback=1, drain="all"),
    ),
    "import-lock": (
        "Linux 7.0",
        Policy(large="split", after_split="retry", split_writeback=1, drain="all", import_lock="vm"),
    ),
    "folio-bitmap": ("what-if", Policy(track="folio+bitmap", drain="all")),
    "folio-bitmap-pins": ("what-if", Policy(track="folio+bitmap", refs="page", drain="all")),
}

FIELDS = {
    "base": Field("choice", "split", choices=tuple(PRESETS)),
    **{name: Field("choice", None, choices=words) for name, words in CHOICES.items()},
    "split_writeback": Field("int", None, 0, 2),
    "give_up": Field("int", None, 1, 255),
}


def from_table(table: Mapping[str, Any], where: str) -> Policy:
    """The policy that a TOML table describes. InputError for any field or value that is not one of the choices."""
    values = take(table, where, FIELDS, then="ultrafolio policies")
    base = PRESETS[values.pop("base")][1]
    return replace(base, **{name: value for name, value in values.items() if value is not None})


def find(name: str, tables: Mapping[str, Any] | None = None) -> Policy:
    """The policy called `name`: one of `tables` (a file's [policy.NAME] blocks), a preset, or FILE.toml[#NAME].

    A FILE.toml holds one [policy.NAME] table, or several and the name after `#` says which.
    """
    tables = tables or {}
    if name in tables:
        return from_table(tables[name], f"[policy.{name}]")
    if name in PRESETS:
        return PRESETS[name][1]
    file, _, which = name.partition("#")
    if file.endswith(".toml"):
        blocks = read_toml(Path(file)).get("policy", {})
        if not which and len(blocks) == 1:
            which = next(iter(blocks))
        if which not in blocks:
            raise one_of(f"{file}: no [policy.{which or 'NAME'}] table", which, blocks, then="ultrafolio policies")
        return from_table(blocks[which], f"{file}: [policy.{which}]")
    raise one_of("unknown policy", name, [*tables, *PRESETS], then="ultrafolio policies")
