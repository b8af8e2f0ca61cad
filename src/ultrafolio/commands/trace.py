"""`ultrafolio trace`: trace files of the checker, certified again by the plain interpreter."""

from __future__ import annotations

from pathlib import Path

import click

from ultrafolio.check import formats_trace
from ultrafolio.engine.load import digest
from ultrafolio.errors import InputError


@click.group("trace")
def trace() -> None:
    """Work with the trace files that `ultrafolio check --save FILE` writes."""


@trace.command("verify")
@click.argument("file", type=click.Path(path_type=Path))
def verify(file: Path) -> int:
    """Replay the counterexample in FILE with the plain interpreter, step by step, and test its claim.

    \b
    ultrafolio check scenarios/03-virtio.toml --policy whole-folio --save hang.json
    ultrafolio trace verify hang.json

    Exit codes: 0 certified, 1 a step is not possible or the claim fails, 2 not a trace file, or made under other rules.
    """
    made = formats_trace.read(file)
    wrong = formats_trace.verify(made)
    if made.rules != digest():
        raise InputError(
            f"{file}: made under other rules", value=f"rules {made.rules}", allowed=f"rules {digest()}",
            cause=f"under these rules {wrong or 'it certifies all the same'}",
            then=f"ultrafolio check {made.scenario} --policy {made.policy} --save {file}",
        )  # fmt: skip
    if wrong:
        click.echo(f"{file}: not certified: {wrong}")
        return 1
    click.echo(f"{file}: certified: {made.scenario} under {made.policy}, {len(made.path)} steps: {made.text}")
    return 0
