"""`ultrafolio check`: every interleaving of a scenario, the shortest story of what fails, and who holds what."""

from __future__ import annotations

import json
import shlex
import textwrap
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.table import Table

from ultrafolio import durable, screen, shipped
from ultrafolio.check.verdicts.verdict import MAX_MIB, MAX_STATES, Extent, Result, check
from ultrafolio.commands import progress, vary
from ultrafolio.commands.completion import among
from ultrafolio.commands.trace import in_folder
from ultrafolio.errors import InputError, one_of
from ultrafolio.export import formats
from ultrafolio.export.promela import program
from ultrafolio.export.text import result_text
from ultrafolio.export.trace_file import file_text, trace_file
from ultrafolio.model import policies, scenario
from ultrafolio.model.policy import Policy

_SHORT = {"safety": "unsafe", "fatal": "fatal", "permanent": "hangs", "livelock": "livelock", "transient": "waits"}
FORMATS = ("text", "json", "mermaid", "itf", "tap")
EXPECT_FIELDS = ("verdict", "kind", "depth", "states", "edges")


@click.command("check")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--all",
    "every",
    is_flag=True,
    help="All scenarios of scenarios/ here, or the shipped ones: a matrix scenario x policy.",
)
@click.option(
    "--policy",
    "names",
    multiple=True,
    shell_complete=among(policies.names),
    help="A preset, a kernel such as linux-6.14, a [policy.NAME] of the file, or FILE.toml#NAME; several "
    "times for several.  "
    "[default: all presets]",
)
@click.option("--diff-policy", nargs=2, metavar="A B", help="Only the scenarios whose verdict differs between two.")
@click.option(
    "--vary",
    "ranges",
    multiple=True,
    metavar="NAME=A..B",
    help="The scenario at several sizes, a row a size: vcpus=1..4, order=0..3, a number or a list A,B,C; "
    "two of them for all combinations.",
)
@click.option("--expect", is_flag=True, help="Compare with the [expect] tables: exit 0 when all is as expected.")
@click.option(
    "--max-states",
    default=MAX_STATES,
    show_default=True,
    type=click.IntRange(1, 2**31 - 2),
    help="Stop there; the verdict is then unknown.",
)
@click.option(
    "--memory",
    "max_mib",
    default=MAX_MIB,
    show_default=True,
    type=click.IntRange(1, 2**20),
    metavar="MIB",
    help="Stop before the graph outgrows this; the verdict is then unknown.",
)
@click.option("--safety", is_flag=True, help="Only what must hold always: a third of the memory, no leads-to.")
@click.option(
    "--symmetry",
    is_flag=True,
    help="Like --safety, with one state for all in which like pages or like "
    "guests have changed places; refused where that would be unsound.",
)
@click.option(
    "--threads",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Explore with so many; the result is the same.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="json, tap: a record per scenario and policy; mermaid, itf: the worst story.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option(
    "--export",
    "language",
    type=click.Choice(("promela", "promela-fair")),
    help="Print the system as a Promela program instead of checking it: one process, or one per thread "
    "with leads-to formulas.",
)
@click.option(
    "--save",
    type=click.Path(path_type=Path),
    help="Write the worst story to this trace file, for ultrafolio trace verify.",
)
def check_command(
    files: tuple[Path, ...],
    every: bool,
    names: tuple[str, ...],
    diff_policy: tuple[str, str] | None,
    ranges: tuple[str, ...],
    expect: bool,
    max_states: int,
    max_mib: int,
    safety: bool,
    symmetry: bool,
    threads: int,
    form: str,
    as_json: bool,
    language: str | None,
    save: Path | None,
) -> int:
    """Explore every interleaving of SCENARIO files: can this policy hang, or break a property? Who holds what?

    \b
    ultrafolio check scenarios/03-virtio.toml --policy whole-folio
    ultrafolio check --all
    ultrafolio check --all --diff-policy split split-writeback
    ultrafolio check my.toml --policy mine.toml#mine --json
    ultrafolio check scenarios/18-iomap-two-vcpus.toml --policy split-writeback --vary vcpus=1..3
    ultrafolio check scenarios/03-virtio.toml --policy whole-folio --export promela > model.pml

    Exit codes: 0 holds, 1 violated, 2 bad input, 3 unknown (a limit was reached), 4 a defect of ultrafolio.
    """
    if ranges:
        vary.refuse(
            files,
            {
                "--all": every,
                "--expect": expect,
                "--export": language,
                "--save": save,
                "--diff-policy": diff_policy,
                "--format": form not in ("text", "json"),
            },
        )
    if every:
        files = (*files, *_all())
    if not files:
        raise InputError(
            "no scenario given",
            allowed="SCENARIO.toml files, names of shipped ones, or --all",
            then="ultrafolio check --help",
        )
    if language:
        return _export(files, names, fair=language == "promela-fair")
    if save:
        in_folder(save)
    if as_json and form not in ("text", "json"):
        raise InputError("--json and --format say different things", value=form, allowed="one of them")
    form = "json" if as_json else form
    if expect and (safety or symmetry):
        raise InputError(
            "--expect compares whole verdicts",
            value="--symmetry" if symmetry else "--safety",
            allowed="an exploration with leads-to, and of every state",
        )
    if diff_policy and names:
        raise InputError(
            "--diff-policy names the policies itself",
            value="--policy " + " --policy ".join(names),
            allowed="one of the two",
        )
    extent = Extent(max_states, max_mib, safety, symmetry, threads)
    chosen = diff_policy or names or tuple(policies.PRESETS)
    if ranges:
        return vary.run(files[0], ranges, chosen, extent, as_json=form == "json", typed=_typed())
    results, wrong, made = [], [], []
    for file in files:
        story = scenario.read(shipped.found(file, "scenarios"))
        for name in chosen:
            policy = policies.find(name, story.tables)
            result = check(story, str(file), policy, name, extent, progress.shown)
            results.append(result)
            made.append((story, policy))
            wrong += differences(result, story.expect) if expect else []
            if form == "json":
                click.echo(result.json())
    if form == "text":
        _show(results, chosen, diff_policy)
    elif form != "json":
        _write(results, form)
    if save:
        _save(results, made, save)
    for line in wrong:
        click.echo(line, err=form != "text")
    if expect:
        return int(bool(wrong))
    verdicts = {result.verdict for result in results}
    return 1 if "violated" in verdicts else 3 if "unknown" in verdicts else 0


def _all() -> list[Path]:
    """The scenarios of the folder here, or those that are shipped."""
    here = sorted(Path("scenarios").glob("*.toml"))
    return here or [Path(file.stem) for file in shipped.shipped("scenarios")]


def _export(files: tuple[Path, ...], names: tuple[str, ...], *, fair: bool) -> int:
    """Print one scenario under one policy as Promela; the program's head says how to run it."""
    if len(files) != 1 or len(names) != 1:
        raise InputError(
            "--export writes one program",
            value=f"{len(files)} scenarios, {len(names)} policies",
            allowed="one SCENARIO.toml and one --policy",
        )
    story = scenario.read(shipped.found(files[0], "scenarios"))
    system = scenario.system(story, policies.find(names[0], story.tables))
    click.echo(program.export(system, fair=fair, properties=not fair, command=_typed()), nl=False)
    return 0


def _write(results: list[Result], form: str) -> None:
    """The results as one Mermaid, ITF or TAP document."""
    worst = formats.worst(results)
    if form == "tap":
        click.echo(formats.tap(results))
    elif form == "mermaid":
        click.echo(formats.mermaid(worst, worst.worst))
    elif formats.has_story(worst.worst):
        click.echo(json.dumps(formats.itf(worst, worst.worst), ensure_ascii=False))
    else:
        click.echo("nothing failed or waited: there is no story to write", err=True)


def _save(results: list[Result], made: list[tuple[scenario.Scenario, Policy]], save: Path) -> None:
    """Write the trace file of the worst story, whole or not at all."""
    worst = formats.worst(results)
    if not formats.has_story(worst.worst):
        click.echo(f"nothing failed or waited: {save} is not written", err=True)
        return
    story, policy = made[results.index(worst)]
    durable.replace(save, file_text(trace_file(worst, worst.worst, story, policy)).encode())
    click.echo(f"saved; certify it again: {shlex.join(['ultrafolio', 'trace', 'verify', str(save)])}", err=True)


def differences(result: Result, expect: dict[str, Any]) -> list[str]:
    """Where a result is not what its scenario's [expect] table says; a policy without an entry is a difference.

    InputError for an entry that names no field of EXPECT_FIELDS.
    """
    wanted = expect.get(result.policy)
    if wanted is None:
        return [f"{result.scenario}, {result.policy}: no [expect] entry"]
    record = result.record() | {"depth": result.depth}
    for field in wanted:
        if field not in EXPECT_FIELDS:
            raise one_of(f"{result.scenario}: [expect] {result.policy}", field, EXPECT_FIELDS)
    return [
        f"{result.scenario}, {result.policy}: {field} is {record[field] or 'null'}, expected {value}"
        for field, value in wanted.items()
        if (record[field] or "null") != value and record[field] != value
    ]


def _typed() -> str:
    """The command as it was typed, but for --save: what gives the same output again."""
    context, words = click.get_current_context(), ["ultrafolio", "check"]
    for param in context.command.params:
        name, value = param.name or "", context.params[param.name or ""]
        if name == "save" or context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        if not isinstance(param, click.Option):
            words += [str(file) for file in value]
            continue
        for given in value if param.multiple else [value]:
            words.append(param.opts[0])
            if not param.is_flag:
                words += [str(word) for word in (given if param.nargs > 1 else [given])]
    return shlex.join(words)


def cell_text(result: Result) -> str:
    """A result in one word for the matrix."""
    if result.verdict == "unknown":
        return "unknown"
    worst = result.worst
    return "holds" if not worst.kind or worst.expected else _SHORT[worst.kind]


def _show(results: list[Result], chosen: tuple[str, ...], diff: tuple[str, str] | None) -> None:
    """One result as a story; several as a matrix scenario x policy, with --diff-policy only the rows that differ."""
    if len(results) == 1:
        click.echo(result_text(results[0]))
        return
    scenarios = list(dict.fromkeys(result.scenario for result in results))
    by = {(result.scenario, result.policy): cell_text(result) for result in results}
    if diff:
        scenarios = [s for s in scenarios if by[s, diff[0]] != by[s, diff[1]]]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("scenario", no_wrap=True)
    for number, name in enumerate(chosen, 1):
        table.add_column(name if diff else str(number), no_wrap=True)
    for s in scenarios:
        table.add_row(Path(s).stem, *(by[s, name] for name in chosen))
    if diff and not scenarios:
        click.echo("no scenario's verdict differs between the two")
    else:
        screen.show(table)
    if not diff:
        names = "  ".join(f"{n}\0{name}" for n, name in enumerate(chosen, 1))
        click.echo(textwrap.fill(names, screen.columns(), break_on_hyphens=False).replace("\0", " "))
    click.echo(
        "waits: a fair step ends every wait; hangs: only the guest's reboot would; livelock: released and\n"
        "taken again for ever; fatal: the VMM is told; unsafe: a property is violated"
    )
    click.echo(f"reproduce: {_typed()}")
