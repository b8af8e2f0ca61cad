"""`ultrafolio search`: every policy of a design on every scenario."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ultrafolio import api, shipped
from ultrafolio.check.verdicts.verdict import MAX_STATES
from ultrafolio.commands import machines
from ultrafolio.commands.completion import among
from ultrafolio.errors import InputError
from ultrafolio.export.observation import facts_of, word_of
from ultrafolio.model import policies
from ultrafolio.model.designs import DESIGNS, S390
from ultrafolio.model.scenario import Scenario
from ultrafolio.names.find import stem
from ultrafolio.nouns import plural
from ultrafolio.search import run, words
from ultrafolio.search import space as spaces
from ultrafolio.search.answer import Found
from ultrafolio.search.table import Table


@click.command("search")
@click.argument(
    "files", nargs=-1, type=click.Path(path_type=Path), shell_complete=among(lambda: shipped.names("scenarios"))
)
@click.option(
    "--design",
    type=click.Choice(list(DESIGNS)),
    help="All scenarios of this design.  [default, without scenarios: s390]",
)
@click.option(
    "--machine",
    type=click.Choice(machines.names()),
    help="Another machine than the scenarios name; only policies that it can enforce are searched.",
)
@click.option(
    "--require",
    "required",
    multiple=True,
    metavar="CHOICE=VALUE|VALUE",
    help="Only policies with one of these values; several times for several choices.",
)
@click.option(
    "--from",
    "start",
    metavar="POLICY",
    help="Also the smallest changes of this policy after which it passes each scenario that it fails, and all.",
)
@click.option(
    "--set-aside",
    "aside",
    multiple=True,
    metavar="SCENARIO",
    help="Do not ask survivors for this scenario; several times for several.",
)
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 64), help="Processes.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the verdicts of each scenario in this folder; the same command resumes from them.",
)
@click.option(
    "--sweep",
    "plan",
    type=click.Path(path_type=Path),
    shell_complete=among(lambda: shipped.names("sweeps")),
    help="Also simulate the policies that pass, on the workloads of this plan, and tell those that no other one beats; "
    "needs --out.",
)
@click.option(
    "--max-states",
    default=MAX_STATES,
    show_default=True,
    type=click.IntRange(1, 2**31 - 2),
    help="Stop an exploration there; the verdict is then unknown.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def search(
    files: tuple[Path, ...],
    design: str | None,
    machine: str | None,
    required: tuple[str, ...],
    start: str | None,
    aside: tuple[str, ...],
    workers: int,
    out: Path | None,
    plan: Path | None,
    max_states: int,
    as_json: bool,
) -> int:
    """Every policy of a design on SCENARIO files: which pass all of them, and which choices cannot?

    What every policy fails is told first, and set aside. Then: the policies that pass all else, as few rows; the
    smallest sets of choices that no such policy has, each with scenarios that they fail and the commands that print
    the stories; with --from the smallest changes of a policy. Verdicts are those of `ultrafolio check`, shared between
    policies under which the rules do the same. Where a scenario cannot have a policy, it says nothing of it.

    \b
    ultrafolio search --design guest_memfd
    ultrafolio search 03-virtio 09-split-early-pin --require refs=folio
    ultrafolio search --from linux-7.0 --workers 2 --out out/search

    Exit codes: 0 a policy passes all that is not set aside, 1 none does or nothing is left, 2 bad input, 3 unknown (a
    limit was reached), 4 a defect of ultrafolio.
    """
    code, said = answer(files, design, machine, required, start, aside, workers, out, max_states, plan)
    click.echo(json.dumps(said) if as_json else words.text(said))
    return code


def answer(
    files: Sequence[Path] = (),
    design: str | None = None,
    machine: str | None = None,
    required: Sequence[str] = (),
    start: str | None = None,
    aside: Sequence[str] = (),
    workers: int = 1,
    out: Path | None = None,
    max_states: int = MAX_STATES,
    plan: Path | None = None,
) -> tuple[int, dict[str, Any]]:
    """The exit code, and the answer as words.record() has it, of the command with these options."""
    stories = _stories(files, design, machine)
    name = stories[0][1].design
    space = spaces.of(name)
    asked = run.Asked(name, stories, space.box(_required(required)), out, max_states)
    wanted = run.wanted(asked)
    if not wanted.any():
        raise InputError("no policy is left to search", value=" ".join(required),
                         allowed="a machine that can enforce one of them", then="ultrafolio policies")  # fmt: skip
    unknown = [one for one in map(stem, aside) if one not in [known for known, _ in stories]]
    if unknown:
        raise InputError("--set-aside names a scenario that is not searched", value=unknown[0],
                         allowed="one of the scenarios", then="ultrafolio search --help")  # fmt: skip
    if plan and not out:
        raise InputError("--sweep keeps its results", value=str(plan), allowed="--out DIR beside it",
                         then="ultrafolio search --help")  # fmt: skip
    given = _start(asked, start, required)
    tables = run.tables(asked, workers, _progress)
    found = Found(space, [known for known, _ in stories], tables, wanted, asked.within, [stem(one) for one in aside])
    said = words.record(found, words.Asked(name, machine or "", tuple(required), *given), _story(asked))
    if plan and out and found.rest and found.surviving.any():
        from ultrafolio.commands.search_sweep import swept

        said["sweep"] = swept(found, plan, out / "sweep", workers)
    passes = found.rest and found.surviving.any()
    return 0 if passes else 3 if found.undecided else 1, said


def _stories(files: Sequence[Path], design: str | None, machine: str | None) -> list[tuple[str, Scenario]]:
    """The scenarios with their names, of one design, on the machine. InputError for none, or for two designs."""
    chosen = files or shipped.shipped("scenarios", below=True)
    made = [(stem(str(file)), api.Scenario.find(file)) for file in chosen]
    wanted = design or (S390.name if not files else made[0][1].story.design)
    others = [name for name, story in made if story.story.design != wanted]
    if files and others:
        raise InputError("scenarios of two designs", value=others[0], allowed=f"scenarios of the design {wanted}",
                         then=f"ultrafolio search --design {wanted}")  # fmt: skip
    some = [(name, story) for name, story in made if story.story.design == wanted]
    return [(name, there.story) for name, story in some for there, _ in machines.on(story, machine)]


def _required(required: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The choices and values of --require. InputError for a word of another form."""
    made = []
    for word in required:
        choice, _, values = word.partition("=")
        if not values:
            raise InputError("--require", value=word, allowed="CHOICE=VALUE, or CHOICE=VALUE|VALUE",
                             then="ultrafolio policies")  # fmt: skip
        made.append((choice, values.split("|")))
    return made


def _start(
    asked: run.Asked, start: str | None, required: Sequence[str]
) -> tuple[tuple[str, spaces.Values] | None, bool]:
    """The policy of --from with its values, and whether bugs of it are left out. InputError where it is not one of
    those that are searched."""
    if start is None:
        return None, False
    policy = policies.find_any(start)
    values = asked.space.values_of(policy, start)
    if not run.wanted(asked).reshape(-1)[asked.space.counted[values]]:
        raise InputError("--from is not one of the policies that are searched", value=start,
                         allowed="a policy with " + " ".join(required or ("a machine that can enforce it",)),
                         then="ultrafolio policies")  # fmt: skip
    return (start, values), bool(policy.variants)


def _story(asked: run.Asked) -> words.Story:
    """The function that says what the story of a failure is, by its check: the word of its kind, the property, and who
    waits for what, or which property breaks."""
    stories = dict(asked.stories)

    @functools.cache
    def story(scenario: str, values: spaces.Values) -> dict[str, str]:
        policy = api.Policy("searched", "", asked.space.policy(values))
        worst = api.check(api.Scenario(scenario, "", stories[scenario]), policy=policy).worst
        word = word_of("violated", worst.kind, worst.expected)
        return {"word": word, "property": worst.name, "facts": facts_of(worst)}

    return lambda fails: story(fails.scenario, fails.example)


def _progress(name: str, made: Table) -> None:
    """Say on a terminal which scenario is done."""
    if sys.stderr.isatty():
        print(f"\r{name}: {plural(len(made.answers), 'verdict')}"[:78].ljust(78), end="\r", file=sys.stderr, flush=True)
