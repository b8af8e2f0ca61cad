"""`ultrafolio run`: one simulation, its verdict and its measures."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.table import Table

from ultrafolio import screen, shipped
from ultrafolio.api import Run, Scenario
from ultrafolio.commands import machines
from ultrafolio.commands.completion import among
from ultrafolio.durable import unwritable
from ultrafolio.errors import InputError, one_of
from ultrafolio.export import observation
from ultrafolio.export.observed_run import of_run
from ultrafolio.model import designs, policies
from ultrafolio.model.design import Design
from ultrafolio.model.designs import DESIGNS, GUEST_MEMFD, S390
from ultrafolio.model.layout import State
from ultrafolio.names.find import simulated, stem
from ultrafolio.nouns import plural
from ultrafolio.sim import cell, config, once
from ultrafolio.sim.load import compiled
from ultrafolio.sim.memfd_config import SETTABLE
from ultrafolio.sim.records import World
from ultrafolio.trace.events import Writer

_BUFFER = 1 << 16
_AXES = [
    ("policy", str, "A preset, FILE.toml[#NAME], or a [policy.NAME] of FILE."),
    ("order", int, "Folio order, 0 to 9; of guest_memfd to 18."),
    ("workload", str, "A [workload.NAME] of FILE."),
    ("placement", str, "aligned, contiguous or scattered: where shared pages lie."),
    ("costs", str, "A [costs.NAME] of FILE, or a FILE.toml with [costs]."),
    ("seed", int, "Seed of every random choice."),
    ("duration_us", int, "Simulated time in microseconds."),
]


def _axis_options(command: Any) -> Any:
    for name, kind, text in reversed(_AXES):
        default = f"{config.AXES[name].default}" + ("; a scenario: its design's first" * (name == "policy"))
        flag = "--" + name.replace("_", "-")
        complete = among(policies.names) if name == "policy" else None
        command = click.option(
            flag, name, type=kind, default=None, help=f"{text}  [default: {default}]", shell_complete=complete
        )(command)
    return command


@click.command()
@click.argument(
    "file",
    required=False,
    type=click.Path(path_type=Path),
    shell_complete=among(lambda: [*shipped.names("scenarios"), *shipped.names("sweeps")]),
)
@_axis_options
@click.option(
    "--set",
    "fields",
    multiple=True,
    metavar="NAME=VALUE",
    help="A workload field, as in [workload.NAME]; of guest_memfd also machine, patience or holder.",
    shell_complete=among(lambda: (f"{name}=" for name in SETTABLE)),
)
@machines.option("a run on each that the policy is for.")
@click.option("--check/--no-check", default=True, help="Check the properties at every step.  [default: check]")
@click.option("--trace", "trace_file", type=click.Path(path_type=Path), help="Write every step to this file, NDJSON.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of the table.")
@click.option("--brief", is_flag=True, help="Only the line that decides, as check --brief prints it.")
def run(
    file: Path | None,
    fields: tuple[str, ...],
    machine: str | None,
    check: bool,
    trace_file: Path | None,
    as_json: bool,
    brief: bool,
    **axes: Any,
) -> int:
    """Simulate once: does a vCPU hang, who holds what, and what did it cost?

    FILE is a scenario as check takes it (a file, TOML or .uf, a shipped one's name, or a name by pattern), or a plan
    whose [workload.*], [policy.*] and [costs.*] blocks are used. Without FILE, the default workload of the policy's
    design.

    \b
    ultrafolio run --policy whole-folio --order 4 --set rings=2
    ultrafolio run --policy split --order 9 --set imported=false --set backing=iomap
    ultrafolio run sweeps/seed.toml --workload disk --policy per-page --order 3 --trace steps.ndjson
    ultrafolio run scenarios/03-virtio.toml --policy whole-folio
    ultrafolio run LPIN+neigh --policy whole-folio
    ultrafolio run g16-vfio-pin --policy gmem-7.4
    ultrafolio run g38-removal-fails --policy gmem-7.4 --machine all --brief
    ultrafolio run --policy gmem-7.4 --order 9 --machine snp --set holder=vfio

    Exit codes: 0 done, 1 a property of the model was violated or a guest hung for ever, 2 bad input.
    """
    given = {name: value for name, value in axes.items() if value is not None} | {"check": check}
    story, path, document = simulated(file) if file else (None, Path(), {})
    if trace_file and trace_file.is_dir():
        raise InputError(
            f"--trace {trace_file}: a folder", allowed="the path of a file", then=f"--trace {trace_file}/steps.ndjson"
        )
    if as_json and brief:
        raise InputError("--brief and --json say different things", value="both", allowed="one of them")
    form = "brief" if brief else "json" if as_json else "text"
    if trace_file and machine == machines.ALL:
        raise InputError(
            "--trace writes the steps of one run", value=f"--machine {machine}", allowed="one machine by its name"
        )
    given |= _fields(fields)
    if machine and "machine" in given:
        raise InputError("--machine and --set machine name two machines", value=f"{machine}, {given['machine']}",
                         allowed="one of them", then=f"--machine {machine}, without --set machine")  # fmt: skip
    if not file and "policy" in given:
        document = {"design": policies.design_of(policies.find_any(given["policy"]))}
    buffer, where = _BUFFER if trace_file else 0, str(path) if file else ""
    design = story.design if story else document.get("design", S390.name)
    policy_name = given.get("policy") or policies.presets_of(design)[0]
    if story:
        named = Scenario(str(file), str(file), story)
        runs = [
            Asked(
                once.of_scenario(there.story, where, policy.choices, given, trace=buffer),
                stem(where), policy_name, observation.hash_of(there.story, policy.choices), there.story.machine, other,
            )
            for there, other, policy in machines.each(named, machine, policy_name)
        ]  # fmt: skip
    else:
        name = str(given.get("workload", config.AXES["workload"].default))
        runs = []
        for on in _machines(design, policy_name, document.get("policy"), machine):
            axes_there = given | {"machine": on} if on else given
            made = once.of_plan(document, where, axes_there, path.parent, trace=buffer)
            runs.append(Asked(made, name, policy_name, observation.hash_of_cell(made.settings), on, on))
    failed = []
    for asked in runs:
        if len(runs) > 1 and form == "text":
            click.echo(f"on {asked.on}:")
        failed.append(_one(asked, _command(file, given, fields, asked.machine), trace_file, form))
    return int(any(failed))


@dataclass(frozen=True)
class Asked:
    """A run to make: its name, policy and hash in the line that decides. on: the machine, "" where the run has the
    plan's; machine: the same, if it is not the scenario's own."""

    made: once.Once
    name: str
    policy: str
    hashed: str
    on: str = ""
    machine: str = ""


def _machines(design: str, policy: str, tables: Mapping[str, Any] | None, machine: str | None) -> list[str]:
    """Returns the machines that the workload of a plan runs on: the one that was asked for, or all that the policy is
    for; "" where none was asked for. Raises InputError for a machine and a plan of s390."""
    if machine is None:
        return [""]
    if design == S390.name:
        raise InputError(
            "--machine, and a run of the design s390", value=machine, allowed="a run of the design guest_memfd",
            cause="s390 has one machine", then=f"ultrafolio run --policy gmem-7.4 --machine {machine}",
        )  # fmt: skip
    if machine != machines.ALL:
        return [machine]
    chosen = policies.find_any(policy, tables)
    return [one for one in DESIGNS[design].machines if policies.fits_machine(chosen, one)]


def _one(asked: Asked, command: str, trace_file: Path | None, form: str) -> bool:
    """Run, and print the result in one of the forms. Returns whether a property was violated, or a guest hung."""
    made = asked.made
    if trace_file:
        try:
            with Writer(trace_file, made.state, command) as writer:
                hangs = _traced(made.state, made.world, writer)
        except OSError as error:
            raise unwritable(trace_file, error) from None
        result = cell.finish(made.settings, made.state, made.world, hangs)
    else:
        result, hangs = made.simulate()
    if form == "brief":
        click.echo(of_run(made, result, asked.name, asked.policy, asked.hashed))
    elif form == "json":
        click.echo(json.dumps({"command": command, **result, "hangs": hangs}))
    else:
        _show(result, hangs, command, designs.of(made.state))
    outcome = Run(asked.policy, result, hangs)
    return outcome.violations > 0 or outcome.hung


def _fields(pairs: tuple[str, ...]) -> dict[str, Any]:
    """--set NAME=VALUE pairs as values of the field's kind."""
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if name not in SETTABLE:
            raise one_of("--set: unknown workload field", name, SETTABLE, then="ultrafolio reference plan")
        if not equals:
            raise InputError(f"--set {pair}", allowed=f"{name}=VALUE", then="ultrafolio reference plan")
        values[name] = text
        if SETTABLE[name].kind not in ("text", "choice"):
            # a text instead of a number is refused later, by the check of the field's range
            with suppress(ValueError, RecursionError):
                values[name] = json.loads(text)
    return values


def _traced(state: State, around: World, writer: Writer) -> list[str]:
    """Run to the end and write every event. Returns the hangs in words."""
    simulate, told = compiled(designs.of(state)), list[str]()
    around.clock["pausing"] = 1
    while True:
        done = simulate(state, around, _BUFFER)
        writer.add(np.asarray(around.event[:done]))
        around.clock["traced"] = 0
        if not cell.add_hangs(state, around, told) and done < _BUFFER:
            return told


def _command(file: Path | None, given: dict[str, Any], fields: tuple[str, ...], machine: str) -> str:
    words = ["ultrafolio", "run", *([str(file)] if file else [])]
    for name, value in given.items():
        if name != "check" and name not in SETTABLE:
            words += ["--" + name.replace("_", "-"), str(value)]
    words += ["--machine", machine] if machine else []
    words += [] if given["check"] else ["--no-check"]
    return shlex.join(words + [word for pair in fields for word in ("--set", pair)])


_ROWS: dict[str, tuple[tuple[str, str, str], ...]] = {S390.name: (
    ("guest touches", "touches", ""), ("touches a second", "throughput", ""), ("stalls", "stalls", ""),
    ("stalled time", "stall_ns", "ns"), ("stalls open at the end", "open_stalls", ""),
    ("time of those so far", "open_stall_ns", "ns"),
    ("exports", "exports", ""), ("of them collateral", "exports_collateral", ""), ("imports", "imports", ""),
    ("of them collateral", "imports_collateral", ""), ("ultravisor calls", "uv_calls", ""),
    ("ultravisor time", "uv_ns", "ns"), ("I/O done", "io_done", ""), ("splits done", "splits_done", ""),
    ("splits refused", "splits_refused", ""), ("writebacks", "writebacks", ""),
    ("failed too late", "late_failures", ""), ("bytes of tracking state", "tracking_bytes", ""),
    ("events", "events", ""),
), GUEST_MEMFD.name: (
    ("guest operations", "touches", ""), ("requests", "requests", ""), ("converted", "conversions", ""),
    ("pages converted", "pages_converted", ""), ("time to convert", "convert_ns", "ns"),
    ("refusals, -EAGAIN", "refusals", ""), ("asked again", "retries", ""), ("guest told no", "told_no", ""),
    ("stalls", "stalls", ""), ("stalled time", "stall_ns", "ns"), ("stalls open at the end", "open_stalls", ""),
    ("time of those so far", "open_stall_ns", "ns"), ("faults of the guest", "faults", ""),
    ("begun again: invalidated", "fault_retries", ""), ("exits to the VMM", "exits", ""),
    ("faults of users", "user_faults", ""), ("SIGBUS", "sigbus", ""), ("pins granted", "pins", ""),
    ("drains of a CPU", "drains_own", ""), ("drains of all CPUs", "drains_all", ""),
    ("faults that waited for the lock", "lock_waits", ""), ("time of those", "lock_wait_ns", "ns"),
    ("I/O done", "io_done", ""), ("events", "events", ""),
)}  # fmt: skip
"""Per design: title, measure and unit of each row."""


def _show(result: Mapping[str, Any], hangs: list[str], command: str, design: Design) -> None:
    console = screen.console()
    console.print("[bold]hangs:[/] " + ("none" if not hangs else ""))
    for text in hangs[:8]:
        console.print(f"  {text}", markup=False)
    if len(hangs) > 8:
        console.print(f"  … and {len(hangs) - 8} more")
    for number, count in enumerate(result["broken"], 1):
        if count:
            console.print(f"[bold]violated {plural(count, 'time')}:[/] {_property(design, number)}")
    table = Table(show_header=False, box=None, pad_edge=False)
    for title, name, unit in _ROWS[design.name]:
        table.add_row(title, f"{result[name]:>16,} {unit}".rstrip())
    screen.show(table, console)
    console.print(f"reproduce: {command}", markup=False, soft_wrap=True)


def _property(design: Design, number: int) -> str:
    """Returns a property in words, by its number in the design."""
    return f"property {design.first + number}, {design.properties[number]}"
