"""`ultrafolio search`: every policy of a design on every scenario."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ultrafolio import api, shipped
from ultrafolio.api.searching import Interrupted, Made
from ultrafolio.check.verdicts.verdict import MAX_STATES
from ultrafolio.commands import executors, machines
from ultrafolio.commands.completion import among
from ultrafolio.commands.sweep import INTERRUPTED
from ultrafolio.errors import InputError, need
from ultrafolio.model.designs import DESIGNS
from ultrafolio.nouns import plural
from ultrafolio.search.table import Table
from ultrafolio.sweep.local.processes import NO_LIMITS


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
@executors.options("; the latter need --out")
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
    workers: int | None,
    kind: str,
    redis: str | None,
    results_url: str,
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
    ultrafolio report out/search

    Exit codes: 0 a policy passes all that is not set aside, 1 none does or nothing is left, 2 bad input, 3 unknown (a
    limit was reached), 4 a defect of ultrafolio, 130 interrupted: with --out the same command resumes.
    """
    try:
        found = api.search(
            *files,
            design=design or "",
            machine=machine or "",
            require=required,
            start=start,
            set_aside=aside,
            out=out,
            sweep=plan,
            max_states=max_states,
            workers=workers,
            executor=_celery(out, redis, workers, results_url) if kind == "celery" else None,
            told=_progress,
        )
    except Interrupted as interrupted:
        _say(_resumes(out, interrupted))
        return INTERRUPTED
    click.echo(found.json() if as_json else str(found))
    return found.code


def _celery(out: Path | None, redis: str | None, workers: int | None, results_url: str) -> Made:
    """Returns what makes the executor `celery` for a folder. InputError without --out, as for a sweep, or without
    packages."""
    need("redis", "celery")
    if out is None:
        raise InputError("--executor celery keeps its results", value="", allowed="--out DIR beside it",
                         then="ultrafolio search --help")  # fmt: skip
    executors.queue_of(out, redis, workers, results_url, NO_LIMITS, fresh=False, quiet=True)
    return lambda folder: executors.queue_of(folder, redis, workers, results_url, NO_LIMITS, fresh=False, quiet=False)


def _resumes(out: Path | None, interrupted: Interrupted) -> str:
    """Returns what a user does after an interruption."""
    if interrupted.detached:
        then = f"ultrafolio sweep status {interrupted.detached}"
        return f"detached; the job goes on. To come back, repeat the command. Its state: {then}"
    return "interrupted; what was computed is stored: repeat the command" if out else "interrupted"


def _say(text: str) -> None:
    click.echo(text, err=True)


def _progress(name: str, made: Table) -> None:
    """Say on a terminal which scenario is done."""
    if sys.stderr.isatty():
        print(f"\r{name}: {plural(len(made.answers), 'verdict')}"[:78].ljust(78), end="\r", file=sys.stderr, flush=True)
