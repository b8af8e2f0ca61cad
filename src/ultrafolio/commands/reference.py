"""`ultrafolio reference`: commands, file formats and services as Markdown, generated from the code."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import click

from ultrafolio.commands import manual, schema
from ultrafolio.errors import InputError, install, one_of
from ultrafolio.fields import Field
from ultrafolio.markdown import table
from ultrafolio.model import kernels, policies, scenario, words
from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.model.guest_memfd import policy as memfd_policy
from ultrafolio.model.guest_memfd import scenario as memfd_scenario
from ultrafolio.model.guest_memfd import words as memfd_words
from ultrafolio.model.policy import MEANING
from ultrafolio.sim import config, costs, memfd_config
from ultrafolio.sim.cell import COLUMNS
from ultrafolio.sim.designs import columns
from ultrafolio.sim.memfd_words import MEMFD_AXIS_MEANING, PATIENCE_MEANING
from ultrafolio.sim.words import AXIS_MEANING, COLUMN_MEANING, MEMFD_MEANING

SERVICES = {"guest": "Guest", "host_mm": "HostMm", "ultravisor": "Ultravisor", "lab": "Lab"}
"""Module of the generated gRPC code -> its service."""
ROW = {
    "key": "the digest of the cell's configuration and of the engine", "status": "`ok` or `failed`",
    "error": "of a failed cell, why; else null",
}  # fmt: skip
"""The result columns of every store."""
ARROW = {"int": "int64", "str": "string", "ints": "list of int64"}
PARTS = ("commands", "policy", "scenario", "plan", "costs", "results", "services")
"""The parts of the page, in order."""
CODES = {
    "0": "done, or holds", "1": "violated, hung, or something found", "2": "bad input",
    "3": "unknown: a limit was reached, or cells of a sweep failed",
    "4": "a defect of ultrafolio: an end that no command expects, or a verdict without its certificate",
    "130": "interrupted; what was computed is kept",
}  # fmt: skip


@click.command("reference")
@click.argument("part", required=False, type=click.Choice(PARTS))
@click.option("--schema", "as_schema", is_flag=True, help="Of a kind of file: its JSON Schema, as editors use it.")
@click.option("--man", "as_man", is_flag=True, help="The commands alone, as the manual page ultrafolio(1).")
@click.option("--json", "as_json", is_flag=True, help="The commands alone, one JSON object a line.")
@click.pass_context
def reference(context: click.Context, part: str | None, as_schema: bool, as_man: bool, as_json: bool) -> None:
    """Print commands, options, file formats and services as Markdown (docs/reference.md is this output).

    \b
    ultrafolio reference | less
    ultrafolio reference scenario
    ultrafolio reference scenario --schema > scenario.schema.json
    ultrafolio reference --json | grep -- --policy

    Exit codes: 0 done, 2 bad input, or the extra `cluster` is missing.
    """
    root = context.find_root().command
    if as_schema:
        if part not in schema.KINDS:
            raise one_of(
                "--schema: of which kind of file?",
                part or "",
                schema.KINDS,
                then="ultrafolio reference scenario --schema",
            )
        click.echo(json.dumps(schema.schema(part), indent=1, ensure_ascii=False))
        return
    if as_man:
        click.echo(manual.page(root, commands(root)), nl=False)
        return
    if part and not as_json:
        click.echo("\n".join(_part(root, part)).rstrip())
        return
    if not as_json:
        click.echo(markdown(root))
        return
    for name, command in commands(root):
        click.echo(
            json.dumps(
                {
                    "command": name,
                    "about": _about(command),
                    "usage": _usage(name, command),
                    "options": [_option(option) for option in _options(command)],
                }
            )
        )


def markdown(root: click.Command) -> str:
    """The page docs/reference.md."""
    return "\n".join(
        [
            "# Reference",
            "",
            "Printed by `ultrafolio reference` from the code that takes the input; do not edit. The steps and",
            "properties are in [rules.md](rules.md); the settings of the services, their environment and ports in",
            "[containers.md](containers.md).",
            "",
            *(line for part in PARTS for line in [*_part(root, part), ""]),
        ]
    ).rstrip()


def _part(root: click.Command, part: str) -> list[str]:
    """One part of the page, under its heading."""
    parts: dict[str, tuple[str, Callable[[], list[str]]]] = {
        "commands": ("Commands", lambda: [*_commands(root), *_codes()]), "policy": ("Policies", _policies),
        "scenario": ("Scenario files", _scenario), "plan": ("Plans and workloads", _plans),
        "costs": ("Cost profiles", _costs), "results": ("Results", _results), "services": ("Services", _services),
    }  # fmt: skip
    heading, make = parts[part]
    return [f"## {heading}", "", *make()]


# ---------------------------------------------------------------------------------------------- commands
def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """(words, command) of every command that is no group, such as ("trace verify", …)."""
    if not isinstance(command, click.Group):
        yield " ".join(path), command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        if below is not None:
            yield from commands(below, (*path, name))


def _commands(root: click.Command) -> list[str]:
    out = []
    for name, command in commands(root):
        out += [f"### {name}", "", _about(command), "", f"`{_usage(name, command)}`", ""]
        rows = [list(_option(option).values()) for option in _options(command)]
        out += [*table(["option", "takes", "what it does"], rows), ""] if rows else []
    return out


def _about(command: click.Command) -> str:
    """The first paragraph of a command's help, on one line."""
    return " ".join(inspect.cleandoc(command.help or "").split("\n\n")[0].split())


def _usage(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=name)
    return " ".join(["ultrafolio", name, *command.collect_usage_pieces(context)])


def _options(command: click.Command) -> list[click.Option]:
    return [param for param in command.params if isinstance(param, click.Option)]


def _option(option: click.Option) -> dict[str, str]:
    """An option as text: its names, value, help and, unless the help has it, its default."""
    takes = "" if option.is_flag else option.make_metavar(click.Context(click.Command(""))) + " …" * option.multiple
    shown = option.show_default and not option.is_flag and option.default is not None
    names = [", ".join(f"`{name}`" for name in words) for words in (option.opts, option.secondary_opts) if words]
    default = f" [default: {option.default}]" if shown else ""
    return {"option": " / ".join(names), "takes": takes, "help": " ".join((option.help or "").split()) + default}


def _codes() -> list[str]:
    return ["### Exit codes", "", *table(["code", "meaning"], [[code, meaning] for code, meaning in CODES.items()])]


# ------------------------------------------------------------------------------------------------- files
def _policies() -> list[str]:
    rows = [[f"`{name}`", MEANING[name], _values(field)] for name, field in policies.FIELDS.items() if name != "base"]
    memfd = [[f"`{name}`", memfd_policy.MEANING[name], _values(field)] for name, field in memfd_policy.FIELDS.items()
             if name != "base"]  # fmt: skip
    presets = [[f"`{name}`", source] for name, (source, _) in policies.PRESETS.items()]
    presets += [[f"`{kernel.name}`", f"{kernel.versions}: {kernel.about}"] for kernel in kernels.KERNELS]
    return [
        "A `[policy.NAME]` table names what differs from its `base`, a preset (`split` where none is named); as",
        "`FILE.toml#NAME` it stands wherever a preset can. `ultrafolio policies` prints what a preset chooses. Any",
        "version of a kernel is a name, too: of the preset of its range, that of the range's last kernels.",
        "What an earlier one did is the preset without a fix: Linux 6.17 is `linux-6.17~d16a74f0f266`.",
        "`linux-6.14+COMMIT` is that kernel with one fix more, `linux-7.1~COMMIT` with one less",
        "([kernel-fixes.md](kernel-fixes.md)).",
        "",
        *table(["choice", "meaning", "values"], rows),
        "",
        *table(["preset", "from"], presets),
        "",
        "### Policies of guest_memfd",
        "",
        "A table whose `base` is one of these presets is a policy of the design guest_memfd:",
        "",
        *table(["choice", "meaning", "values"], memfd),
        "",
        *table(["preset", "from"], [[f"`{name}`", source] for name, (source, _) in memfd_policy.PRESETS.items()]),
    ]


def _scenario() -> list[str]:
    out = [
        "A small closed system, page by page; [scenarios/](../scenarios) has worked ones. A `[policy.NAME]` table "
        "adds a policy,",
        "an `[expect]` table says what `check --expect` compares with.",
        "",
    ]
    tables = {"[memory]": scenario.MEMORY, "[features]": scenario.FEATURES}
    out += _tables(tables | {f"[[{name}]]": fields for name, fields in scenario.ACTORS.items()}, words)
    expect = ["### [expect] POLICY", "", *table(["field", "what check --expect compares"], _rows(words.EXPECT))]
    out += [*_states(words), "", *expect, "", "### Scenarios of guest_memfd", ""]
    out += [
        f'A file that says `design = "{GUEST_MEMFD.name}"` above its tables has those below; `machine` is one of',
        f"{', '.join(f'`{name}`' for name in GUEST_MEMFD.machines)} (left out: `{GUEST_MEMFD.machines[0]}`). An",
        "entry `[expect]` of another machine than the file's is `POLICY@MACHINE`. Worked ones:",
        "[scenarios/guest_memfd/](../scenarios/guest_memfd).",
        "",
    ]
    tables = {"[memory]": memfd_scenario.MEMORY}
    tables |= {f"[[{name}]]": fields for name, fields in memfd_scenario.ACTORS.items()}
    return [*out, *_tables(tables, memfd_words, " of guest_memfd"), *_states(memfd_words, " of guest_memfd")]


def _tables(tables: Mapping[str, Mapping[str, Field]], meaning: ModuleType, of: str = "") -> list[str]:
    """Each table of a scenario with its fields. of: what the headings say beside its title."""
    out = []
    for title, fields in tables.items():
        about = _sentence(meaning.TABLES[title.strip("[]")])
        out += [f"### {title}{of}", "", about, "", *_fields(fields, meaning.FIELDS), ""]
    return out


def _states(meaning: ModuleType, of: str = "") -> list[str]:
    return [f"### States of a page{of}", "", *table(["state", "meaning"], _rows(meaning.STATE_WORDS))]


def _plans() -> list[str]:
    return [
        '`[fixed]` gives an axis one value, `[grid]` a list of them or a range as `"1-20"`; `[[skip]]` leaves',
        "cells out. Axes are those below and every field of a workload. `[workload.NAME]`, `[policy.NAME]` and",
        "`[costs.NAME]` tables define what an axis then names.",
        "",
        *_fields({name: field for name, field in config.AXES.items() if name != "tables"}, AXIS_MEANING),
        "",
        "### [workload.NAME]",
        "",
        *_fields(config.WORKLOAD, AXIS_MEANING),
        "",
        "### Plans of guest_memfd",
        "",
        'A plan that says `design = "guest_memfd"` above its tables has these axes, every field of its workloads, and',
        "`[patience.NAME]` tables beside the others; `sweeps/conversion.toml` is one.",
        "",
        *_fields({name: field for name, field in memfd_config.AXES.items() if name != "tables"}, MEMFD_AXIS_MEANING),
        "",
        "### [workload.NAME] of guest_memfd",
        "",
        *_fields(memfd_config.WORKLOAD, MEMFD_AXIS_MEANING),
        "",
        "### [patience.NAME]",
        "",
        *_fields(memfd_config.PATIENCE_FIELDS, PATIENCE_MEANING),
    ]


def _costs() -> list[str]:
    rows = [[f"`{name}`", f"{ns:,}", source] for name, (ns, source) in costs.DEFAULTS.items()]
    return [
        "A `[costs]` table in a file of its own, or `[costs.NAME]` in a plan; the rest has its default. Which step of",
        "guest_memfd has which is in [model.md](model.md), section 9.8.",
        "",
        *table(["cost", "default, ns", "source"], rows),
        "",
        "Of guest_memfd beside these, for what a step does to pages:",
        "",
        *table(
            ["cost", "default, ns", "source"], [[f"`{n}`", f"{ns:,}", said] for n, (ns, said) in costs.MEMFD.items()]
        ),
    ]


def _results() -> list[str]:
    rows = [[f"`{name}`", ARROW[kind], COLUMN_MEANING[name]] for name, kind in COLUMNS.items()]
    memfd = [[f"`{name}`", ARROW[kind], MEMFD_MEANING[name]] for name, kind in columns(GUEST_MEMFD).items()]
    return [
        "Fields of `run --json`, and columns of a sweep's `results.parquet`, behind the plan's axes and:",
        "",
        *table(["column", "type", "meaning"], [[f"`{name}`", "string", text] for name, text in ROW.items()]),
        "",
        "Then the results; times are in ns:",
        "",
        *table(["column", "type", "meaning"], rows),
        "",
        "The file's metadata has `ultrafolio.plan` (the digest of the plan), `ultrafolio.title` and",
        "`ultrafolio.engine` (the digest of what computed it). Rows stand in the order of their keys. Other",
        "columns are another version of `store.json` ([formats.md](formats.md)).",
        "",
        "### Results of guest_memfd",
        "",
        "Fields of `run --json` for the design guest_memfd, and columns of a sweep of it:",
        "",
        *table(["field", "type", "meaning"], memfd),
    ]


def _fields(fields: Mapping[str, Field], meaning: Mapping[str, str]) -> list[str]:
    rows = [
        [
            f"`{name}`",
            meaning[name],
            _values(field),
            "required" if field.default is ... else _value_text(field.default),
        ]
        for name, field in fields.items()
    ]
    return table(["field", "meaning", "values", "default"], rows)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _rows(meaning: Mapping[str, str]) -> list[list[str]]:
    return [[f"`{name}`", text] for name, text in meaning.items()]


def _values(field: Field) -> str:
    """The allowed values of a field, in a few words."""
    if field.kind == "choice":
        return ", ".join(f"`{word}`" for word in field.choices)
    kind = {
        "int": "integer",
        "number": "number",
        "ints": "list of integers",
        "bool": "`true`, `false`",
        "text": "text",
        "texts": "list of texts",
        "table": "table",
    }[field.kind]
    return f"{kind}, {field.low:,} to {field.high:,}" if field.kind in ("int", "number", "ints") else kind


def _value_text(value: Any) -> str:
    """Returns a default as text; "" for none."""
    return "" if value in (None, "") else f"`{json.dumps(value)}`"


# ---------------------------------------------------------------------------------------------- services
def _services() -> list[str]:
    out = ["gRPC, package `ultrafolio.rpc.v1`; every field of every message is described in [protos/](../protos).", ""]
    for module, name in SERVICES.items():
        try:
            made = importlib.import_module(f"ultrafolio.rpc.v1.{module}_pb2_grpc")
        except ImportError as error:
            raise InputError(
                "the reference of the services needs gRPC",
                value=str(error),
                allowed="the extra `cluster`",
                then=f"{install('cluster')}, or --json for the commands alone",
            ) from None
        servicer = getattr(made, f"{name}ServiceServicer")
        calls = [(word, call) for word, call in vars(servicer).items() if not word.startswith("_")]
        rows = [[f"`{word}`", " ".join((call.__doc__ or "").split())] for word, call in calls]
        out += [
            f"### {name}Service",
            "",
            " ".join((servicer.__doc__ or "").split()),
            "",
            *table(["method", "what it does"], rows),
            "",
        ]
    return out
