"""`ultrafolio policies`: the presets and the user's own policies as a table of their choices, for each design."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from ultrafolio import screen
from ultrafolio.errors import InputError
from ultrafolio.fields import read_toml
from ultrafolio.model import policy as s390
from ultrafolio.model.designs import GUEST_MEMFD, S390
from ultrafolio.model.guest_memfd import policy as memfd
from ultrafolio.model.kernels import KERNELS
from ultrafolio.model.policies import PRESETS, AnyPolicy, any_from_table, design_of

Rows = dict[str, tuple[str, AnyPolicy]]
"""Name of a policy -> its source, and its choices."""


@dataclass(frozen=True)
class Kind:
    """What is told of the policies of a design. numbers: choices that are numbers, and their values in words."""

    choices: Mapping[str, tuple[str, ...]]
    columns: tuple[str, ...]
    numbers: dict[str, tuple[str, ...]]
    meaning: Mapping[str, str]
    variants: Mapping[str, tuple[str, str]]
    short: Mapping[str, str] = field(default_factory=dict)


KINDS = {
    S390.name: Kind(
        s390.CHOICES, (*s390.CHOICES, "split_writeback"), {"split_writeback": ("0", "1", "2"), "give_up": ("1..255",)},
        s390.MEANING, s390.VARIANTS,
        {"accessible": "access", "import_lock": "lock", "on_busy": "busy", "import_ref": "ref", "interrupt": "irq",
         "split_writeback": "split wb"},
    ),
    GUEST_MEMFD.name: Kind(
        memfd.CHOICES, (*memfd.CHOICES, "retries"), {"retries": ("0..255",)}, memfd.MEANING, memfd.VARIANTS
    ),
}  # fmt: skip
"""Name of a design -> what is told of its policies."""


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def policies(files: tuple[Path, ...], as_json: bool) -> None:
    """List the policies as a table of their choices.

    FILES are TOML files with your own [policy.NAME] blocks, which are listed after the presets. A block has the choices
    that differ from its base:

    \b
        [policy.mine]
        base = "split"        any preset
        refs = "page"

    and is used like a preset: --policy FILE.toml#mine, or in a plan that has the block.

    A kernel is a policy, too: --policy linux-6.14 is Linux 6.14, linux-6.14+3ec8a8330a1a the same with a fix of a
    stable kernel, linux-7.1~42546fc642e9 without one. docs/kernel-fixes.md lists the fixes.

    \b
    ultrafolio policies
    ultrafolio policies mine.toml --json

    Exit codes: 0 done, 2 bad input.
    """
    rows: Rows = dict(PRESETS)
    rows |= {kernel.name: (f"{kernel.versions}: {kernel.about}", kernel.policy) for kernel in KERNELS}
    rows |= memfd.PRESETS
    for file in files:
        blocks = read_toml(file).get("policy")
        if not blocks:
            raise InputError(
                f"{file}: no policy in it", allowed="[policy.NAME] blocks", then="ultrafolio policies --help"
            )
        for name, block in blocks.items():
            own = any_from_table(block, f"{file}: [policy.{name}]")
            rows[f"{file}#{name}"] = (f"your own, from {block.get('base', 'split')}", own)
    if as_json:
        for name, (source, policy) in rows.items():
            click.echo(json.dumps({"policy": name, "design": design_of(policy), "source": source, **asdict(policy)}))
        return
    console = screen.console()
    for design, kind in KINDS.items():
        console.print(f"{'' if design == S390.name else chr(10)}[bold]design {design}[/]")
        _show({name: row for name, row in rows.items() if design_of(row[1]) == design}, kind, console)


def _show(rows: Rows, kind: Kind, console: Console) -> None:
    """Print the policies of a design, and what its choices mean."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for title in ("policy", *kind.columns):
        table.add_column(kind.short.get(title, title.replace("_", " ")), no_wrap=True)
    for name, (_, policy) in rows.items():
        choices = asdict(policy)
        if choices.get("large", "split") != "split":
            choices["after_split"] = "-"
        table.add_row(name, *(str(choices[c]) for c in kind.columns))
    screen.show(table, console)
    for name, (source, _) in rows.items():
        console.print(f"[bold]{name}[/]  {source}")
    console.print("\n[bold]variants[/]  bugs that a policy may have:")
    for name, (_, text) in kind.variants.items():
        console.print(f"  [bold]{name}[/]  {text}")
    console.print()
    for name, text in kind.meaning.items():
        values = " | ".join(kind.choices.get(name) or (kind.numbers | {"variants": tuple(kind.variants)})[name])
        console.print(f"[bold]{name}[/]  {text}: [dim]{values}[/]")
