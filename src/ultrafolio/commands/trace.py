"""`ultrafolio trace`: verify, show and minimise traces; validate streams of a cluster; import recordings."""

from __future__ import annotations

import contextlib
import json
import shlex
from pathlib import Path

import click

from ultrafolio import durable
from ultrafolio.check.verdicts.minimise import switches
from ultrafolio.commands import pictured, written
from ultrafolio.commands.completion import among
from ultrafolio.engine.load import digest
from ultrafolio.errors import InputError
from ultrafolio.export import trace_file
from ultrafolio.model import policies
from ultrafolio.nouns import plural
from ultrafolio.trace.convert import converted
from ultrafolio.trace.importer import KINDS, HoldsNone, Importer, Kind, Only, Recording
from ultrafolio.trace.registry import REGISTRY, importer_of


@click.group("trace")
def trace() -> None:
    """Read the files of steps that ultrafolio writes, and recordings of real programs."""


@trace.command("verify")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of the sentence.")
def verify(file: Path, as_json: bool) -> int:
    """Replay the counterexample in FILE with the interpreter, step by step, and test its claim.

    \b
    ultrafolio check scenarios/03-virtio.toml --policy whole-folio --save hang.json
    ultrafolio trace verify hang.json

    Exit codes: 0 certified, 1 a step is not possible or the claim fails, 2 not a trace file, or made under other rules.
    """
    made = trace_file.read(file)
    wrong = _refuted(made, file)
    if as_json:
        record = {
            "trace": str(file),
            "certified": wrong is None,
            "scenario": made.scenario,
            "policy": made.policy,
            "steps": len(made.path),
            "claim": made.text,
            "wrong": wrong,
        }
        click.echo(json.dumps(record))
    elif wrong:
        click.echo(f"{file}: not certified: {wrong}")
    else:
        steps = plural(len(made.path), "step")
        click.echo(f"{file}: certified: {made.scenario} under {made.policy}, {steps}: {made.text}")
    return int(wrong is not None)


@trace.command("show")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--first", type=click.IntRange(1), help="Only so many steps.")
@click.option(
    "--format",
    "form",
    type=click.Choice(pictured.FORMATS),
    default="text",
    show_default=True,
    help="chrome: for ui.perfetto.dev and chrome://tracing; heat: a digit for each column of pages.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json: an object for the head, one a step.")
def show(file: Path, first: int | None, form: str, as_json: bool) -> int:
    """Print the content of FILE, of any kind that ultrafolio writes.

    A counterexample of `check --save`, the steps of `run --trace`, a stream of `trace validate --save`, or the report
    of a defect. docs/formats.md describes them.

    \b
    ultrafolio run --policy split --trace steps.ndjson
    ultrafolio trace show steps.ndjson --first 20
    ultrafolio trace show steps.ndjson --format chrome > steps.json
    ultrafolio trace show steps.ndjson --format heat

    Exit codes: 0 done, 2 not such a file.
    """
    if as_json and form not in ("text", "json"):
        raise InputError("--json and --format say different things", value=form, allowed="one of them")
    if form in ("chrome", "heat"):
        click.echo(pictured.picture(file, form, first))
    else:
        written.show(file, first, as_json or form == "json", click.echo)
    return 0


@trace.command("minimise")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--save", type=click.Path(path_type=Path), help="Write it there instead of printing it.")
def minimise(file: Path, save: Path | None) -> int:
    """Remove steps of the trace in FILE that its claim does not need: fewest steps, then fewest context switches.

    Traces of `ultrafolio check` are already shortest; this is for traces from other sources. The result is JSON; the
    number of removed steps is printed on stderr.

    \b
    ultrafolio trace minimise long.json --save short.json

    Exit codes: 0 done, 1 the trace is not certified, 2 not a trace file, or made under other rules.
    """
    if save:
        in_folder(save)
    made = trace_file.read(file)
    if wrong := _refuted(made, file):
        click.echo(f"{file}: not certified: {wrong}")
        return 1
    smaller = trace_file.minimised(made)
    if save:
        durable.replace(save, trace_file.file_text(smaller).encode())
    else:
        click.echo(trace_file.file_text(smaller), nl=False)
    for what, path in (("was", made.path), ("is", smaller["path"])):
        steps, switched = plural(len(path), "step"), plural(switches(path), "context switch", "context switches")
        click.echo(f"{what} {steps} with {switched}", err=True)
    return 0


@trace.command("validate")
@click.argument("source")
@click.option("--group", "groups", multiple=True, help="Only this folio group; may be given several times.")
@click.option("--save", type=click.Path(path_type=Path), help="Also keep what was read, as a file.")
@click.option(
    "--scenario",
    "story",
    type=click.Path(path_type=Path),
    help="With --policy: SOURCE is kernel events, of this one. With --brief: what the groups were laid out from; else "
    "the shipped ones are compared.",
)
@click.option("--policy", shell_complete=among(policies.names), help="The policy or kernel of the recording.")
@click.option(
    "--page0", "first", multiple=True, metavar="FIELD=N", help="What a recording says of page 0: pfn=0x8000, …"
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per group.")
@click.option("--brief", is_flag=True, help="Only the line that decides, for each group.")
def validate(
    source: str,
    groups: tuple[str, ...],
    save: Path | None,
    story: Path | None,
    policy: str | None,
    first: tuple[str, ...],
    as_json: bool,
    brief: bool,
) -> int:
    """Compare steps with the rules. SOURCE: a cluster's Redis URL (admin rights), a saved stream, or kernel events.

    \b
    python -m services --json                    # prints the URL
    ultrafolio trace validate redis://… --save run.stream
    ultrafolio trace validate run.stream
    ultrafolio trace validate report.txt --scenario 03-virtio --policy linux-6.12 --page0 pfn=0x8000

    The rules must allow each step with its outcome, and the state in Redis must be that after the last step.
    Otherwise the longest accepted prefix, its enabled steps and the guard that refused are printed.

    Of kernel events (page_ref, writeback, probes; text of ftrace, trace-cmd report or perf script) some execution of
    the scenario must show each, in order; docs/bring-your-own-trace.md says which. Printed are the wait in which they
    end, or what refuses the first one that no execution shows.

    Exit codes: 0 accepted, 1 not accepted or a property broken, 2 bad input, an empty stream among it, 3 unknown (a
    limit was reached).
    """
    from ultrafolio.commands import validate as streams

    if as_json and brief:
        raise InputError("--brief and --json say different things", value="both", allowed="one of them")
    if policy or first or (story and not brief):
        from ultrafolio.commands import observed

        beside = (("--group", groups), ("--save", save), ("--brief", brief))
        if not (story and policy) or any(given for _, given in beside):
            raise InputError(
                "a recording of the kernel belongs to a scenario and a policy",
                value=" ".join(name for name, given in beside if given),
                allowed="--scenario and --policy, without --group, --save and --brief",
                then=f"ultrafolio trace validate {source} --scenario SCENARIO --policy POLICY",
            )
        return observed.run(Path(source), story, policy, first, as_json)

    if save:
        in_folder(save)
    show = streams.in_one_line(story) if brief else streams.as_json if as_json else streams.as_text
    return streams.run(source, groups, save, show)


@trace.command("groups")
@click.argument("url")
@click.option("--archive", metavar="GROUP", help="Save this group's stream; needs --save.")
@click.option("--save", type=click.Path(path_type=Path), help="The file for --archive.")
@click.option("--delete", metavar="GROUP", help="Remove this group for ever; its name is not used again.")
@click.option("--cut", metavar="GROUP", help="Let a checkpoint stand for all but the last entries of its stream.")
@click.option("--window", type=click.IntRange(1), default=10_000, show_default=True, help="Entries that --cut keeps.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per group.")
def groups(
    url: str, archive: str | None, save: Path | None, delete: str | None, cut: str | None, window: int, as_json: bool
) -> int:
    """List the folio groups of a cluster with their memory; archive, cut or delete one.

    URL is the cluster's Redis with admin rights, as `python -m services --json` prints it.

    \b
    ultrafolio trace groups redis://…
    ultrafolio trace groups redis://… --archive g --save g.stream
    ultrafolio trace groups redis://… --delete g
    ultrafolio trace validate g.stream

    Exit codes: 0 done, 1 the rules refuse the stream to cut, 2 bad input.
    """
    from ultrafolio.commands import groups as commands

    if bool(archive) != bool(save):
        raise InputError("--archive and --save", allowed="both", then="--archive GROUP --save GROUP.stream")
    if save:
        in_folder(save)
    return commands.run(url, commands.Request(archive, save, delete, cut, window), as_json)


@trace.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--as", "kind", type=click.Choice(list(KINDS)), help="What to read of a recording that holds several.")
@click.option("--pid", type=click.IntRange(0), help="Only this process, of a recording of several.")
@click.option("--device", help="Only this device, as MAJOR,MINOR.")
@click.option("--target", help="Only this target of DAMON.")
@click.option(
    "--save",
    type=click.Path(path_type=Path),
    help="Write what was read there: touches as lackey text, requests as a fio iolog.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of the lines.")
def import_(
    file: Path,
    kind: Kind | None,
    pid: int | None,
    device: str | None,
    target: str | None,
    save: Path | None,
    as_json: bool,
) -> int:
    """Read the recording in FILE to its end, and print its counts: the input of `run --set touches=FILE`.

    The format is detected from the content; `ultrafolio trace formats` lists them.

    \b
    ultrafolio trace import all.perf
    ultrafolio trace import all.perf --pid 4711 --save one.lackey

    Exit codes: 0 read, 2 refused.
    """
    if save:
        in_folder(save)
    importer = importer_of(file)
    found = _read(file, importer, kind, Only(pid, device, target))
    if save:
        durable.replace(save, converted(found, file))
    if as_json:
        record = {
            "recording": str(file),
            "format": importer.name,
            "as": found.kind,
            "counts": found.counts(),
            "notes": list(found.notes),
        }
        click.echo(json.dumps(record))
        return 0
    counted = ", ".join(f"{name} {n}" for name, n in found.counts().items())
    click.echo(f"{file}: {importer.name}, read as {found.kind}: {counted}")
    for note in found.notes:
        click.echo(f"  note  {note}")
    return 0


def _read(file: Path, importer: Importer, kind: Kind | None, only: Only) -> Recording:
    """Read FILE as ``kind``; None takes the first kind that the file holds."""
    kinds = [kind] if kind else list(importer.kinds)
    for one in kinds[:-1]:
        with contextlib.suppress(HoldsNone):
            return importer.read(file, one, only)
    return importer.read(file, kinds[-1], only)


@trace.command("formats")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a format.")
def formats(as_json: bool) -> int:
    """List the formats of recordings, with the kind of each, the command that records it, and its bounds.

    \b
    ultrafolio trace formats
    ultrafolio trace formats --json

    Exit codes: 0 done, 2 bad input.
    """
    for importer in REGISTRY:
        record = {
            "format": importer.name,
            "as": list(importer.kinds),
            "made_by": importer.made_by,
            "bounds": dict(importer.bounds),
            "parts": list(importer.parts),
        }
        if as_json:
            click.echo(json.dumps(record))
            continue
        click.echo(f"{importer.name:<12}{' or '.join(importer.kinds)}")
        click.echo(f"            {importer.made_by}")
        limits = [f"up to {n} {what}" for what, n in importer.bounds.items()]
        if told := limits + [f"--{part}" for part in importer.parts]:
            click.echo(f"            {', '.join(told)}")
    return 0


def in_folder(save: Path, option: str = "--save") -> None:
    """Raise InputError if the folder of the file that an option names does not exist, before the work begins."""
    if not save.parent.is_dir():
        raise InputError(
            f"{option}: no folder {save.parent}",
            value=str(save),
            allowed="a file in a folder that exists",
            then=f"mkdir -p {shlex.quote(str(save.parent))}",
        )


def _refuted(made: trace_file.Trace, file: Path) -> str | None:
    """The error of the trace, or None if it is certified. Raises InputError for a trace of other rules."""
    wrong = trace_file.verify(made)
    if made.rules != digest():
        raise InputError(
            f"{file}: made under other rules",
            value=f"rules {made.rules}",
            allowed=f"rules {digest()}",
            cause=f"under these rules {wrong or 'it certifies all the same'}",
            then=f"ultrafolio check {made.scenario} --policy {made.policy} --save {file}",
        )
    return wrong
