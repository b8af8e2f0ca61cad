"""`ultrafolio policies`: the presets and the user's own policies as a table of their choices."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click
from rich.table import Table

from ultrafolio import screen
from ultrafolio.errors import InputError
from ultrafolio.fields import read_toml
from ultrafolio.model.kernels import KERNELS
from ultrafolio.model.policies import PRESETS, from_table
from ultrafolio.model.policy import CHOICES, MEANING, VARIANTS, Policy


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
    rows = {name: (source, policy) for name, (source, policy) in PRESETS.items()}
    rows |= {kernel.name: (f"{kernel.versions}: {kernel.about}", kernel.policy) for kernel in KERNELS}
    for file in files:
        blocks = read_toml(file).get("policy")
        if not blocks:
            raise InputError(
                f"{file}: no policy in it", allowed="[policy.NAME] blocks", then="ultrafolio policies --help"
            )
        for name, block in blocks.items():
            own = from_table(block, f"{file}: [policy.{name}]")
            rows[f"{file}#{name}"] = (f"your own, from {block.get('base', 'split')}", own)
    if as_json:
        for name, (source, policy) in rows.items():
            click.echo(json.dumps({"policy": name, "source": source, **asdict(policy)}))
        return
    console = screen.console()
    screen.show(_table(rows), console)
    for name, (source, _) in rows.items():
        console.print(f"[bold]{name}[/]  {source}")
    console.print("\n[bold]variants[/]  bugs of kernels that a policy may have:")
    for name, (_, text) in VARIANTS.items():
        console.print(f"  [bold]{name}[/]  {text}")
    console.print()
    more = {"split_writeback": ("0", "1", "2"), "give_up": ("1..255",), "variants": tuple(VARIANTS)}
    for name, text in MEANING.items():
        values = " | ".join(CHOICES.get(name) or more[name])
        console.print(f"[bold]{name}[/]  {text}: [dim]{values}[/]")


def _table(rows: dict[str, tuple[str, Policy]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    short = {"accessible": "access", "import_lock": "lock", "on_busy": "busy", "import_ref": "ref", "interrupt": "irq"}
    for title in ("policy", *CHOICES, "split_wb"):
        table.add_column(short.get(title, title.replace("_", " ")), no_wrap=True)
    for name, (_, policy) in rows.items():
        choices = asdict(policy)
        if policy.large != "split":
            choices["after_split"] = "-"
        table.add_row(name, *(choices[c] for c in CHOICES), str(policy.split_writeback))
    return table
