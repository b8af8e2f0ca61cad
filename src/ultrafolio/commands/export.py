"""`ultrafolio export`: the lab in forms that others open without it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import click

from ultrafolio import durable
from ultrafolio.commands.trace import in_folder
from ultrafolio.engine.load import digest
from ultrafolio.errors import InputError
from ultrafolio.page import build, link


@click.command("export")
@click.option(
    "--page",
    is_flag=True,
    help="One HTML file that checks a scenario in the reader's browser, offline. "
    "What `ultrafolio check --link` prints goes behind its address.",
)
@click.option("--scenario", "address", metavar="LINK", help="The scenario of such a link, as a TOML file.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write it to this file instead of printing it.")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object that says what was made, instead of the file's text."
)
def export(page: bool, address: str | None, output: Path | None, as_json: bool) -> int:
    """Write the checker as a web page, or the scenario of a link as a file.

    \b
    ultrafolio export --page -o check.html
    ultrafolio check 03-virtio --policy whole-folio --link
    ultrafolio export --scenario '#edited/split/i05...' -o edited.toml

    The page takes systems of up to 200,000 states; beyond it says what to type.

    Exit codes: 0 done, 2 bad input.
    """
    if page == (address is not None):
        raise InputError(
            "what to export",
            value="--page and --scenario" if page else "nothing",
            allowed="--page, or --scenario LINK",
            then="ultrafolio export --help",
        )
    if output:
        in_folder(output)
    text = build.page() if address is None else link.file_text(address)
    if output:
        durable.replace(output, text.encode())
    if as_json:
        made = {
            "made": "page" if page else "scenario",
            "file": str(output) if output else None,
            "bytes": len(text.encode()),
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "rules": digest(),
        }
        click.echo(json.dumps(made))
    elif not output:
        click.echo(text, nl=False)
    return 0
