"""`ultrafolio calibrate`: measure the costs of the model's steps, and compare the running kernel with its rules."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from ultrafolio import durable, screen
from ultrafolio.calibrate import measures, probes, profile
from ultrafolio.calibrate.sample import Missing, Sample
from ultrafolio.commands.trace import in_folder
from ultrafolio.errors import InputError
from ultrafolio.finite import Finite

_STYLE = {probes.AGREES: "green", probes.DIFFERS: "bold red", probes.IMPOSSIBLE: "dim"}


@click.command("calibrate")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the cost profile to this TOML file.")
@click.option(
    "--seconds", default=10.0, show_default=True, type=Finite(0.1, 3600), help="About how long to measure, all in all."
)
@click.option(
    "--folder",
    default=Path("."),
    show_default=True,
    type=click.Path(path_type=Path),
    help="Whose disk is measured; a nameless file of 16 MiB is made there and gone at the end.",
)
@click.option(
    "--folio-sizes",
    is_flag=True,
    help="Also measure folio sizes that this system refuses: each is set to "
    "madvise for its turn, and put back. Needs root.",
)
@click.option(
    "--kernel/--no-kernel",
    default=True,
    show_default=True,
    help="Hold the model's rules against the running kernel; most probes need root.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of the tables.")
def calibrate(output: Path | None, seconds: float, folder: Path, folio_sizes: bool, kernel: bool, as_json: bool) -> int:
    """Measure the costs of the model's steps on this machine, and compare its rules with the running kernel.

    Measured are AES-GCM and hashes over 4 KiB, first touches and splits by folio size, LRU drains, direct I/O by
    size, and writeback; each with its median and quartiles. A cost that cannot be measured here keeps its default, is
    marked assumed, and the reason is printed. Only --folio-sizes changes settings of the system.

    \b
    ultrafolio calibrate -o profiles/mine.toml
    ultrafolio run --costs profiles/mine.toml --policy split --order 4
    ultrafolio calibrate --folder /var/lib/machines --folio-sizes --seconds 60 -o server.toml
    ultrafolio calibrate --no-kernel --json

    Exit codes: 0 done, 1 the kernel differs from a rule, 2 bad input.
    """
    if output:
        in_folder(output)
    if not folder.is_dir():
        raise InputError(
            f"--folder: no folder {folder}",
            value=str(folder),
            allowed="a folder that can be written to",
            then=f"mkdir -p {shlex.quote(str(folder))}",
        )
    samples, missing = _measure(measures.Settings(folder, folio_sizes), seconds)
    found = probes.findings(folder) if kernel else []
    costs, command = profile.entries(samples, missing), _command(output, seconds, folder, folio_sizes, kernel)
    if output:
        durable.replace(output, profile.toml(costs, samples, missing, command).encode())
    if as_json:
        record = {"command": command, "machine": profile.machine(), "costs": [asdict(cost) for cost in costs],
                  "measured": [asdict(made) for made in samples], "missing": [asdict(lost) for lost in missing],
                  "kernel": [asdict(one) for one in found], "profile": str(output) if output else None}  # fmt: skip
        click.echo(json.dumps(record))
    else:
        _show(samples, missing, costs, found)
        click.echo(f"profile  {output}" if output else "no profile written: -o FILE.toml does")
        click.echo(f"reproduce: {command}")
    return int(any(one.verdict == probes.DIFFERS for one in found))


def _measure(settings: measures.Settings, seconds: float) -> tuple[list[Sample], list[Missing]]:
    """Run each measure for an equal part of `seconds`; on a terminal, stderr names the running one."""
    todo = measures.measures()
    samples: list[Sample] = []
    missing: list[Missing] = []
    quiet = screen.is_plain() or not sys.stderr.isatty()
    with contextlib.nullcontext() if quiet else screen.console(sys.stderr).status("measuring") as status:
        for name, measure in todo.items():
            if status:
                status.update(f"measuring {name}")
            made, lost = measures.take(name, measure, settings, seconds / len(todo))
            samples += made
            missing += lost
    return samples, missing


def _command(output: Path | None, seconds: float, folder: Path, folio_sizes: bool, kernel: bool) -> str:
    """Returns the command line that makes the profile."""
    words = ["ultrafolio", "calibrate", *(["-o", str(output)] if output else []), "--seconds", f"{seconds:g}"]
    words += [] if folder == Path() else ["--folder", str(folder)]
    words += ["--folio-sizes"] if folio_sizes else []
    return shlex.join(words + ([] if kernel else ["--no-kernel"]))


def _show(
    samples: Sequence[Sample],
    missing: Sequence[Missing],
    costs: Sequence[profile.Cost],
    found: Sequence[probes.Finding],
) -> None:
    """Print the measures, the costs and the findings as tables."""
    console = screen.console()
    table = _table("measured", "median", "quartiles", "n", "what")
    for made in samples:
        what = re.split(r"[;:(,]", made.what)[0].strip()
        table.add_row(made.name, time(made.median), f"{time(made.q1)} … {time(made.q3)}", f"{made.n}", what)
    screen.show(table, console)
    for reason, names in _by_reason(missing).items():
        _indented(console, "[yellow]not measured[/] " + ", ".join(names), [f"because: {escape(reason)}"])
    console.print()
    table = _table("cost", "ns", "", "from what, or why not")
    for cost in costs:
        table.add_row(cost.name, f"{cost.ns:,}", cost.source, escape(cost.why))
    screen.show(table, console)
    if found:
        console.print("\n[bold]The model's rules and this kernel[/]")
    for one in found:
        told = [f"model:  {one.says}"] if one.says else []
        told.append(f"because: {one.saw}" if one.verdict == probes.IMPOSSIBLE else f"kernel: {one.saw}")
        _indented(console, f"[{_STYLE[one.verdict]}]{one.verdict}[/] {', '.join(one.rules)}", told)
    console.print()


def _indented(console: Console, head: str, lines: Sequence[str]) -> None:
    """Print a line and indented lines below it, all wrapped."""
    console.print(head)
    for line in lines:
        console.print(Padding(line, (0, 0, 0, 4), expand=False))


def _by_reason(missing: Sequence[Missing]) -> dict[str, list[str]]:
    """Reason -> names of the missing measures. Folio sizes are removed from the reasons, which makes these equal."""
    grouped: dict[str, list[str]] = {}
    for lost in missing:
        size = lost.name.removeprefix("folio_").removesuffix("kB")
        reason = lost.reason.replace(f"hugepages-{size}kB", "hugepages-*kB").replace(f"{size} KiB", "these sizes")
        grouped.setdefault(reason, []).append(lost.name)
    return grouped


def time(ns: int) -> str:
    """ns in the unit that leaves up to three digits before the point."""
    for unit, size in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}" if ns < 1000 * size else f"{ns / size:.0f} {unit}"
    return f"{ns} ns"


def _table(*titles: str) -> Table:
    """A table whose last column alone may wrap."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in titles:
        table.add_column(
            title, justify="right" if title in ("median", "n", "ns") else "left", no_wrap=title != titles[-1]
        )
    return table
