"""`ultrafolio check`: explore every interleaving of a scenario; print the shortest counterexample and the holders."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ultrafolio import api, shipped
from ultrafolio.check.verdicts.verdict import MAX_MIB, MAX_STATES, Extent, Result
from ultrafolio.commands import check_output as output
from ultrafolio.commands import history, machines, vary
from ultrafolio.commands.check_pairs import Pair, results
from ultrafolio.commands.completion import among
from ultrafolio.commands.trace import in_folder
from ultrafolio.errors import InputError
from ultrafolio.export import why
from ultrafolio.export.promela import program
from ultrafolio.model import policies, scenario
from ultrafolio.model.designs import DESIGNS
from ultrafolio.names.find import stem
from ultrafolio.nouns import plural
from ultrafolio.page import link

FORMATS = ("text", "json", "mermaid", "itf", "chrome", "tap", "ktap", "prose")


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
@click.option("--design", type=click.Choice(list(DESIGNS)), help="With --all: only the scenarios of this design.")
@machines.option("what each policy risks on each machine, as a table.")
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
    help="Explore with two instead of one; the result is the same, more are not used.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    help="Processes that check a scenario each, where there are many; --memory is of each.  [default: one per core]",
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
    "with a never claim for each leads-to.",
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
    "--story",
    "told",
    metavar="NAME",
    help="Print another story than the worst: of a property by its number (17), of a leads-to by its first word "
    "(request).",
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
def check_command(**given: Any) -> int:
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
    ultrafolio check --all --design guest_memfd --machine all

    Exit codes: 0 holds, 1 violated, 2 bad input, 3 unknown (a limit was reached), 4 a defect of ultrafolio.
    With --expect: 0 as expected, else 1. With --history: 0 the first version, or nothing differs; 1 something differs.
    """
    asked = _consistent(Asked(**given))
    if asked.language:
        return _export(asked, fair=asked.language == "promela-fair")
    if asked.as_link:
        return _links(asked.files, asked.chosen, asked.machine)
    if asked.ranges:
        extent = replace(asked.extent, machine=asked.machine or "")
        as_json = asked.form == "json"
        return vary.run(
            asked.files[0], asked.ranges, asked.chosen, extent, asked.workers, as_json=as_json, typed=typed()
        )
    before = history.last(asked.folder) if asked.folder else None
    checked = _checked(asked)
    if asked.folder and before:
        lines = [(*made, output.line(result, *made)) for result, made in checked]
        return history.run(asked.folder, before, lines, as_json=asked.form == "json")
    _print(asked, checked)
    if asked.save:
        output.save(checked, asked.save)
    if asked.expect:
        wrong = [line for result, (story, _) in checked for line in output.differences(result, story.expect)]
        for line in wrong:
            click.echo(line, err=asked.form != "text")
        return int(bool(wrong))
    verdicts = {result.verdict for result, _ in checked}
    return 1 if "violated" in verdicts else 3 if "unknown" in verdicts else 0


@dataclass(frozen=True)
class Asked:
    """What was typed, by the names of the options."""

    files: tuple[Path, ...]
    every: bool
    names: tuple[str, ...]
    diff_policy: tuple[str, str] | None
    design: str | None
    machine: str | None
    ranges: tuple[str, ...]
    expect: bool
    max_states: int
    max_mib: int
    safety: bool
    symmetry: bool
    threads: int
    workers: int | None
    form: str
    as_json: bool
    language: str | None
    brief: bool
    folder: Path | None
    reasons: bool
    told: str | None
    as_link: bool
    save: Path | None

    @property
    def chosen(self) -> tuple[str, ...]:
        """The names of the policies that were asked for; empty: all presets of each scenario's design."""
        return self.diff_policy or self.names

    @property
    def extent(self) -> Extent:
        return Extent(self.max_states, self.max_mib, self.safety, self.symmetry, self.threads)

    @property
    def limits(self) -> dict[str, int]:
        return {"max_states": self.max_states, "memory_mib": self.max_mib, "threads": self.threads}

    @property
    def other_output(self) -> dict[str, object]:
        """Options that print or write something else than verdicts, or compare them."""
        return {
            "--expect": self.expect,
            "--export": self.language,
            "--save": self.save,
            "--diff-policy": self.diff_policy,
            "--format": self.form not in ("text", "json"),
            "--brief": self.brief,
            "--story": self.told,
            "--link": self.as_link,
        }


def _consistent(asked: Asked) -> Asked:
    """What was asked, with the files of --all and with --json as a format. Raises InputError for options that exclude
    each other."""
    if asked.folder:
        others = {"--vary": asked.ranges, "--safety": asked.safety, "--symmetry": asked.symmetry}
        _refuse_beside_history(asked.other_output | others)
        asked = replace(asked, every=asked.every or not asked.files)
    if asked.ranges:
        vary.refuse(asked.files, {"--all": asked.every, **asked.other_output, "--why": asked.reasons})
    if asked.every:
        asked = replace(asked, files=(*asked.files, *all_scenarios()))
    if not asked.files:
        raise InputError(
            "no scenario given",
            allowed="SCENARIO.toml files, names of shipped ones, or --all",
            then="ultrafolio check --help",
        )
    if asked.language or asked.as_link:
        return asked
    if asked.save:
        in_folder(asked.save)
    if asked.as_json and asked.form not in ("text", "json"):
        raise InputError("--json and --format say different things", value=asked.form, allowed="one of them")
    form = "json" if asked.as_json else asked.form
    if asked.brief and form != "text":
        raise InputError("--brief and --format say different things", value=form, allowed="one of them")
    if asked.reasons and (form not in ("text", "json") or asked.brief):
        raise InputError(
            "--why is told as text or JSON", value="--brief" if asked.brief else form, allowed="text, json"
        )
    if asked.told and (form != "text" or asked.brief or asked.reasons):
        raise InputError("--story is told as text", value=form, allowed="no --format, --json, --brief or --why with it")
    _refuse_combinations(asked.extent, asked.names, asked.diff_policy, expect=asked.expect)
    return replace(asked, form=form)


def _checked(asked: Asked) -> list[output.Checked]:
    """Check each scenario under each policy; print each JSON record as soon as it is there."""
    found = list(_pairs(asked))
    if not found:
        raise InputError(
            "no scenario is left to check",
            value=" ".join([asked.design or "", *asked.chosen]).strip(),
            allowed="a scenario and a policy of one design",
            cause="--design leaves out scenarios of other designs, --all policies of other designs",
            then="ultrafolio policies",
        )
    alone = shlex.join([*shlex.split(typed()), "--workers", "1"])
    checked: list[output.Checked] = []
    for pair, result in zip(found, results(found, asked.workers, asked.extent, alone), strict=True):
        checked.append((result, pair.made))
        if asked.form == "json" and not asked.folder:
            click.echo(_json(*checked[-1], asked.limits) if asked.reasons else result.json())
    return checked


def _pairs(asked: Asked) -> Iterator[Pair]:
    """Yields each scenario under each policy."""
    for file in asked.files:
        linked = link.opened(str(file)) if link.is_link(str(file)) else None
        story = api.Scenario(linked.name, linked.name, linked.story) if linked else api.Scenario.find(file)
        if asked.design and story.story.design != asked.design:
            continue
        names = asked.chosen or machines.presets_for(story, asked.machine)
        if asked.every and asked.chosen:
            names = tuple(name for name in asked.chosen if _of_design(story.story.design, name))
        if asked.diff_policy and len(names) == 1:
            raise InputError(
                "--diff-policy: policies of two designs",
                value=" ".join(asked.diff_policy),
                allowed="two policies that one scenario can have",
                then="ultrafolio policies",
            )
        for name in (linked.policy,) if linked and not asked.chosen else names:
            policy = api.Policy.find(name, story)
            for there, machine in machines.on(story, asked.machine):
                if asked.machine == machines.ALL and not machines.fits(there, policy):
                    continue
                new = linked and not linked.known
                yield Pair(
                    story, policy, machine, (there.story, policy.choices),
                    _by_link(there.story, linked, policy, asked.extent) if linked and new else "",
                )  # fmt: skip


def _print(asked: Asked, checked: list[output.Checked]) -> None:
    """Print all results, but for JSON records, which _checked() has printed."""
    if asked.told:
        output.show_story([result for result, _ in checked], asked.told, typed())
    elif asked.brief:
        for result, made in checked:
            click.echo(output.line(result, *made))
    elif asked.form == "text" and asked.machine == machines.ALL:
        machines.show([result for result, _ in checked])
    elif asked.form == "text":
        output.show([result for result, _ in checked], asked.diff_policy, typed())
        for result, made in checked if asked.reasons else ():
            click.echo(f"\n{result.heading()}" if len(checked) > 1 else "")
            click.echo(why.why_text(_why(result, made, asked.limits)))
    elif asked.form != "json":
        output.write(checked, asked.form)


def _why(result: Result, made: output.Made, limits: dict[str, int]) -> why.Why:
    system = scenario.system(*made)
    return why.why(result, system, max_states=limits["max_states"], max_mib=limits["memory_mib"])


def _json(result: Result, made: output.Made, limits: dict[str, int]) -> str:
    """The result with the field `why`."""
    record = result.record() | {"why": why.why_record(_why(result, made, limits))}
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


def all_scenarios() -> list[Path]:
    """The scenarios of the current directory, or the shipped ones."""
    here = sorted(Path("scenarios").glob("*.toml")) + sorted(Path("scenarios").glob("*/*.toml"))
    return here or [Path(file.stem) for file in shipped.shipped("scenarios", below=True)]


def _export(asked: Asked, *, fair: bool) -> int:
    """Print one scenario under one policy as Promela; a comment at its start says how to get it again."""
    files, names = asked.files, asked.names
    if len(files) != 1 or len(names) != 1 or asked.machine == machines.ALL:
        several = f"{plural(len(files), 'scenario')}, {plural(len(names), 'policy', 'policies')}"
        value = f"--machine {machines.ALL}" if asked.machine == machines.ALL else several
        allowed = "one SCENARIO.toml, one --policy, and at most one --machine"
        raise InputError("--export writes one program", value=value, allowed=allowed)
    [(story, _)] = machines.on(api.Scenario.find(files[0]), asked.machine)
    policy = api.Policy.find(names[0], story).choices
    system = scenario.system(story.story, policy)
    click.echo(program.export(system, fair=fair, properties=not fair, command=typed()), nl=False)
    return 0


def _links(files: tuple[Path, ...], names: tuple[str, ...], machine: str | None) -> int:
    """Print the link of each scenario and policy, on each machine that the policy is for; a line each."""
    for file in files:
        story = api.Scenario.find(file)
        for name in names or machines.presets_for(story, machine):
            for there, _, policy in machines.each(story, machine, name):
                scenario.fits_design(there.story, policy.choices, there.name)
                click.echo(link.link(there.story, stem(str(file)), policy.choices, name))
    return 0


def _by_link(story: scenario.Scenario, linked: link.Linked, policy: api.Policy, extent: Extent) -> str:
    """What to type for the verdict on a linked scenario that is not shipped."""
    made = link.link(story, linked.name, policy.choices, policy.name)
    return shlex.join(["ultrafolio", "check", made, *extent.words()])


def typed() -> str:
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
