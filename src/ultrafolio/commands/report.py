"""The command ``report``: the results of a sweep, in the terminal and as one HTML file."""

from __future__ import annotations

import json
import webbrowser
from pathlib import Path

import click

from ultrafolio.errors import InputError
from ultrafolio.nouns import plural
from ultrafolio.report import MissingExtra, conversion, need_extra, searched
from ultrafolio.report.aggregate import records
from ultrafolio.report.compare import compared, comparison
from ultrafolio.report.conversion import Conversions, opened
from ultrafolio.report.store import Results
from ultrafolio.search import files, words


@click.command()
@click.argument("stores", metavar="STORE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The HTML file [STORE/report.html].")
@click.option("--open", "open_it", is_flag=True, help="Open the report in a browser.")
@click.option("--json", "as_json", is_flag=True, help="The aggregated table as JSON lines instead.")
@click.option("--compare", "compare_them", is_flag=True, help="What changed between two stores, and nothing else.")
def report(stores: tuple[Path, ...], output: Path | None, open_it: bool, as_json: bool, compare_them: bool) -> None:
    """Show the results of STORE, the folder of a sweep or a search, and write them as one HTML file that opens offline.

    The plots are also in STORE/plots, as PNG and SVG. With --json only the table is written, to stdout: one object for
    each point of the plan, aggregated over its seeds. --compare takes two stores and prints the points (policy and
    folio order) in which they differ, and where the difference is clear; it writes no file.

    \b
    ultrafolio report out/seed --open
    ultrafolio report out/search --open
    ultrafolio report out/seed -o seed.html
    ultrafolio report out/seed --json | head -1
    ultrafolio report --compare out/before out/after

    Exit codes: 0 done, 2 bad input.
    """
    wanted = 2 if compare_them else 1
    if len(stores) != wanted:
        raise InputError(
            f"report: {plural(len(stores), 'store')}",
            value=" ".join(map(str, stores)),
            allowed=f"{wanted} here",
            cause="only --compare takes two stores",
            then="ultrafolio report STORE, or: ultrafolio report --compare LEFT RIGHT",
        )
    if compare_them:
        if output or open_it:
            raise InputError(
                "report --compare: writes no file",
                value="-o or --open",
                allowed="--json, or neither",
                then=f"ultrafolio report --compare {stores[0]} {stores[1]}",
            )
        pair = Results(stores[0]), Results(stores[1])
        click.echo("\n".join(map(json.dumps, compared(*pair))) if as_json else comparison(*pair))
        return
    if searched.is_search(stores[0]):
        _searched(stores[0], output, open_it=open_it, as_json=as_json)
        return
    results = opened(stores[0])
    if as_json:
        for record in conversion.records(results) if isinstance(results, Conversions) else records(results):
            click.echo(json.dumps(record))
        return
    from ultrafolio.report.page import write
    from ultrafolio.report.terminal import show

    written = _can_write(asked=bool(output or open_it), instead="table")
    show(results)
    if written:
        _told(write(results, output), open_it=open_it)


def _searched(folder: Path, output: Path | None, *, open_it: bool, as_json: bool) -> None:
    """Show the answer of a search: as JSON, or as text and page."""
    said = files.read_answer(folder)
    if as_json:
        click.echo(json.dumps(said))
        return
    written = _can_write(asked=bool(output or open_it), instead="text")
    click.echo(words.text(said))
    if written:
        _told(searched.write(folder, said, output), open_it=open_it)


def _can_write(*, asked: bool, instead: str) -> bool:
    """Returns whether the packages that write a page are installed; says so on stderr if not. asked: the user named
    the page, so that raises MissingExtra. instead: what is printed alone."""
    try:
        need_extra()
    except MissingExtra as error:
        if asked:
            raise
        click.echo(f"no report is written, only this {instead}: {error.value}; {error.then}", err=True)
        return False
    return True


def _told(page: Path, *, open_it: bool) -> None:
    """Print where the page is, and open it."""
    click.echo(f"report   {page}")
    if open_it:
        webbrowser.open(page.resolve().as_uri())
