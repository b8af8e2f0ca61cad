"""`ultrafolio selftest`: a story of guest_memfd as a test for the kernel, one C file."""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

import click

from ultrafolio import api, durable, shipped
from ultrafolio.commands.completion import among
from ultrafolio.commands.trace import in_folder
from ultrafolio.engine.load import digest
from ultrafolio.errors import InputError
from ultrafolio.export import trace_file
from ultrafolio.export.selftest import program, story
from ultrafolio.export.selftest.calls import Call, calls
from ultrafolio.export.selftest.story import Story
from ultrafolio.model import policies

MOST_BYTES = 64 << 20
_THEN = "ultrafolio check SCENARIO --policy POLICY --json > story.json"


@click.command("selftest")
@click.argument("trace", type=click.Path(path_type=Path), shell_complete=among(lambda: shipped.names("scenarios")))
@click.option(
    "--policy",
    shell_complete=among(policies.names),
    help="The policy of a scenario; a record of check has its own.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write it to this file instead of printing it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object that says what was made, instead of the file.")
def selftest(trace: Path, policy: str | None, output: Path | None, as_json: bool) -> int:
    """Write a story of guest_memfd as a test for the kernel: one C file in the form of a KVM selftest.

    TRACE is a trace file of `ultrafolio check --save`, a record of `ultrafolio check --json`, or a scenario with
    --policy: then its counterexample, and where it has none a run in which all that can be begun ends.

    The calls of a VMM and its processes are made one by one: touches, pins, conversions, holes. Each answer is tested
    against the rules. Steps of the kernel and of the guest stand in comments. The output is TAP; what a kernel lacks is
    `# SKIP missing: …`.

    \b
    ultrafolio check g16-vfio-pin --policy gmem-7.4 --save story.json
    ultrafolio selftest story.json -o story.c
    gcc -Wall -o story story.c
    ultrafolio selftest scenarios/guest_memfd/g16-vfio-pin.toml --policy gmem-7.4

    Exit codes: 0 done, 2 bad input.
    """
    if output:
        in_folder(output, "-o")
    record = _record(trace)
    if record is None and policy is None:
        raise InputError(
            "a scenario's story is one under a policy",
            value=str(trace),
            allowed="--policy NAME, or a record of check",
            then=f"ultrafolio selftest {shlex.quote(str(trace))} --policy gmem-7.4",
        )
    if record is not None and policy is not None:
        raise InputError(f"{trace}: a record has its policy", value=policy, allowed="TRACE without --policy")
    told = _of_scenario(trace, policy or "") if record is None else _of_record(record, trace)
    words = ["ultrafolio", "selftest", str(trace), *(["--policy", policy] if policy else [])]
    text = program.program(told, shlex.join(words))
    if output:
        durable.replace(output, text.encode())
    if as_json:
        click.echo(json.dumps(_made(told, text, output)))
    elif not output:
        click.echo(text, nl=False)
    return 0


def _made(told: Story, text: str, output: Path | None) -> dict[str, Any]:
    """What was made, as a JSON object."""
    items = calls(told.system, told.steps)
    return {
        "made": "selftest", "scenario": told.scenario, "policy": told.policy, "file": str(output) if output else None,
        "calls": sum(isinstance(item, Call) for item in items), "steps": len(told.steps),
        "bytes": len(text.encode()), "sha256": hashlib.sha256(text.encode()).hexdigest(), "rules": digest(),
    }  # fmt: skip


def _of_scenario(where: Path, name: str) -> Story:
    """The story of a scenario under a policy."""
    found = api.Scenario.find(where)
    story.of_memfd(found.story.design, found.name)
    chosen = api.Policy.find(name, found)
    return story.checked(found.story, found.name, chosen.choices, chosen.name)


def _of_record(record: dict[str, Any], where: Path) -> Story:
    """The story of a record of check, or of a trace file that check saved. Raises InputError."""
    if record.get("format") == trace_file.FORMAT:
        return story.saved(trace_file.read(where), str(where))
    for field, kind in (("scenario", str), ("policy", str), ("verdict", str), ("trace", list), ("cycle", list)):
        if not isinstance(record.get(field), kind):
            raise _no_record(where, f"no field {field}" if field not in record else f"{field} is {record[field]!r}")
    for field in ("kind", "waiter", "waits_for", "held_by", "released_by"):
        if field not in record or not isinstance(record[field], str | None):
            raise _no_record(where, f"no field {field}" if field not in record else f"{field} is {record[field]!r}")
    for step in (*record["trace"], *record["cycle"]):
        if not isinstance(step, dict) or not isinstance(step.get("by"), int) or not 0 <= step["by"] < 1 << 31:
            raise _no_record(where, f"a step is {step!r}")
    found = api.Scenario.find(Path(record["scenario"]))
    story.of_memfd(found.story.design, str(where))
    chosen = api.Policy.find(record["policy"], found)
    return story.given(found.story, found.name, chosen.choices, chosen.name, record, str(where))


def _record(file: Path) -> dict[str, Any] | None:
    """The JSON object in a file that begins with a brace or is called .json; None for a scenario's file or name."""
    try:
        with file.open("rb") as opened:
            data = opened.read(MOST_BYTES + 1)
    except OSError:
        return None
    if data.lstrip()[:1] != b"{" and file.suffix != ".json":
        return None
    if len(data) > MOST_BYTES:
        raise _no_record(file, f"over {MOST_BYTES >> 20} MiB")
    try:
        made = json.loads(data)
    except (ValueError, RecursionError) as error:
        cause = "more than one record" if b"}\n{" in data else str(error)
        raise _no_record(file, cause) from None
    if not isinstance(made, dict):
        raise _no_record(file, f"a JSON {type(made).__name__}")
    return made


def _no_record(file: Path, value: str) -> InputError:
    return InputError(
        f"{file}: no record of a story",
        value=value,
        allowed="a trace file of `ultrafolio check --save`, or one JSON object of `ultrafolio check --json`",
        cause="it is another file, or it was changed",
        then=_THEN,
    )
