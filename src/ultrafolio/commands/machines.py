"""A check on other machines than a scenario names, and the table of what each policy risks on each machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click
from rich.table import Table

from ultrafolio import api, screen
from ultrafolio.check.verdicts.verdict import Finding, Result
from ultrafolio.export.observation import facts_of
from ultrafolio.model import policies, scenario
from ultrafolio.model.designs import DESIGNS, GUEST_MEMFD, NUMBERS, S390
from ultrafolio.names.find import stem

ALL = scenario.EVERY_MACHINE
RISKS: dict[str, tuple[str, ...]] = {
    "hangs": ("fatal", "permanent", "livelock", "vmm-bound"),
    "loses content": (GUEST_MEMFD.properties[7],),
    "exposes a page": tuple(GUEST_MEMFD.properties[number] for number in (3, 4, 6, 8, 11)),
}
"""Column -> kinds of findings, or properties. What fails and is none of these stands in the last column."""
OTHER = "else"


def names() -> list[str]:
    """The machines that --machine takes."""
    return [name for design in DESIGNS.values() if design is not S390 for name in design.machines]


def on(story: api.Scenario, machine: str | None) -> list[tuple[api.Scenario, str]]:
    """Returns the scenario on each machine that was asked for, with the machine; "" for its own. InputError for a
    scenario of a design that has one machine only."""
    if machine is None:
        return [(story, "")]
    scenario.several_machines(story.story, machine, story.name)
    asked = DESIGNS[story.story.design].machines if machine == ALL else (machine,)
    return [
        (api.Scenario(story.name, story.source, scenario.on_machine(story.story, name, story.name)),
         "" if name == story.story.machine else name)
        for name in asked
    ]  # fmt: skip


def each(story: api.Scenario, machine: str | None, name: str) -> list[tuple[api.Scenario, str, api.Policy]]:
    """Returns on(), each with the policy of this name; of all machines those for which the policy is one."""
    made = [(there, other, api.Policy.find(name, there)) for there, other in on(story, machine)]
    return [one for one in made if machine != ALL or fits(one[0], one[2])]


def option(text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Returns the option --machine of a command. text: what each machine is for, if it says all."""
    help_text = f"Another machine than the scenario names; {ALL}: {text}"
    return click.option("--machine", type=click.Choice([*names(), ALL]), help=help_text)


def presets_for(story: api.Scenario, machine: str | None, orders: list[int] | None = None) -> tuple[str, ...]:
    """Returns the presets that a scenario is checked under: those that fit one of the machines that were asked for.
    orders: of its folios, where they are not those of the file."""
    some = [there.story for there, _ in on(story, machine)]
    made = [policies.presets_for(one.design, one.machine, orders or one.memory["folios"]) for one in some]
    return tuple(dict.fromkeys(name for names in made for name in names))


def fits(story: api.Scenario, policy: api.Policy) -> bool:
    """Whether the policy is one for the scenario's machine."""
    return policies.fits_machine(policy.choices, story.story.machine)


def risk_of(finding: Finding) -> str:
    """Returns the column of a finding that fails."""
    return next((name for name, some in RISKS.items() if finding.kind in some or finding.name in some), OTHER)


def _cell(result: Result, finding: Finding) -> str:
    """A story in short: its scenario, and who waits for whom or which property fails."""
    facts = facts_of(finding) if finding.kind != "safety" else f"property{NUMBERS[finding.name]}"
    return f"{stem(result.scenario)}: {facts}"


def show(results: Sequence[Result]) -> None:
    """Print what each policy risks on each machine: a row for both, a story for each risk, the shortest one, and the
    commands that print the stories."""
    rows: dict[tuple[str, str], dict[str, tuple[int, str, str]]] = {}
    for result in results:
        row = rows.setdefault((result.policy, result.scope["machine"]), {})
        for finding in result.findings:
            if finding.verdict != "violated" or finding.expected:
                continue
            made = len(finding.steps) + len(finding.cycle), _cell(result, finding), result.command
            name = risk_of(finding)
            row[name] = min(row.get(name, made), made)
    columns = (*RISKS, OTHER)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("policy", "machine", *columns):
        table.add_column(name, overflow="fold")
    commands: dict[str, int] = {}
    for (policy, machine), row in rows.items():
        cells = []
        for name in columns:
            if name not in row:
                cells.append("-")
                continue
            number = commands.setdefault(row[name][2], len(commands) + 1)
            cells.append(f"{row[name][1]} [{number}]")
        table.add_row(policy, machine, *(cell.replace("[", "\\[") for cell in cells))
    screen.show(table)
    for command, number in commands.items():
        click.echo(f"[{number}] {command}")
