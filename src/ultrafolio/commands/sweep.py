"""The command ``sweep``: ``sweep PLAN`` runs a plan, ``sweep status`` and ``sweep why`` ask its store."""

from __future__ import annotations

import difflib
import importlib
import json
import webbrowser
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import cast

import click
from click.shell_completion import CompletionItem

from ultrafolio import api, shipped
from ultrafolio.commands import executors, sweep_on_cluster
from ultrafolio.commands.completion import among
from ultrafolio.errors import InputError, install, need
from ultrafolio.finite import Finite
from ultrafolio.nouns import plural
from ultrafolio.redis_server import VARIABLE, address
from ultrafolio.sweep import cells, explain
from ultrafolio.sweep.distributed.control import find, pause, resume, revoke, watch
from ultrafolio.sweep.distributed.queue import Queue
from ultrafolio.sweep.distributed.ticket import read_ticket
from ultrafolio.sweep.local.processes import Executor, Limits, executor_of
from ultrafolio.sweep.planfile import load
from ultrafolio.sweep.progress import display
from ultrafolio.sweep.run import Rerun, Summary
from ultrafolio.sweep.store import Store, open_store

INTERRUPTED = 130
UNKNOWN = 3
"""Cells failed: of them nothing is known. 1 is left to what hung or was violated, which a sweep does not tell by its
status."""


class _PlanOrCommand(click.Group):
    """A group whose first argument may also be a plan; the command is then ``run``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            near = difflib.get_close_matches(args[0], self.commands, n=1)
            if near and not Path(args[0]).exists():
                raise InputError(
                    "sweep: neither a plan nor a subcommand",
                    value=args[0],
                    allowed=f"PLAN.toml, {', '.join(sorted(self.commands))}",
                    cause=f"did you mean {near[0]!r}?",
                    then=f"ultrafolio sweep {near[0]} --help",
                )
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        plans = [CompletionItem(name) for name in shipped.names("sweeps") if name.startswith(incomplete)]
        return [*super().shell_complete(ctx, incomplete), *plans]

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        path = ctx.command_path
        formatter.write_usage(path, "PLAN.toml [OPTIONS]")
        formatter.write_usage(path, "status STORE [--json]", prefix=" " * 7)
        formatter.write_usage(path, "why STORE KEY [--json]", prefix=" " * 7)
        formatter.write_usage(path, "attach|pause|resume|revoke STORE [--redis URL]", prefix=" " * 7)


@click.group(cls=_PlanOrCommand)
def sweep() -> None:
    """Run a grid of simulations and keep every result once.

    An interrupted sweep resumes when the same command is repeated. Exit status: 0 done, 2 bad input, 3 done and
    some cells failed, 130 interrupted.
    """


@sweep.command("run", short_help="Run a plan (the default: sweep PLAN.toml).")
@click.argument("plan", type=click.Path(path_type=Path), shell_complete=among(lambda: shipped.names("sweeps")))
@click.option("-o", "--output", "store", type=click.Path(path_type=Path), help="The store [out/<plan name>].")
@executors.options()
@click.option("--cell-seconds", type=Finite(min=0, min_open=True), help="A longer cell is a failed cell.")
@click.option("--cell-memory", type=click.IntRange(min=1), metavar="MIB", help="A larger cell is a failed cell.")
@click.option("--rerun", type=click.Choice(["failed", "all"]), help="Compute failed or all cells again.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the plan's first N cells, without results.")
@click.option(
    "--engine",
    type=click.Choice(["simulator", "cluster"]),
    default="simulator",
    show_default=True,
    help="What runs a cell; the cluster takes the simulator's steps and says where it differs.",
)
@click.option(
    "--cluster",
    "where",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="For --engine cluster: what `python -m services --json` printed.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="For --engine cluster: steps of each cell at most.",
)
@click.option("--brief", is_flag=True, help="For --engine cluster: only the line that decides, for each cell.")
@click.option("--report/--no-report", default=None, help="Write the HTML report [on].")
@click.option("--open", "open_it", is_flag=True, help="Open the report in a browser.")
@click.option("--quiet", is_flag=True, help="No progress and no summary; errors only.")
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON object on stdout.")
@click.pass_context
def run(
    ctx: click.Context,
    plan: Path,
    store: Path | None,
    workers: int | None,
    kind: str,
    redis: str | None,
    results_url: str,
    cell_seconds: float | None,
    cell_memory: int | None,
    rerun: Rerun | None,
    limit: int | None,
    engine: str,
    where: Path | None,
    steps: int,
    brief: bool,
    report: bool | None,
    open_it: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run PLAN, a TOML file or the name of a shipped plan, and merge the results into STORE/results.parquet."""
    plan = shipped.found(plan, "sweeps")
    if engine == "cluster":
        need("grpc", "redis")
        if as_json and brief:
            raise InputError("--brief and --json say different things", value="both", allowed="one of them")
        ctx.exit(sweep_on_cluster.run(load(plan), where, limit=limit, most=steps, as_json=as_json, brief=brief))
    if brief:
        raise InputError("--brief is for --engine cluster", value=f"--engine {engine}", then="ultrafolio run --brief")
    hush = quiet or as_json
    loaded = load(plan)
    writer = report_writer(wanted=bool(report or open_it), quiet=hush) if report is not False or open_it else None
    folder = store or Path("out") / plan.stem
    again = f"ultrafolio sweep {shipped.name_of(plan, 'sweeps')}" + (f" -o {store}" if store else "")
    limits = Limits(cell_seconds, cell_memory)
    executor: Executor
    if kind == "celery":
        need("redis", "celery")
        executor = executors.queue_of(folder, redis, workers, results_url, limits, fresh=rerun is not None, quiet=hush)
        again += " --executor celery" + (f" --workers {workers}" if workers else "")
    else:
        executor = executor_of(workers, limits)
    finish(
        ctx,
        lambda: api.sweep(loaded, folder, limit=limit, rerun=rerun, executor=executor, display=display(quiet=hush)),
        executor,
        folder,
        again,
        writer,
        open_it=open_it,
        quiet=quiet,
        as_json=as_json,
    )


def finish(
    ctx: click.Context,
    work: Callable[[], api.Sweep],
    executor: Executor,
    folder: Path,
    again: str,
    writer: Callable[[Path], Path] | None,
    *,
    open_it: bool = False,
    quiet: bool = False,
    as_json: bool = False,
) -> None:
    """Run the sweep, print its summary, write the report, and exit with the group's exit status."""
    try:
        summary = work().summary
        detached = isinstance(executor, Queue) and executor.detached
        if not (as_json or quiet):
            print_summary(summary, again, detached=folder if detached else None)
        page = writer(folder) if writer and summary.results else None
    except KeyboardInterrupt:  # before the workers began, or after they were done
        click.echo(f"interrupted; everything computed is stored. To resume: {again}", err=True)
        ctx.exit(INTERRUPTED)
    if as_json:
        click.echo(json.dumps({**summary.record(), "report": str(page) if page else None}))
    elif page and not quiet:
        click.echo(f"report   {page}")
    if page and open_it:
        webbrowser.open(page.resolve().as_uri())
    if summary.interrupted:
        ctx.exit(INTERRUPTED)
    ctx.exit(UNKNOWN if summary.failed else 0)


@sweep.command("status")
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def status(store: Path, as_json: bool) -> None:
    """Print how many cells of STORE are done, failed and still to run."""
    opened = open_store(store)
    found = explain.status(opened, cells_of(opened))
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    click.echo(f"{found.title} ({found.plan})")
    click.echo(f"  {plural(found.cells, 'cell')}: {found.ok} ok, {found.failed} failed, {found.to_run} to run")
    if found.outdated:
        click.echo(f"  {found.outdated} of those to run have a result of another engine or input (sweep why)")
    for state, keys in found.keys.items():
        if keys:
            more = " …" if getattr(found, state) > len(keys) else ""
            click.echo(f"  keys {state.replace('_', ' '):<8} {' '.join(keys)}{more}")
    if any(found.keys.values()):
        click.echo(f"  what a cell is, and why it would run again: ultrafolio sweep why {store} KEY")
    print_cut(found.cut_segments)
    if read_ticket(store) is not None:
        click.echo(f"  {watch(store, address(None))}")


def cells_of(store: Store) -> cells.Cells:
    """The cells of a store's plan."""
    plan = explain.plan_of(store)
    return cells.of(plan.design, plan.asks)


@sweep.command("why")
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("key")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def why(store: Path, key: str, as_json: bool) -> None:
    """Print the cell whose key is or begins with KEY, and why it would run again."""
    opened = open_store(store)
    found = explain.why(opened, cells_of(opened), key)
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    click.echo(f"{found.key}: {found.status}" + (f", {found.error}" if found.error else ""))
    click.echo("  cell     " + ", ".join(f"{name}={value}" for name, value in found.axes.items()))
    if found.key_now != found.key:
        click.echo(f"  key now  {found.key_now}")
    for reason in found.reasons or ["its result is stored: it would not run"]:
        click.echo(f"  why      {reason}")


@sweep.command("attach")
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--redis", metavar="URL", help=f"Where the job is [{VARIABLE}, then what the store says].")
@click.option("--workers", type=click.IntRange(min=1), help="Start so many workers here, too.")
@click.option("--report/--no-report", default=None, help="Write the HTML report [on].")
@click.option("--quiet", is_flag=True, help="No progress and no summary; errors only.")
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON object on stdout.")
@click.pass_context
def attach(
    ctx: click.Context,
    store: Path,
    redis: str | None,
    workers: int | None,
    report: bool | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Attach to the job of STORE: fetch its finished chunks, and follow the rest."""
    ticket, _, client, url = find(store, address(redis))
    client.close()
    quiet = quiet or as_json
    writer = report_writer(wanted=bool(report), quiet=quiet) if report is not False else None
    where, limits = ticket.record.results_url, ticket.record.limits
    executor = executors.queue_of(store, url, workers, where, limits, fresh=False, quiet=quiet)
    plan = explain.plan_of(open_store(store))
    again = f"ultrafolio sweep {plan.path} -o {store} --executor celery" + (f" --redis {redis}" if redis else "")
    # the cells of the sweep, which may be only the plan's first ones
    limit = sum(1 for _ in plan.cells(range(ticket.stop))) if ticket.stop < plan.size else None
    finish(
        ctx,
        lambda: api.sweep(plan, store, limit=limit, executor=executor, display=display(quiet=quiet)),
        executor,
        store,
        again,
        writer,
        quiet=quiet and not as_json,
        as_json=as_json,
    )


def control(name: str, act: Callable[[Path, str | None], str], told: str, text: str) -> None:
    """A subcommand that changes the state of a store's job."""

    @sweep.command(name, help=text)
    @click.argument("store", type=click.Path(path_type=Path))
    @click.option("--redis", metavar="URL", help=f"Where the job is [{VARIABLE}, then what the store says].")
    def command(store: Path, redis: str | None) -> None:
        click.echo(f"job {act(store, address(redis))} {told}")


control("pause", pause, "is paused", "Let workers finish the chunks they are in, and take no more of STORE's job.")
control("resume", resume, "goes on", "Let the paused job of STORE go on.")
control("revoke", revoke, "is revoked", "End the job of STORE; what was fetched stays stored.")


def report_writer(*, wanted: bool, quiet: bool = False) -> Callable[[Path], Path] | None:
    """The function that writes the report of a store. None, with a line on stderr, if the report is optional and its
    packages are missing."""
    try:
        # Imported here: a sweep does not need the report's packages.
        return cast(Callable[[Path], Path], importlib.import_module("ultrafolio.report").write_report)
    except (ImportError, AttributeError) as error:
        if wanted:
            raise InputError(
                "--report: the report cannot be made here",
                value=str(error),
                allowed="the extra 'report'",
                cause="its packages are optional",
                then=f"{install('report')}, or --no-report",
            ) from None
        if not quiet:
            click.echo(
                f"no report will be written: {install('report')}, then ultrafolio report STORE; "
                "--no-report says nothing of it",
                err=True,
            )
        return None


def print_summary(summary: Summary, again: str, detached: Path | None = None) -> None:
    """Print the summary: one line, then the results' path or the command that continues."""
    print_cut(summary.cut_segments)
    done = summary.computed + summary.stored
    click.echo(
        f"{summary.title}: {done} of {plural(summary.cells, 'cell')} "
        f"({summary.computed} computed, {summary.stored} stored before), {summary.failed} failed, "
        f"{summary.seconds:.1f} s, {summary.cells_per_second:.1f} cells/s"
    )
    if detached is not None:
        click.echo(f"detached; the job goes on. To come back: ultrafolio sweep attach {detached}")
    elif summary.interrupted:
        click.echo(f"interrupted; everything computed is stored. To resume: {again}")
    elif summary.results is None:
        click.echo(f"only the plan's first cells were asked for. To compute all: {again}")
    else:
        click.echo(f"results  {summary.results}")
    if summary.failed and summary.results:
        click.echo(f"failed   once the cause is gone: {again} --rerun failed")


def print_cut(segments: list[str]) -> None:
    """Print the segments that end in the middle of a batch."""
    for path in segments:
        click.echo(f"  {path} ends in the middle of a batch, its writer was killed: the cells lost run again")
