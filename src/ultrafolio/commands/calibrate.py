"""`ultrafolio calibrate`: measure the costs of the model's steps, and compare the running kernel with its rules."""

from __future__ import annotations

import contextlib
import json
import platform
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
from ultrafolio.calibrate import measures, memfd_page, memfd_rows, probes, profile
from ultrafolio.calibrate.sample import Missing, Sample
from ultrafolio.commands.trace import in_folder
from ultrafolio.errors import InputError
from ultrafolio.finite import Finite
from ultrafolio.model import designs

_STYLE = {
    probes.AGREES: "green", probes.DIFFERS: "bold red", probes.IMPOSSIBLE: "dim", probes.MISSING: "yellow",
}  # fmt: skip
_UNASKED = (probes.IMPOSSIBLE, probes.MISSING)
_HEADINGS = {
    designs.S390.name: "The model's rules and this kernel",
    designs.GUEST_MEMFD.name: f"The rules of guest_memfd and this kernel, Linux {platform.release()}",
}


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
@click.option("--costs/--no-costs", default=True, show_default=True, help="Measure the costs.")
@click.option(
    "--kernel/--no-kernel",
    default=True,
    show_default=True,
    help="Hold the model's rules against the running kernel; most probes need root, those of guest_memfd /dev/kvm.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of the tables.")
@click.option(
    "--markdown", is_flag=True, help="With --no-costs: what the kernel says of guest_memfd, as docs/running-kernel.md."
)
def calibrate(
    output: Path | None,
    seconds: float,
    folder: Path,
    folio_sizes: bool,
    costs: bool,
    kernel: bool,
    as_json: bool,
    markdown: bool,
) -> int:
    """Measure the costs of the model's steps on this machine, and compare its rules with the running kernel.

    Measured are AES-GCM and hashes over 4 KiB, first touches and splits by folio size, LRU drains, direct I/O by
    size, and writeback; each with its median and quartiles. A cost that cannot be measured here keeps its default, is
    marked assumed, and the reason is printed. Only --folio-sizes changes settings of the system.

    The rules of guest_memfd are asked of the kernel by /dev/kvm. A rule that this kernel cannot be asked is printed
    with the capability that is missing; it changes no exit code.

    \b
    ultrafolio calibrate -o profiles/mine.toml
    ultrafolio run --costs profiles/mine.toml --policy split --order 4
    ultrafolio calibrate --folder /var/lib/machines --folio-sizes --seconds 60 -o server.toml
    ultrafolio calibrate --no-kernel --json
    ultrafolio calibrate --kernel --no-costs

    Exit codes: 0 done, 1 the kernel differs from a rule, 2 bad input.
    """
    _refuse(output, costs=costs, kernel=kernel, forms=as_json + markdown, markdown=markdown)
    if output:
        in_folder(output, "-o")
    if not folder.is_dir():
        raise InputError(
            f"--folder: no folder {folder}",
            value=str(folder),
            allowed="a folder that can be written to",
            then=f"mkdir -p {shlex.quote(str(folder))}",
        )
    samples, missing = _measure(measures.Settings(folder, folio_sizes), seconds) if costs else ([], [])
    found = [*(probes.findings(folder) if kernel else []), *(memfd_rows.findings() if kernel else [])]
    command = _command(output, seconds, folder, folio_sizes, costs=costs, kernel=kernel)
    measured = profile.entries(samples, missing) if costs else []
    if output:
        durable.replace(output, profile.toml(measured, samples, missing, command).encode())
    if markdown:
        click.echo(memfd_page.page(found, memfd_rows.capabilities(), profile.machine(), command), nl=False)
    elif as_json:
        record = {"command": command, "machine": profile.machine(), "costs": [asdict(cost) for cost in measured],
                  "measured": [asdict(made) for made in samples], "missing": [asdict(lost) for lost in missing],
                  "kernel": [asdict(one) for one in found], "guest_memfd": _of_memfd(found) if kernel else None,
                  "profile": str(output) if output else None}  # fmt: skip
        click.echo(json.dumps(record))
    else:
        if costs:
            _show(samples, missing, measured)
        _show_findings(found)
        click.echo(f"profile  {output}" if output else "no profile written: -o FILE.toml does")
        click.echo(f"reproduce: {command}")
    return int(any(one.verdict == probes.DIFFERS for one in found))


def _refuse(output: Path | None, *, costs: bool, kernel: bool, forms: int, markdown: bool) -> None:
    """Raise InputError for options that exclude each other."""
    if forms > 1:
        raise InputError("--json and --markdown say different things", value="both", allowed="one of them")
    if markdown and (costs or not kernel):
        raise InputError(
            "--markdown is about the kernel alone",
            value="--costs" if costs else "--no-kernel",
            allowed="--no-costs",
            then="ultrafolio calibrate --no-costs --markdown",
        )
    if not costs and (output or not kernel):
        raise InputError(
            "--no-costs leaves nothing to do" if not kernel else "--no-costs has no profile to write",
            value=str(output) if output else "--no-kernel",
            allowed="--no-costs with --kernel, and without -o",
            then="ultrafolio calibrate --kernel --no-costs",
        )


def _of_memfd(found: Sequence[probes.Finding]) -> dict[str, object]:
    """The kernel, its capabilities, and what is known of each rule of guest_memfd."""
    return {
        "release": platform.release(),
        "capabilities": memfd_rows.capabilities(),
        "rules": memfd_rows.by_rule([one for one in found if one.design == memfd_rows.DESIGN.name]),
    }


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


def _command(output: Path | None, seconds: float, folder: Path, folio_sizes: bool, *, costs: bool, kernel: bool) -> str:
    """Returns the command line that makes the profile."""
    words = ["ultrafolio", "calibrate", *(["-o", str(output)] if output else [])]
    words += ["--seconds", f"{seconds:g}"] if costs else ["--no-costs"]
    words += [] if folder == Path() else ["--folder", str(folder)]
    words += ["--folio-sizes"] if folio_sizes else []
    return shlex.join(words + ([] if kernel else ["--no-kernel"]))


def _show(samples: Sequence[Sample], missing: Sequence[Missing], costs: Sequence[profile.Cost]) -> None:
    """Print the measures and the costs as tables."""
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
    console.print()


def _show_findings(found: Sequence[probes.Finding]) -> None:
    """Print the findings, those of each design under its heading."""
    console = screen.console()
    for design, heading in _HEADINGS.items():
        of_design = [one for one in found if one.design == design]
        if of_design:
            console.print(f"[bold]{heading}[/]")
        for one in of_design:
            told = [f"model:  {one.says}"] if one.says else []
            told.append(f"because: {one.saw}" if one.verdict in _UNASKED else f"kernel: {one.saw}")
            words = " ".join(word for word in (one.verdict, one.case, ", ".join(one.rules)) if word)
            _indented(console, f"[{_STYLE[one.verdict]}]{one.verdict}[/]{words.removeprefix(one.verdict)}", told)
        if of_design:
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
