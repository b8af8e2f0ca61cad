"""What `ultrafolio check` prints and writes of its results."""

from __future__ import annotations

import json
import shlex
import textwrap
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from ultrafolio import durable, screen
from ultrafolio.check.verdicts.verdict import Finding, Result
from ultrafolio.errors import InputError, one_of
from ultrafolio.export import chrome, formats, ktap, observation, prose
from ultrafolio.export.text_in import of_design, result_text
from ultrafolio.export.trace_file import file_text, trace_file
from ultrafolio.model import policies, scenario
from ultrafolio.model.designs import NUMBERS
from ultrafolio.model.words import EXPECT
from ultrafolio.names.find import stem
from ultrafolio.nouns import plural

_SHORT = {"safety": "unsafe", "fatal": "fatal", "permanent": "hangs", "livelock": "livelock", "vmm-bound": "vmm-bound",
          "transient": "waits"}  # fmt: skip
Made = tuple[scenario.Scenario, policies.AnyPolicy]
"""The scenario and the policy of a result."""
Checked = tuple[Result, Made]


def write(checked: list[Checked], form: str) -> None:
    """Print the results as one document of the format, or in sentences."""
    results = [result for result, _ in checked]
    worst = formats.worst(results)
    if form == "tap":
        click.echo(formats.tap(results))
    elif form == "ktap":
        click.echo(ktap.ktap([_reported(result, *made) for result, made in checked]))
    elif form == "prose":
        click.echo("\n\n\n".join(map(prose.prose, results)))
    elif form == "mermaid":
        click.echo(formats.mermaid(worst, worst.worst))
    elif not formats.has_story(worst.worst):
        click.echo("nothing failed or waited: there is no story to write", err=True)
    elif form == "itf":
        click.echo(json.dumps(formats.itf(worst, worst.worst), ensure_ascii=False))
    else:
        click.echo(chrome.of_finding(worst, scenario.system(*checked[results.index(worst)][1])), nl=False)


def _reported(result: Result, story: scenario.Scenario, policy: policies.AnyPolicy) -> ktap.Reported:
    """A result with its line, and with what [expect] says of it."""
    wanted = differences(result, story.expect) if result.policy in story.expect else None
    return ktap.Reported(result, stem(result.scenario), line(result, story, policy), wanted)


def line(result: Result, story: scenario.Scenario, policy: policies.AnyPolicy) -> str:
    """The line that decides (export/observation.py) of a result, which was made from this scenario and policy."""
    return observation.of_result(result, stem(result.scenario), observation.hash_of(story, policy), "check")


def save(checked: list[Checked], to: Path) -> None:
    """Write the trace file of the worst story, whole or not at all."""
    results = [result for result, _ in checked]
    worst = formats.worst(results)
    if not formats.has_story(worst.worst):
        click.echo(f"nothing failed or waited: {to} is not written", err=True)
        return
    story, chosen = checked[results.index(worst)][1]
    durable.replace(to, file_text(trace_file(worst, worst.worst, story, chosen)).encode())
    click.echo(f"saved; certify it again: {shlex.join(['ultrafolio', 'trace', 'verify', str(to)])}", err=True)


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


def cell_text(result: Result) -> str:
    """A result in one word for the matrix."""
    if result.verdict == "unknown":
        return "unknown"
    worst = result.worst
    return "holds" if not worst.kind or worst.expected else _SHORT[worst.kind]


def show(results: list[Result], diff: tuple[str, str] | None, command: str) -> None:
    """Print one result in full, or several as a matrix scenario x policy for each design; with --diff-policy the rows
    that differ. command: what gives the same output again."""
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
    click.echo(f"reproduce: {command}")


def word_of(finding: Finding) -> str:
    """What --story calls a finding: the number of its property, or the first word of its leads-to."""
    return str(NUMBERS[finding.name]) if finding.name in NUMBERS else finding.name.partition(" ")[0]


def show_story(results: list[Result], word: str, command: str) -> None:
    """Print the story of one finding: the worst that word_of() calls so. InputError for several results, and where no
    finding of that name has a story."""
    if len(results) != 1:
        raise InputError(
            "--story prints one story",
            value=plural(len(results), "result"),
            allowed="one scenario, one --policy, and at most one --machine",
        )
    told = [finding for finding in results[0].findings if formats.has_story(finding)]
    asked = [finding for finding in told if word_of(finding) == word]
    if not asked:
        words = ", ".join(dict.fromkeys(map(word_of, told)))
        raise InputError(
            f"--story: {results[0].scenario} under {results[0].policy} has no such story",
            value=word,
            allowed=words or "none: nothing fails, and nothing waits",
            cause="a property is named by its number, a leads-to by its first word",
            then=shlex.join([part for part in shlex.split(command) if part not in ("--story", word)]),
        )
    one, design = min(asked, key=lambda finding: (not finding.fails, finding.rank)), of_design(results[0])
    click.echo(f"{results[0].heading()}\n\n{design.finding_text(one)}\n")
    click.echo(f"{design.paragraph(design.LEGEND)}\n\nreproduce: {command}")


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
