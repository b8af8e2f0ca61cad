"""`ultrafolio prove`: safety for every size of a system, by induction over the rules."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from ultrafolio.commands.completion import among
from ultrafolio.errors import InputError, need, one_of
from ultrafolio.model import policies
from ultrafolio.model.layout import ACTOR_KINDS
from ultrafolio.model.policy import Policy
from ultrafolio.model.properties import PROPERTIES
from ultrafolio.prove import WITHOUT, all_but


@click.command("prove")
@click.option(
    "--policy",
    "names",
    multiple=True,
    shell_complete=among(policies.names),
    help="A preset, a kernel such as linux-6.16, or FILE.toml#NAME; several times for several.",
)
@click.option("--all", "every", is_flag=True, help="Every preset.")
@click.option(
    "--property",
    "numbers",
    multiple=True,
    type=click.IntRange(1, len(PROPERTIES) - 1),
    help="Only this property of docs/model.md, section 5.1; several times for several.  [default: all]",
)
@click.option(
    "--kinds",
    metavar="KIND,KIND,...",
    help="Only actors of these kinds, such as vcpu,disk: a proof of smaller systems, in less time.  "
    "[default: all kinds but mapping]",
)
@click.option(
    "--hangs",
    "as_hangs",
    is_flag=True,
    help="Whether waits are free from permanent stalls, in place of the properties of safety.",
)
@click.option("--facts", "as_facts", is_flag=True, help="Print the facts that were found, per rule, as Markdown.")
@click.option(
    "--smt2",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write every question that was answered with no to this folder, for another solver.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each policy.")
def prove_command(
    names: tuple[str, ...],
    every: bool,
    numbers: tuple[int, ...],
    kinds: str | None,
    as_hangs: bool,
    as_facts: bool,
    smt2: Path | None,
    as_json: bool,
) -> int:
    """Prove that policies keep the properties of safety, for any number of pages, folios, vCPUs, devices and guests.

    Each property is proved; or false, with a scenario that breaks it, certified by the checker; or not proved, with
    the rule at which the induction fails and the fact that would be needed. Whether a wait ends is not asked.
    With --hangs each wait of a rule is free from permanent stalls, by ranks of what is waited for; or refuted, by a
    shipped scenario; or open, with the reason.
    Of several policies, what is false under each of them is told once, and a table has all verdicts.

    \b
    ultrafolio prove --policy per-page
    ultrafolio prove --all
    ultrafolio prove --policy import-lock --property 1 --property 2 --json
    ultrafolio prove --policy mine.toml#mine --facts
    ultrafolio prove --policy import-lock --hangs

    Exit codes: 0 proved, 1 a property is false or a wait refuted, 2 bad input, 3 not proved or open, 4 a defect of
    ultrafolio.
    """
    need("z3")
    from ultrafolio.prove import facts_page, judge, several, words

    chosen = {name: policies.find(name) for name in (policies.PRESETS if every else names)}
    if not chosen or (every and names):
        raise InputError(
            "which policies to prove", value=" ".join(names), allowed="--policy, once or more, or else --all",
            then="ultrafolio policies",
        )  # fmt: skip
    if as_json and as_facts:
        raise InputError("--facts and --json say different things", value="both", allowed="one of them")
    if smt2 and len(chosen) > 1:
        raise InputError("--smt2 keeps the questions of one policy", value=" ".join(chosen), allowed="one --policy")
    if as_hangs and (numbers or as_facts):
        raise InputError("--hangs asks about waits", value="--property or --facts", allowed="--hangs without them")
    if smt2:
        smt2.mkdir(parents=True, exist_ok=True)
    if as_hangs:
        return _hangs(chosen, _without(kinds), smt2, as_json)
    made = several.proofs(chosen, numbers or judge.NUMBERS, smt2, _progress, _without(kinds))
    if not as_json and not as_facts:
        click.echo(words.text(made))
    for each in made:
        if as_json:
            click.echo(json.dumps(each.record()))
        elif as_facts:
            click.echo(facts_page.page(each.policy, each.proof, each.without))
    codes = [each.code for each in made]
    return 1 if 1 in codes else max(codes)


def _hangs(chosen: Mapping[str, Policy], without: frozenset[int], smt2: Path | None, as_json: bool) -> int:
    """Print the verdict on each wait of these policies; returns the exit code."""
    from ultrafolio.prove.hangs import judge, words
    from ultrafolio.prove.houdini import Tally

    codes = []
    for name, policy in chosen.items():
        made = judge.hangs(policy, name, without=without, tally=Tally(smt2=smt2), told=_progress)
        click.echo(json.dumps(words.record(made)) if as_json else words.text(made))
        codes.append(made.code)
    return 1 if 1 in codes else max(codes)


def _without(kinds: str | None) -> frozenset[int]:
    """The kinds of actors that --kinds leaves out; InputError names a word that is no kind of a proof."""
    if kinds is None:
        return WITHOUT
    allowed = [name for number, name in enumerate(ACTOR_KINDS) if number not in WITHOUT]
    named = kinds.split(",")
    for name in named:
        if name not in allowed:
            raise one_of("--kinds", name, allowed, then="ultrafolio prove --help")
    return all_but(named)


def _progress(line: str) -> None:
    """Print a line over the one before, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r{line[:70]:<70}", end="\r", file=sys.stderr, flush=True)
