"""`ultrafolio prove`: safety for every size of a system, by induction over the rules."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ultrafolio.commands import machines
from ultrafolio.commands.completion import among
from ultrafolio.errors import InputError, need, one_of
from ultrafolio.model import policies
from ultrafolio.model.design import Design
from ultrafolio.model.designs import DESIGNS, NUMBERS, S390
from ultrafolio.model.policies import AnyPolicy
from ultrafolio.model.policy import Policy
from ultrafolio.prove import all_but, without

if TYPE_CHECKING:
    from ultrafolio.prove.systems import Systems


@click.command("prove")
@click.option(
    "--policy",
    "names",
    multiple=True,
    shell_complete=among(policies.names),
    help="A preset, a kernel such as linux-6.16, or FILE.toml#NAME; several times for several.",
)
@click.option("--all", "every", is_flag=True, help="Every preset of --design.")
@click.option(
    "--design",
    type=click.Choice(list(DESIGNS)),
    help=f"With --all: the presets of this design.  [default: {S390.name}]",
)
@click.option(
    "--machine",
    type=click.Choice([*machines.names(), machines.ALL]),
    help="Of guest_memfd: the machine; all: each one.  [default: software, or pkvm if only that fits]",
)
@click.option(
    "--property",
    "numbers",
    multiple=True,
    type=click.IntRange(1, max(NUMBERS.values())),
    help="Only this property of docs/model.md, section 5.1, of guest_memfd 9.5; several times for several.  "
    "[default: all]",
)
@click.option(
    "--kinds",
    metavar="KIND,KIND,...",
    help="Only actors of these kinds, such as vcpu,disk: a proof of smaller systems, in less time.  "
    "[default: all kinds, of s390 but mapping]",
)
@click.option(
    "--hangs",
    "as_hangs",
    is_flag=True,
    help="Whether waits are free from permanent stalls, in place of the properties of safety.",
)
@click.option("--huge", is_flag=True, help="Prove also of systems with huge pages of any order, for minutes.")
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
    design: str | None,
    machine: str | None,
    numbers: tuple[int, ...],
    kinds: str | None,
    as_hangs: bool,
    huge: bool,
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
    ultrafolio prove --policy gmem-7.4 --machine snp --hangs
    ultrafolio prove --policy gmem-7.4 --machine snp
    ultrafolio prove --all --design guest_memfd --machine all
    ultrafolio prove --policy gmem-hugetlb-2025-05 --kinds vcpu,user --huge

    Exit codes: 0 proved, 1 a property is false or a wait refuted, 2 bad input, 3 not proved or open, 4 a defect of
    ultrafolio.
    """
    need("z3")
    from ultrafolio.prove import facts_page, several, words

    chosen = _chosen(names, every, design)
    of = DESIGNS[policies.design_of(next(iter(chosen.values())))]
    left_out = _without(kinds, of)
    if as_json and as_facts:
        raise InputError("--facts and --json say different things", value="both", allowed="one of them")
    if smt2 and (len(chosen) > 1 or machine == machines.ALL):
        raise InputError("--smt2 keeps the questions of one policy", value=" ".join(chosen), allowed="one --policy")
    if as_hangs and (numbers or as_facts):
        raise InputError("--hangs asks about waits", value="--property or --facts", allowed="--hangs without them")
    asked = _systems(chosen, machine, left_out)
    if huge and (as_hangs or not any(systems.has_huge for systems in asked)):
        raise InputError(
            "--huge asks for properties of policies with huge pages", value="--hangs" if as_hangs else " ".join(chosen),
            allowed="a policy with `large`, for instance gmem-hugetlb-2025-05, without --hangs",
            then="ultrafolio reference policy",
        )  # fmt: skip
    if as_hangs:
        return _hangs(asked, smt2, as_json)
    properties = _properties(numbers, of)
    if smt2:
        smt2.mkdir(parents=True, exist_ok=True)
    made = several.proofs(asked, properties, smt2, _progress, huge=huge)
    if not as_json and not as_facts:
        click.echo(words.text(made))
    for each in made:
        if as_json:
            click.echo(json.dumps(each.record()))
        elif as_facts and each.proof:
            click.echo(facts_page.page(each.systems.label, each.proof, left_out))
    codes = [each.code for each in made]
    return 1 if 1 in codes else max(codes)


def _chosen(names: tuple[str, ...], every: bool, design: str | None) -> dict[str, AnyPolicy]:
    """The policies that are asked for, by name: of one design. InputError for none, or for several designs."""
    if every:
        names = (*names, *policies.presets_of(design or S390.name))
    if not names or (every and len(names) > len(policies.presets_of(design or S390.name))):
        raise InputError(
            "which policies to prove", value=" ".join(names), allowed="--policy, once or more, or else --all",
            then="ultrafolio policies",
        )  # fmt: skip
    if design and not every:
        raise InputError("--design, and the policies by name", value=design, allowed="--design with --all")
    chosen = {name: policies.find_any(name) for name in names}
    if len({policies.design_of(policy) for policy in chosen.values()}) > 1:
        raise InputError(
            "policies of two designs", value=" ".join(names), allowed="policies of one design",
            then="ultrafolio policies",
        )  # fmt: skip
    return chosen


def _systems(chosen: Mapping[str, AnyPolicy], machine: str | None, left_out: frozenset[int]) -> list[Systems]:
    """Each policy on each machine that is asked for and that it fits. InputError for one that it does not fit."""
    from ultrafolio.prove.systems import Systems

    made = []
    for name, policy in chosen.items():
        if isinstance(policy, Policy):
            if machine:
                raise InputError("--machine, and a policy of s390", value=machine, allowed="a policy of guest_memfd",
                                 cause="s390 has one machine", then="ultrafolio policies")  # fmt: skip
            made.append(Systems(name, policy, left_out))
            continue
        fitting = [one for one in machines.names() if policy.fits(one)]
        if machine not in (None, machines.ALL, *fitting):
            raise one_of(f"--machine, and the policy {name}", str(machine), fitting, then="ultrafolio policies")
        asked = fitting if machine == machines.ALL else [machine or fitting[0]]
        made += [Systems(name, policy, left_out, one) for one in asked]
    return made


def _properties(numbers: tuple[int, ...], design: Design) -> tuple[int, ...]:
    """The properties that are asked for, by their numbers in the design. InputError for one of another design."""
    known = range(design.first + 1, design.first + len(design.properties))
    for number in numbers:
        if number not in known:
            raise InputError(
                f"--property, of a policy of {design.name}", value=number, allowed=f"{known[0]} to {known[-1]}",
                then="docs/model.md, sections 5.1 and 9.5",
            )  # fmt: skip
    return tuple(number - design.first for number in numbers or known)


def _hangs(asked: Sequence[Systems], smt2: Path | None, as_json: bool) -> int:
    """Print the verdict on each wait under these policies; returns the exit code."""
    from ultrafolio.prove.hangs import judge, words
    from ultrafolio.prove.houdini import Tally

    if smt2:
        smt2.mkdir(parents=True, exist_ok=True)
    codes = []
    for systems in asked:
        made = judge.hangs(systems, tally=Tally(smt2=smt2), told=_progress)
        click.echo(json.dumps(words.record(made)) if as_json else words.text(made))
        codes.append(made.code)
    return 1 if 1 in codes else max(codes)


def _without(kinds: str | None, design: Design) -> frozenset[int]:
    """The kinds of actors that --kinds leaves out; InputError names a word that is no kind of a proof."""
    if kinds is None:
        return without(design)
    allowed = [name for number, name in enumerate(design.kinds) if number not in without(design)]
    named = kinds.split(",")
    for name in named:
        if name not in allowed:
            raise one_of("--kinds", name, allowed, then="ultrafolio prove --help")
    return all_but(named, design)


def _progress(line: str) -> None:
    """Print a line over the one before, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r{line[:70]:<70}", end="\r", file=sys.stderr, flush=True)
