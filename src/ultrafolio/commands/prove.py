"""`ultrafolio prove`: safety for every size of a system, by induction over the rules."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from ultrafolio.commands.completion import among
from ultrafolio.errors import InputError, need
from ultrafolio.model import policies
from ultrafolio.model.layout import MAPPING
from ultrafolio.model.properties import PROPERTIES

WITHOUT = frozenset((MAPPING,))
"""Kinds of actors that no proof speaks of: with a second mapping property 5 fails under every policy (scenario 13)."""


@click.command("prove")
@click.option(
    "--policy",
    "names",
    multiple=True,
    required=True,
    shell_complete=among(policies.names),
    help="A preset, a kernel such as linux-6.16, or FILE.toml#NAME; several times for several.",
)
@click.option(
    "--property",
    "numbers",
    multiple=True,
    type=click.IntRange(1, len(PROPERTIES) - 1),
    help="Only this property of docs/model.md, section 5.1; several times for several.  [default: all]",
)
@click.option("--facts", "as_facts", is_flag=True, help="Print the facts that were found, per rule, as Markdown.")
@click.option(
    "--smt2",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write every question that was answered with no to this folder, for another solver.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each policy.")
def prove_command(
    names: tuple[str, ...], numbers: tuple[int, ...], as_facts: bool, smt2: Path | None, as_json: bool
) -> int:
    """Prove that policies keep the properties of safety, for any number of pages, folios, vCPUs, devices and guests.

    Each property is proved; or false, with a scenario that breaks it, certified by the checker; or not proved, with
    the rule at which the induction fails and the fact that would be needed. Whether a wait ends is not asked.

    \b
    ultrafolio prove --policy per-page
    ultrafolio prove --policy import-lock --property 1 --property 2 --json
    ultrafolio prove --policy mine.toml#mine --facts

    Exit codes: 0 proved, 1 a property is false, 2 bad input, 3 not proved, 4 a defect of ultrafolio.
    """
    need("z3")
    from ultrafolio.prove import judge, refuted, words
    from ultrafolio.prove.houdini import Tally

    chosen = {name: policies.find(name) for name in names}
    if smt2 and len(chosen) > 1:
        raise InputError("--smt2 keeps the questions of one policy", value=" ".join(chosen), allowed="one --policy")
    if smt2:
        smt2.mkdir(parents=True, exist_ok=True)
    codes = []
    for name, policy in chosen.items():
        proof = judge.prove(
            policy, without=WITHOUT, numbers=numbers or judge.NUMBERS, tally=Tally(smt2=smt2), told=_progress
        )
        left = [number for number, places in proof.open.items() if places]
        told = words.Told(name, proof, WITHOUT, refuted.counterexamples(policy, name, left, WITHOUT) if left else {})
        click.echo(json.dumps(told.record()) if as_json else words.facts(told) if as_facts else told.text())
        codes.append(told.code)
    return 1 if 1 in codes else max(codes)


def _progress(line: str) -> None:
    """Print a line over the one before, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r{line[:70]:<70}", end="\r", file=sys.stderr, flush=True)
