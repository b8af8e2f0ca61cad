"""`ultrafolio export`: the lab in forms that others open without it."""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path

import click

from ultrafolio import api, durable
from ultrafolio.commands.completion import among
from ultrafolio.commands.trace import in_folder
from ultrafolio.engine.load import digest
from ultrafolio.errors import InputError
from ultrafolio.explore import automaton, monitor
from ultrafolio.model import policies, scenario
from ultrafolio.names.find import stem
from ultrafolio.page import build, link
from ultrafolio.trace.kernel import SPELLINGS


@click.command("export")
@click.option(
    "--page",
    is_flag=True,
    help="One HTML file that checks a scenario in the reader's browser, offline. "
    "What `ultrafolio check --link` prints goes behind its address.",
)
@click.option("--scenario", "address", metavar="LINK", help="The scenario of such a link, as a TOML file.")
@click.option(
    "--format",
    "form",
    type=click.Choice(("rv", "rv-clock", "rv-rst")),
    help="What a kernel can observe of --scenario (a file, or a name) under --policy, as a monitor of the kernel's "
    "runtime verification: the DOT file for dot2k, the same with a clock for rvgen, or its page.",
)
@click.option("--policy", shell_complete=among(policies.names), help="The policy or kernel of the monitor.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write it to this file instead of printing it.")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object that says what was made, instead of the file's text."
)
def export(
    page: bool, address: str | None, form: str | None, policy: str | None, output: Path | None, as_json: bool
) -> int:
    """Write the checker as a web page, the scenario of a link as a file, or a scenario as a monitor.

    \b
    ultrafolio export --page -o check.html
    ultrafolio check 03-virtio --policy whole-folio --link
    ultrafolio export --scenario '#edited/split/i05...' -o edited.toml

    \b
    ultrafolio export --format rv --scenario 03-virtio --policy linux-6.12 -o virtio.dot
    tools/verification/dot2/dot2k -d virtio.dot -t global

    The page takes systems of up to 200,000 states; beyond it says what to type.

    Exit codes: 0 done, 2 bad input.
    """
    if bool(form) != bool(policy) or (form and address is None):
        raise InputError(
            "a monitor is of a scenario under a policy",
            value=" ".join(word for word in (form, address, policy) if word),
            allowed="--format, --scenario and --policy together",
            then="ultrafolio export --format rv --scenario 03-virtio --policy linux-6.12",
        )
    if page == (address is not None):
        raise InputError(
            "what to export",
            value="--page and --scenario" if page else "nothing",
            allowed="--page, or --scenario LINK",
            then="ultrafolio export --help",
        )
    if output:
        in_folder(output, "-o")
    text = _monitor(form, address, policy) if form else build.page() if address is None else link.file_text(address)
    if output:
        durable.replace(output, text.encode())
    if as_json:
        made = {
            "made": "page" if page else "monitor" if form else "scenario",
            "file": str(output) if output else None,
            "bytes": len(text.encode()),
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "rules": digest(),
        }
        click.echo(json.dumps(made))
    elif not output:
        click.echo(text, nl=False)
    return 0


def _monitor(form: str, where: str | None, policy: str | None) -> str:
    """The DOT file, or the page, of the monitor of a scenario under a policy."""
    story = api.Scenario.find(Path(where or ""))
    chosen = api.Policy.find(policy or "", story)
    scenario.only_s390(story.story, where or "")
    model = automaton.automaton(scenario.system(story.story, chosen.choices), frozenset(SPELLINGS))
    if form != "rv-rst":
        return monitor.dot(model, clock=form == "rv-clock")
    name = monitor.name_of(stem(story.name), chosen.name)
    command = shlex.join(
        ["ultrafolio", "export", "--format", form, "--scenario", where or "", "--policy", policy or ""]
    )
    return monitor.rst(model, name, story.name, chosen.name, command)
