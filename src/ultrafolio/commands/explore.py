"""`ultrafolio explore`: walk the checker's state graph in a terminal, on a served page, or in an HTML file."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import click

from ultrafolio import durable, shipped
from ultrafolio.api import Scenario
from ultrafolio.check.verdicts.verdict import MAX_MIB, MAX_STATES
from ultrafolio.commands import machines
from ultrafolio.commands.completion import among
from ultrafolio.errors import InputError
from ultrafolio.explore import embed, page, text, why
from ultrafolio.explore.goto import Guide
from ultrafolio.explore.serve import PORT, serve
from ultrafolio.explore.walk import Walk, parse_path
from ultrafolio.model import policies
from ultrafolio.web.pages import is_loopback


@click.command("explore")
@click.argument(
    "file",
    metavar="SCENARIO",
    type=click.Path(path_type=Path),
    shell_complete=among(lambda: shipped.names("scenarios")),
)
@click.option(
    "--policy",
    "names",
    multiple=True,
    required=True,
    shell_complete=among(policies.names),
    help="A preset, a [policy.NAME] of the file, or FILE.toml#NAME; given again, the same steps under each.",
)
@machines.option("the same steps on each that the policy is for.")
@click.option(
    "--path", "path", default="", metavar="3.1.0", help="The index of each enabled step taken from the start."
)
@click.option(
    "--goto",
    "target",
    metavar="WHERE",
    help="counterexample, loop (once around it), or an expression: "
    "'uv[1].state == EXPORTED and mm[0].longs > 0', the nearest state where it holds.",
)
@click.option(
    "--why-not",
    "expression",
    metavar="EXPRESSION",
    help="Why it is not true: which part is not, in this state and in the whole graph.",
)
@click.option("--json", "as_json", is_flag=True, help="The state, or the answer of --why-not, as one JSON object.")
@click.option(
    "--export",
    "target_file",
    type=click.Path(path_type=Path),
    metavar="FILE.html",
    help="Write one HTML file that opens from disk.",
)
@click.option("--serve", "serving", is_flag=True, help="Serve the page on this machine until interrupted.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where --serve listens.")
@click.option("--port", default=PORT, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option(
    "--max-states",
    default=MAX_STATES,
    show_default=True,
    type=click.IntRange(1, 2**31 - 2),
    help="The checker looks no further for --goto and the story.",
)
@click.option(
    "--memory",
    "max_mib",
    default=MAX_MIB,
    show_default=True,
    type=click.IntRange(1, 2**20),
    metavar="MIB",
    help="The checker's graph stays below this.",
)
def explore(
    file: Path,
    names: tuple[str, ...],
    machine: str | None,
    path: str,
    target: str | None,
    expression: str | None,
    as_json: bool,
    target_file: Path | None,
    serving: bool,
    host: str,
    port: int,
    max_states: int,
    max_mib: int,
) -> int:
    """Walk the state graph of SCENARIO: what is enabled, what is refused and why, what changed, what holds.

    \b
    ultrafolio explore scenarios/03-virtio.toml --policy whole-folio
    ultrafolio explore scenarios/03-virtio.toml --policy whole-folio --path 1.1.0
    ultrafolio explore scenarios/03-virtio.toml --policy whole-folio --goto counterexample
    ultrafolio explore scenarios/03-virtio.toml --policy whole-folio --policy split --goto loop
    ultrafolio explore scenarios/03-virtio.toml --policy whole-folio --goto 'uv[1].state == EXPORTED'
    ultrafolio explore scenarios/03-virtio.toml --policy whole-folio --why-not 'mm[0].longs == 1 and mm[1].arch == 1'
    ultrafolio explore scenarios/03-virtio.toml --policy whole-folio --export hang.html
    ultrafolio explore scenarios/03-virtio.toml --policy whole-folio --serve

    A path is the number of each step among those enabled, actor after actor, choice after choice. It means the same
    state wherever it is read, and the page's address holds it: #/whole-folio/1.1.0.

    Exit codes: 0 shown, 1 there is no such state, 2 bad input, 3 not found before a limit was reached.
    """
    if sum((bool(target_file), serving, as_json or bool(target) or bool(path) or bool(expression))) > 1:
        raise InputError(
            "these do not go together",
            value="--serve, --export, and --path, --goto, --why-not or --json",
            allowed="one of the three ways",
        )
    if path and target:
        raise InputError("--path and --goto name two states", value=f"{path}, {target}", allowed="one of them")
    if len(set(names)) < len(names):
        raise InputError("--policy", value=", ".join(names), allowed="each policy once")
    story = Scenario.find(file)
    walks = [
        Walk(there.story, there.name, policy.choices, name, other)
        for name in names
        for there, other, policy in machines.each(story, machine, name)
    ]
    guides = [Guide(walk, max_states=max_states, max_mib=max_mib) for walk in walks]
    words = ["ultrafolio", "explore", str(file), *(word for name in names for word in ("--policy", name))]
    words += ["--machine", machine] if machine else []
    limits = {"--max-states": (max_states, MAX_STATES), "--memory": (max_mib, MAX_MIB)}
    words += [word for flag, (n, usual) in limits.items() if n != usual for word in (flag, str(n))]
    if target_file:
        return _export(guides, words, target_file)
    if serving:
        return _serve(guides, words, host, port)
    return _show(guides, path, target, expression, as_json)


def _show(guides: list[Guide], path: str, target: str | None, expression: str | None, as_json: bool) -> int:
    """Print one state, reached by its path or by a jump; or why an expression is not true there."""
    walk, steps = guides[0].walk, parse_path(path)
    if target is not None:
        found = guides[0].goto(target)
        click.echo(found.message, err=as_json or found.path is None)
        if found.path is None:
            return 1 if found.complete else 3
        steps = found.path
    if expression is not None:
        answer = why.why_not(walk, guides[0].graph, expression, walk.follow(steps).here)
        click.echo(json.dumps(answer, ensure_ascii=False) if as_json else why.why_not_text(answer))
        return 0
    made = text.record(walk, walk.follow(steps), [guide.walk for guide in guides[1:]])
    click.echo(json.dumps(made, ensure_ascii=False) if as_json else text.shown(walk, made))
    return 0


def _export(guides: list[Guide], words: list[str], file: Path) -> int:
    """Write the page with its states atomically. Its command names the file without folders."""
    if not file.parent.is_dir():
        raise InputError(
            f"--export: no folder {file.parent}",
            value=str(file),
            allowed="a folder that exists",
            then=shlex.join(["mkdir", "-p", str(file.parent)]),
        )
    command = shlex.join([*words, "--export", file.name])
    data = embed.data(guides, command)
    content = page.alone([guide.walk for guide in guides], data).encode()
    durable.replace(file, content)
    names = page.names([guide.walk for guide in guides])
    for name, graph in zip(names, data["graphs"], strict=True):
        click.echo(f"{name}: {graph['story']['verdict']}; {graph['coverage']}", err=True)
    click.echo(f"{file}: {len(content) // 1000} kB; it opens from disk\nreproduce: {command}", err=True)
    return 0


def _serve(guides: list[Guide], words: list[str], host: str, port: int) -> int:
    """Serve the page until Ctrl-C, and warn where it listens beyond this machine. Returns the exit code."""

    def said(address: str) -> None:
        if is_loopback(host):
            click.echo(f"{address}  (this machine only; --host listens elsewhere)")
        else:
            click.echo(f"warning: listening on {host}: whoever reaches this machine can read the page", err=True)
            click.echo(address)

    serve(guides, shlex.join([*words, "--serve"]), host, port, said)
    return 0
