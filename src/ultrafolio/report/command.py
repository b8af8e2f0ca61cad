"""The command ``report``: what a sweep found, in the terminal and as one HTML file."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path

import click

from .aggregate import records
from .store import Results


@click.command()
@click.argument("store", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The HTML file [STORE/report.html].")
@click.option("--open", "open_it", is_flag=True, help="Open the report in a browser.")
@click.option("--json", "as_json", is_flag=True, help="The aggregated table as JSON lines instead.")
def report(store: Path, output: Path | None, open_it: bool, as_json: bool) -> None:
    """Show what STORE, the folder of a sweep, found, and write it as one HTML file that opens offline.

    The plots are also in STORE/plots, as PNG and SVG. With --json nothing is written but the table on stdout:
    one object for each point of the plan, with its seeds taken together.

    \b
    ultrafolio report out/seed --open
    ultrafolio report out/seed -o seed.html
    ultrafolio report out/seed --json | head -1

    Exit codes: 0 done, 2 bad input.
    """
    if as_json:
        for record in records(Results(store)):
            click.echo(json.dumps(record))
        return
    from rich.console import Console

    from .page import write_report
    from .terminal import terminal_table

    Console().print(terminal_table(store))
    page = write_report(store, output)
    click.echo(f"report   {page}")
    if open_it:
        webbrowser.open(page.resolve().as_uri())
