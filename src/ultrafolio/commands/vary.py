"""`ultrafolio check --vary`: check one scenario at several sizes; print a row for each, and the first that fails."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import click
from rich.table import Table

from ultrafolio import api, screen
from ultrafolio.check.search.packing import MAX_ACTORS
from ultrafolio.check.verdicts.verdict import Extent, Result, Verdict, check
from ultrafolio.commands import machines
from ultrafolio.commands.check_pairs import processes_for, side_by_side
from ultrafolio.errors import InputError
from ultrafolio.export.text import result_text
from ultrafolio.model import scenario, vary

Size = Mapping[str, int]
REFUSED = {
    "--all": "a size is of one scenario: name its file",
    "--expect": "an [expect] table is about the size that the file has",
    "--export": "a program is of the size that the file has",
    "--save": "a trace file is of the size that the file has",
    "--diff-policy": "it compares scenarios, not sizes: name both policies with --policy",
    "--format": "only text and json tell the size",
    "--brief": "its line does not tell the size",
    "--link": "a link is of the size that the file has",
}
"""Option that --vary refuses -> the reason."""


@dataclass(frozen=True, slots=True)
class Row:
    """The result at one size under one policy, on one machine.

    verdict  that of the Result, or "not possible"
    reason   why it is unknown or not possible
    result   None if nothing was explored
    command  the command that gives this result again
    """

    file: str
    size: Size
    policy: str
    machine: str
    verdict: Verdict | Literal["not possible"]
    reason: str
    result: Result | None
    command: str

    @property
    def limited(self) -> bool:
        """Whether a limit was reached; larger sizes would reach it, too."""
        return self.verdict == "unknown" or (self.result is not None and not self.result.complete)

    @property
    def said(self) -> str:
        """Verdict and kind."""
        worst = self.result.worst if self.result else None
        if worst is None or worst.kind is None:
            return self.verdict
        return f"{self.verdict}, {worst.kind}" + (" (expected)" if worst.expected else "")

    @property
    def why(self) -> str:
        """The waiter and the holder, the property that fails, or why the verdict is unknown, in short."""
        worst = self.result.worst if self.result else None
        if worst is None or worst.kind is None:
            return self.reason
        if worst.wait is None:
            return worst.name
        holders = worst.wait.held_by.split("; ")
        more = f" and {len(holders) - 1} more" if len(holders) > 1 else ""
        return f"{worst.wait.waiter}, held by {holders[0].split(', ')[0]}{more}"

    def record(self) -> dict[str, Any]:
        """The JSON object of the result, and its size."""
        made = (
            self.result.record()
            if self.result
            else {
                "scenario": self.file,
                "policy": self.policy,
                "scope": {"machine": self.machine},
                "verdict": self.verdict,
                "kind": None,
                "states": None,
                "reason": self.reason,
                "reproduce": f"{self.command} --json",
            }
        )
        return made | {"size": dict(self.size)}


def refuse(files: Sequence[Path], given: Mapping[str, object]) -> None:
    """Raise InputError for more than one file, or for a given option of REFUSED."""
    for option, reason in REFUSED.items():
        if given.get(option):
            raise InputError(
                f"--vary and {option} do not go together", value=option, allowed="one of the two", cause=reason
            )
    if len(files) > 1:
        raise InputError("--vary makes the sizes of one scenario", value=f"{len(files)} files", allowed="one file")


@dataclass(frozen=True, slots=True)
class Series:
    """One policy on one machine: the scenario there, and how far each size is explored. extent.machine: the machine, if
    it is not the scenario's own."""

    story: api.Scenario
    policy: api.Policy
    extent: Extent

    def rows(self, sizes: Sequence[Size]) -> Iterator[Row]:
        """The scenario checked at each size, up to the first at which a limit is reached."""
        for size in sizes:
            row = self.row(size)
            yield row
            if row.limited:
                return

    def row(self, size: Size) -> Row:
        """The scenario checked at one size."""
        file, story, name = self.story.source, self.story.story, self.policy.name
        varied = [word for what, n in size.items() for word in ("--vary", f"{what}={n}")]
        command = shlex.join(["ultrafolio", "check", file, "--policy", name, *self.extent.words(), *varied])
        try:
            made = vary.sized(story, **size)
            if len(made.actors) > MAX_ACTORS:
                reason = f"limit of {MAX_ACTORS} actors reached: it would have {len(made.actors)}"
                return Row(file, size, name, story.machine, "unknown", reason, None, command)
            result = replace(check(made, file, self.policy.choices, name, self.extent), command=command)
        except InputError as error:
            reason = "; ".join(filter(None, (error.what, error.cause)))
            return Row(file, size, name, story.machine, "not possible", reason, None, command)
        return Row(file, size, name, story.machine, result.verdict, result.reason, result, command)


def series(file: Path, chosen: Sequence[str], sizes: Sequence[Size], extent: Extent) -> list[Series]:
    """What is checked at each size: each chosen policy, or each preset that fits some size, on each machine that the
    extent names. Raises InputError for a policy of another design."""
    story = api.Scenario.find(file)
    orders = [size["order"] for size in sizes if "order" in size] or story.story.memory["folios"]
    made = []
    for name in chosen or machines.presets_for(story, extent.machine or None, orders):
        for there, machine, policy in machines.each(story, extent.machine or None, name):
            scenario.fits_design(there.story, policy.choices, there.name)
            made.append(Series(there, policy, replace(extent, machine=machine)))
    return made


def run(
    file: Path, ranges: Sequence[str], chosen: Sequence[str], extent: Extent, workers: int | None, *, as_json: bool,
    typed: str,
) -> int:  # fmt: skip
    """Check the scenario at each size under each policy, smaller sizes first, and print the results.

    The series of a policy on a machine ends when a limit is reached. workers: processes, each for a series at a time.
    extent.machine: what --machine says. `typed`: the command that prints the same again. Returns the exit code of
    `check`. Raises InputError, after the rows, if no size is possible.
    """
    sizes = vary.sizes(ranges)
    every = series(file, chosen, sizes, extent)
    rows: list[list[Row]] = []
    processes = processes_for(
        len(every) * len(sizes), {one.story.story.design for one in every}, workers, extent.threads
    )
    again = shlex.join([*shlex.split(typed), "--workers", "1"])
    many: Iterator[Iterable[Row]] = (
        side_by_side(lambda number, _: list(every[number].rows(sizes)), len(every), processes, again)
        if processes > 1
        else (one.rows(sizes) for one in every)
    )
    for some in many:
        rows.append([])
        for row in some:
            rows[-1].append(row)
            if as_json:
                click.echo(json.dumps(row.record(), ensure_ascii=False))
    flat = [row for some in rows for row in some]
    alone = len(sizes) * len(every) == 1
    if all(row.verdict == "not possible" for row in flat):
        if not as_json and not alone:
            _table(flat)
        raise InputError("--vary: no size is possible", value=" ".join(ranges), cause=flat[0].reason)
    if not as_json:
        _one(flat[0]) if alone else _table(flat)
    if not alone:
        several = len({row.machine for row in flat}) > 1
        for of_series in rows:
            click.echo("\n".join(closing(of_series, sizes, on_machine=several)), err=as_json)
        if not as_json:
            click.echo(f"reproduce the table: {typed}")
    verdicts = {row.verdict for row in flat}
    return 1 if "violated" in verdicts else 3 if "unknown" in verdicts else 0


# ---------------------------------------------------------------------------------------------- printing
def in_words(size: Size) -> str:
    return " ".join(f"{name}={n}" for name, n in size.items())


def _one(row: Row) -> None:
    """Print the only row in full."""
    click.echo(f"{in_words(row.size)}:")
    if row.result:
        click.echo(result_text(row.result))
    else:
        click.echo(f"{row.file} under {row.policy}: {row.verdict}: {row.reason}\nreproduce: {row.command}")


def _table(rows: Sequence[Row]) -> None:
    """Print one line for each row; with the policy if there are several, and with the machine."""
    more = [name for name in ("policy", "machine") if len({getattr(row, name) for row in rows}) > 1]
    lines = [
        [
            in_words(row.size),
            *(getattr(row, name) for name in more),
            str(row.result.states) if row.result else "",
            row.said,
            row.why,
        ]
        for row in rows
    ]
    heading = ["size", *more, "states", "verdict", "who waits, held by whom"]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in heading:
        table.add_column(title, no_wrap=True, justify="right" if title == "states" else "left")
    for line in lines:
        table.add_row(*line)
    screen.show(table, screen.console(markup=False))


def closing(rows: Sequence[Row], sizes: Sequence[Size], *, on_machine: bool = False) -> list[str]:
    """Lines for the rows of one policy on one machine: the first size that fails and its command, or that none fails;
    the limit that ended the series, if one did. on_machine: whether they name the machine."""
    policy = rows[0].policy + (f" on {rows[0].machine}" if on_machine else "")
    failed = next((row for row in rows if row.verdict == "violated"), None)
    whole = [row for row in rows if row.result and row.result.complete]
    absent = sum(row.verdict == "not possible" for row in rows)
    if failed and failed.result:
        said = f"first that fails: {in_words(failed.size)} under {policy} ({failed.result.worst.kind})"
    elif whole:
        said = f"none fails up to {in_words(whole[-1].size)} under {policy}"
    else:
        said = f"no size was explored whole under {policy}"
    if absent and not failed:
        said += f" ({absent} of {len(rows)} sizes not possible)"
    last = rows[-1]
    if last.limited:
        left = len(sizes) - len(rows)
        said += f"; {last.reason} at {in_words(last.size)}"
        said += f", the {left} sizes after it were not tried" if left > 1 else ""
        said += ", the size after it was not tried" if left == 1 else ""
    lines = [said]
    if not all(row.result.leads_to for row in rows if row.result):
        lines.append("leads-to properties were not asked for: whether anything waits for ever is not decided")
    return [*lines, f"reproduce: {failed.command}"] if failed else lines
