"""A check on other machines than a scenario names, and the table of what each policy risks on each machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click
from rich.table import Table

from ultrafolio import api, screen
from ultrafolio.check.verdicts.verdict import Finding, Result
from ultrafolio.commands import check_output as output
from ultrafolio.model import policies, scenario
from ultrafolio.model.designs import DESIGNS, GUEST_MEMFD, NUMBERS, S390
from ultrafolio.model.guest_memfd.layout import HOLE, VCPU, VMM

ALL = scenario.EVERY_MACHINE
HANGS, WAITS, OTHER = "a conversion hangs", "a fault or pin hangs", "else"
RISKS: dict[str, tuple[str, ...]] = {
    HANGS: (GUEST_MEMFD.leads_to[1],),
    WAITS: GUEST_MEMFD.leads_to,
    "loses content": (GUEST_MEMFD.properties[7],),
    "exposes a page": tuple(GUEST_MEMFD.properties[number] for number in (3, 4, 6, 8, 11)),
}
"""Column -> names of findings; the first that has it. What fails and is none of these stands in the last column."""
NOBODY = "nobody"
_MOVERS = (VCPU, VMM, HOLE)
"""Kinds of actors that convert and use pages, and hold none for themselves."""


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
    return next((name for name, some in RISKS.items() if finding.name in some), OTHER)


def holder_of(result: Result, finding: Finding) -> str:
    """Returns the cell "held by" of a finding.

    Of a wait: what is held, and the kind of its holder, as "refs:pin"; one word where both are the same. Of a property:
    the kind of the actor whose step breaks it; where that is a guest or a VMM, the other kinds of the scenario.
    """
    if finding.wait is None:
        movers = [GUEST_MEMFD.kinds[kind] for kind in _MOVERS]
        last = finding.steps[-1].kind
        users = [kind for kind in result.scope["actors"] if kind not in movers]
        return last if last not in movers else "+".join(users) or NOBODY
    held = []
    for word in finding.wait.brief.split("+"):
        what, _, who = word.partition("@")[0].partition(":")
        who = who.rstrip("0123456789")
        held.append(what if who in ("", what) else f"{what}:{who}")
    return "+".join(dict.fromkeys(held)) or NOBODY


def _told(result: Result) -> list[Finding]:
    """The failing findings of a result of which check prints the story: the worst of each name."""
    worst: dict[str, Finding] = {}
    for finding in sorted(result.findings, key=lambda finding: finding.rank):
        if finding.fails:
            worst.setdefault(finding.name, finding)
    return list(worst.values())


def _command(result: Result, finding: Finding) -> str:
    """The command that prints the story of a finding."""
    return result.command if finding is result.worst else f"{result.command} --story {output.word_of(finding)}"


def show(results: Sequence[Result]) -> None:
    """Print what each policy risks on each machine: a row for both and for who holds a page. A cell has the class of a
    wait or the property that fails, and the number of the command that prints its story, the shortest one. A policy
    without a risk on a machine has one row."""
    rows: dict[tuple[str, str], dict[str, dict[str, tuple[int, str, str]]]] = {}
    for result in results:
        by_holder = rows.setdefault((result.policy, result.scope["machine"]), {})
        for finding in _told(result):
            what = str(finding.kind) if finding.wait else f"property{NUMBERS[finding.name]}"
            made = len(finding.steps) + len(finding.cycle), what, _command(result, finding)
            row, name = by_holder.setdefault(holder_of(result, finding), {}), risk_of(finding)
            row[name] = min(row.get(name, made), made)
    columns = (*RISKS, OTHER)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("policy", "machine", "held by", *columns):
        table.add_column(name, overflow="fold")
    commands: dict[str, int] = {}
    for (policy, machine), by_holder in rows.items():
        for holder, row in sorted(by_holder.items()) or [("-", {})]:
            cells = []
            for name in columns:
                number = commands.setdefault(row[name][2], len(commands) + 1) if name in row else 0
                cells.append(f"{row[name][1]} [{number}]" if number else "-")
            table.add_row(policy, machine, holder, *(cell.replace("[", "\\[") for cell in cells))
    screen.show(table)
    for command, number in commands.items():
        click.echo(f"[{number}] {command}")
