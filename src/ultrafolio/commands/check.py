"""`ultrafolio check`: explore every interleaving of a scenario; print the shortest counterexample and the holders."""

from __future__ import annotations

import json
import shlex
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.table import Table

from ultrafolio import api, durable, screen, shipped
from ultrafolio.check.verdicts.verdict import MAX_MIB, MAX_STATES, Extent, Result
from ultrafolio.commands import history, progress, vary
from ultrafolio.commands.completion import among
from ultrafolio.commands.trace import in_folder
from ultrafolio.errors import InputError, one_of
from ultrafolio.export import chrome, formats, ktap, observation, prose, why
from ultrafolio.export.promela import program
from ultrafolio.export.text_in import result_text
from ultrafolio.export.trace_file import file_text, trace_file
from ultrafolio.model import policies, scenario
from ultrafolio.model.words import EXPECT
from ultrafolio.names.find import found, stem
from ultrafolio.nouns import plural
from ultrafolio.page import link

_SHORT = {"safety": "unsafe", "fatal": "fatal", "permanent": "hangs", "livelock": "livelock", "vmm-bound": "vmm-bound",
          "transient": "waits"}  # fmt: skip
FORMATS = ("text", "json", "mermaid", "itf", "chrome", "tap", "ktap", "prose")
Made = list[tuple[scenario.Scenario, policies.AnyPolicy]]
"""The scenario and the policy of each result."""


@click.command("check")
@click.argument(
    "files", nargs=-1, type=click.Path(path_type=Path), shell_complete=among(lambda: shipped.names("scenarios"))
)
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
    help="json, tap, ktap: a record per scenario and policy; prose: English sentences for each; "
    "mermaid, itf, chrome: the worst story.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option(
    "--export",
    "language",
    type=click.Choice(("promela", "promela-fair")),
    help="Print the system as a Promela program instead of checking it: one process, or one per thread "
    "with leads-to formulas.",
)
@click.option("--brief", is_flag=True, help="Only the line that decides, for each scenario and policy.")
@click.option(
    "--history",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Save the lines that decide in this folder, one file a version of the rules, and print what differs from "
    "the last one; of all scenarios unless some are named.",
)
@click.option(
    "--why",
    "reasons",
    is_flag=True,
    help="Also why: for each leads-to that holds up to three short runs, and each property's truth along the story.",
)
@click.option(
    "--link",
    "as_link",
    is_flag=True,
    help="Print a link for each scenario and policy instead of checking: "
    "it goes behind the address of the page that ultrafolio export --page writes.",
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
    brief: bool,
    folder: Path | None,
    reasons: bool,
    as_link: bool,
    save: Path | None,
) -> int:
    """Explore every interleaving of SCENARIO files: can this policy hang, or break a property? Who holds what?

    A scenario is a file, the name of a shipped one, a name by pattern (ultrafolio scenario --help), or a link from the
    page, in quotes; a link has a policy with it.

    \b
    ultrafolio check scenarios/03-virtio.toml --policy whole-folio
    ultrafolio check --all
    ultrafolio check LPIN.early+neigh --policy linux-6.12
    ultrafolio check --all --diff-policy split split-writeback
    ultrafolio check my.toml --policy mine.toml#mine --json
    ultrafolio check scenarios/18-iomap-two-vcpus.toml --policy split-writeback --vary vcpus=1..3
    ultrafolio check scenarios/03-virtio.toml --policy whole-folio --export promela > model.pml
    ultrafolio check --all --history verdicts

    Exit codes: 0 holds, 1 violated, 2 bad input, 3 unknown (a limit was reached), 4 a defect of ultrafolio.
    With --expect: 0 as expected, else 1. With --history: 0 the first version, or nothing differs; 1 something differs.
    """
    if folder:
        _refuse_beside_history(
            {
                "--expect": expect,
                "--export": language,
                "--save": save,
                "--diff-policy": diff_policy,
                "--vary": ranges,
                "--format": form not in ("text", "json"),
                "--brief": brief,
                "--link": as_link,
                "--safety": safety,
                "--symmetry": symmetry,
            }
        )
        before, every = history.last(folder), every or not files
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
                "--brief": brief,
                "--why": reasons,
                "--link": as_link,
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
    if as_link:
        return _links(files, diff_policy or names)
    if save:
        in_folder(save)
    if as_json and form not in ("text", "json"):
        raise InputError("--json and --format say different things", value=form, allowed="one of them")
    form = "json" if as_json else form
    if brief and form != "text":
        raise InputError("--brief and --format say different things", value=form, allowed="one of them")
    if reasons and (form not in ("text", "json") or brief):
        raise InputError("--why is told as text or JSON", value="--brief" if brief else form, allowed="text, json")
    extent = Extent(max_states, max_mib, safety, symmetry, threads)
    _refuse_combinations(extent, names, diff_policy, expect=expect)
    chosen = diff_policy or names
    if ranges:
        return vary.run(
            files[0], ranges, chosen or tuple(policies.PRESETS), extent, as_json=form == "json", typed=_typed()
        )
    limits = {"max_states": max_states, "memory_mib": max_mib, "threads": threads}
    results, wrong, made = [], [], []
    for file in files:
        linked = link.opened(str(file)) if link.is_link(str(file)) else None
        story = api.Scenario(linked.name, linked.name, linked.story) if linked else api.Scenario.find(file)
        asked = chosen or policies.presets_of(story.story.design)
        if every and chosen:
            asked = tuple(name for name in chosen if _of_design(story.story.design, name))
        for name in (linked.policy,) if linked and not chosen else asked:
            policy = api.Policy.find(name, story)
            result = api.check(story, policy=policy, watch=progress.shown, safety=safety, symmetry=symmetry, **limits)
            if linked and not linked.known:
                result = replace(result, command=_by_link(linked, policy.choices, name, extent))
            results.append(result)
            made.append((story.story, policy.choices))
            wrong += differences(result, story.story.expect) if expect else []
            if form == "json" and not folder:
                click.echo(_json(result, made[-1], limits) if reasons else result.json())
    if folder:
        lines = [(*one, _line(result, *one)) for result, one in zip(results, made, strict=True)]
        return history.run(folder, before, lines, as_json=form == "json")
    if brief:
        for result, one in zip(results, made, strict=True):
            click.echo(_line(result, *one))
    elif form == "text":
        _show(results, diff_policy)
        for result, checked in zip(results, made, strict=True) if reasons else ():
            click.echo(f"\n{result.heading()}" if len(results) > 1 else "")
            click.echo(why.why_text(_why(result, checked, limits)))
    elif form != "json":
        _write(results, form, made)
    if save:
        _save(results, made, save)
    for line in wrong:
        click.echo(line, err=form != "text")
    if expect:
        return int(bool(wrong))
    verdicts = {result.verdict for result in results}
    return 1 if "violated" in verdicts else 3 if "unknown" in verdicts else 0


def _why(result: Result, checked: tuple[scenario.Scenario, policies.AnyPolicy], limits: dict[str, int]) -> why.Why:
    system = scenario.system(*checked)
    return why.why(result, system, max_states=limits["max_states"], max_mib=limits["memory_mib"])


def _json(result: Result, checked: tuple[scenario.Scenario, policies.AnyPolicy], limits: dict[str, int]) -> str:
    """The result with the field `why`."""
    record = result.record() | {"why": why.why_record(_why(result, checked, limits))}
    return json.dumps(record, ensure_ascii=False)


def _refuse_combinations(
    extent: Extent, names: tuple[str, ...], diff_policy: tuple[str, str] | None, *, expect: bool
) -> None:
    """Raise InputError for options that exclude each other."""
    if expect and (extent.safety or extent.symmetry):
        raise InputError(
            "--expect compares whole verdicts",
            value="--symmetry" if extent.symmetry else "--safety",
            allowed="an exploration with leads-to, and of every state",
        )
    if diff_policy and names:
        raise InputError(
            "--diff-policy names the policies itself",
            value="--policy " + " --policy ".join(names),
            allowed="one of the two",
        )


def _refuse_beside_history(others: dict[str, object]) -> None:
    """Raise InputError for an option that has no meaning beside --history."""
    for name, given in others.items():
        if given:
            raise InputError(
                "--history saves whole verdicts as lines",
                value=name,
                allowed="scenarios, --all, --policy, --json, --threads and limits beside it",
            )


def _of_design(design: str, name: str) -> bool:
    """Whether a policy is one of this design."""
    return policies.design_of(policies.find_any(name)) == design


def _all() -> list[Path]:
    """The scenarios of the current directory, or the shipped ones."""
    here = sorted(Path("scenarios").glob("*.toml")) + sorted(Path("scenarios").glob("*/*.toml"))
    return here or [Path(file.stem) for file in shipped.shipped("scenarios", below=True)]


def _export(files: tuple[Path, ...], names: tuple[str, ...], *, fair: bool) -> int:
    """Print one scenario under one policy as Promela; a comment at its start has the commands to run it."""
    if len(files) != 1 or len(names) != 1:
        asked = f"{plural(len(files), 'scenario')}, {plural(len(names), 'policy', 'policies')}"
        raise InputError("--export writes one program", value=asked, allowed="one SCENARIO.toml and one --policy")
    story = api.Scenario.find(files[0])
    system = scenario.system(story.story, policies.of_s390(api.Policy.find(names[0], story).choices, names[0]))
    click.echo(program.export(system, fair=fair, properties=not fair, command=_typed()), nl=False)
    return 0


def _links(files: tuple[Path, ...], names: tuple[str, ...]) -> int:
    """Print the link of each scenario and policy, a line each."""
    for file in files:
        story = found(file)
        scenario.only_s390(story, str(file))
        for name in names or tuple(policies.PRESETS):
            click.echo(link.link(story, stem(str(file)), policies.find(name, story.tables), name))
    return 0


def _by_link(linked: link.Linked, policy: policies.AnyPolicy, name: str, extent: Extent) -> str:
    """What to type for the verdict on a linked scenario that is not shipped."""
    made = link.link(linked.story, linked.name, policies.of_s390(policy, name), name)
    return shlex.join(["ultrafolio", "check", made, *extent.words()])


def _write(results: list[Result], form: str, made: Made) -> None:
    """The results as one document of the format, or in sentences. made: what each was checked of."""
    worst = formats.worst(results)
    if form == "tap":
        click.echo(formats.tap(results))
    elif form == "ktap":
        click.echo(ktap.ktap([_reported(result, *one) for result, one in zip(results, made, strict=True)]))
    elif form == "prose":
        click.echo("\n\n\n".join(map(prose.prose, results)))
    elif form == "mermaid":
        click.echo(formats.mermaid(worst, worst.worst))
    elif not formats.has_story(worst.worst):
        click.echo("nothing failed or waited: there is no story to write", err=True)
    elif form == "itf":
        click.echo(json.dumps(formats.itf(worst, worst.worst), ensure_ascii=False))
    else:
        click.echo(chrome.of_finding(worst, scenario.system(*made[results.index(worst)])), nl=False)


def _reported(result: Result, story: scenario.Scenario, policy: policies.AnyPolicy) -> ktap.Reported:
    """A result with its line, and with what [expect] says of it."""
    wanted = differences(result, story.expect) if result.policy in story.expect else None
    return ktap.Reported(result, stem(result.scenario), _line(result, story, policy), wanted)


def _line(result: Result, story: scenario.Scenario, policy: policies.AnyPolicy) -> str:
    """The line that decides."""
    return observation.of_result(result, stem(result.scenario), observation.hash_of(story, policy), "check")


def _save(results: list[Result], made: Made, save: Path) -> None:
    """Write the trace file of the worst story, whole or not at all."""
    worst = formats.worst(results)
    if not formats.has_story(worst.worst):
        click.echo(f"nothing failed or waited: {save} is not written", err=True)
        return
    story, chosen = made[results.index(worst)]
    policy = policies.of_s390(chosen, worst.policy)
    durable.replace(save, file_text(trace_file(worst, worst.worst, story, policy)).encode())
    click.echo(f"saved; certify it again: {shlex.join(['ultrafolio', 'trace', 'verify', str(save)])}", err=True)


def differences(result: Result, expect: dict[str, Any]) -> list[str]:
    """The differences between a result and its scenario's [expect] table; a policy without an entry is one.

    Raises InputError for an entry with an unknown field (EXPECT).
    """
    wanted = expect.get(result.policy)
    if wanted is None:
        return [f"{result.scenario}, {result.policy}: no [expect] entry"]
    record = result.record() | {"depth": result.depth}
    for field in wanted:
        if field not in EXPECT:
            raise one_of(f"{result.scenario}: [expect] {result.policy}", field, EXPECT)
    return [
        f"{result.scenario}, {result.policy}: {field} is {record[field] or 'null'}, expected {value}"
        for field, value in wanted.items()
        if (record[field] or "null") != value and record[field] != value
    ]


def _typed() -> str:
    """The command as it was typed, without --save: it gives the same output again."""
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


def _show(results: list[Result], diff: tuple[str, str] | None) -> None:
    """Print one result in full, or several as a matrix scenario x policy for each design; with --diff-policy the rows
    that differ."""
    if len(results) == 1:
        click.echo(result_text(results[0]))
        return
    for design in dict.fromkeys(result.scope.get("design") for result in results):
        _matrix([result for result in results if result.scope.get("design") == design], diff)
    told = (
        "waits: a fair step ends every wait; hangs: only the guest's reboot would; livelock: released and\n"
        "taken again for ever; fatal: the VMM is told; unsafe: a property is violated"
    )
    ends = "; vmm-bound: only a step ends it\nthat the VMM need not take"
    click.echo(told + (ends if any(result.scope.get("design") for result in results) else ""))
    click.echo(f"reproduce: {_typed()}")


def _matrix(results: list[Result], diff: tuple[str, str] | None) -> None:
    """Print the results of one design as a matrix scenario x policy."""
    chosen = tuple(dict.fromkeys(result.policy for result in results))
    scenarios = list(dict.fromkeys(result.scenario for result in results))
    by = {(result.scenario, result.policy): cell_text(result) for result in results}
    if diff:
        scenarios = [s for s in scenarios if by[s, diff[0]] != by[s, diff[1]]]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("scenario", no_wrap=True)
    for number, name in enumerate(chosen, 1):
        table.add_column(name if diff else str(number), no_wrap=True)
    for s in scenarios:
        table.add_row(stem(s), *(by.get((s, name), "") for name in chosen))
    if diff and not scenarios:
        click.echo("no scenario's verdict differs between the two")
    else:
        screen.show(table)
    if not diff:
        names = "  ".join(f"{n}\0{name}" for n, name in enumerate(chosen, 1))
        click.echo(textwrap.fill(names, screen.columns(), break_on_hyphens=False).replace("\0", " "))
