"""`ultrafolio scenario`: the scenario of a name by pattern, as TOML or in the short form; the words; all names."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ultrafolio.errors import InputError
from ultrafolio.names import find, grammar, short, text

MOST_WORDS = 5


@click.command("scenario")
@click.argument("name", required=False)
@click.option(
    "--short",
    "shortly",
    is_flag=True,
    help="In the short form, a line a table; NAME may then also be a scenario's file.",
)
@click.option("--words", is_flag=True, help="The tables of words that a name is made of, as Markdown.")
@click.option(
    "--all", "most", type=click.IntRange(2, MOST_WORDS), metavar="N", help="All names of at most N words, a line each."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object for the scenario, or for each name.")
def scenario_command(name: str | None, shortly: bool, words: bool, most: int | None, as_json: bool) -> int:
    """Print the scenario that NAME means, as a TOML file.

    A name is OBSTACLE[.how]+WHERE[+more], such as LPIN+neigh: a long-term pin, and a vCPU that wants the other page of
    the folio. Each scenario has one name. `check` takes names, too.

    \b
    ultrafolio scenario LPIN.early+neigh
    ultrafolio scenario LPIN.early+neigh > mine.toml
    ultrafolio scenario LPIN.early+neigh --short > mine.uf
    ultrafolio scenario scenarios/36-patience.toml --short
    ultrafolio check LPIN.early+neigh --policy linux-6.12
    ultrafolio scenario --words
    ultrafolio scenario --all 3

    Exit codes: 0 done, 2 bad input.
    """
    given = {name or "NAME": name, "--words": words, "--all": most, "--short": shortly, "--json": as_json}
    if sum(map(bool, (name, words, most))) != 1 or (words and as_json) or (shortly and (not name or as_json)):
        raise InputError(
            "what to print",
            value=" ".join(word for word, typed in given.items() if typed) or "nothing",
            allowed="a NAME, --words, or --all N; --json beside NAME and --all, --short beside NAME",
            then="ultrafolio scenario --help",
        )
    if name and shortly:
        click.echo(short.write(find.found(Path(name))), nl=False)
    elif words:
        click.echo(text.words())
    elif name:
        made = grammar.read(name)
        record = {"name": str(made), "words": made.words, "scenario": grammar.document(made)}
        click.echo(json.dumps(record) if as_json else text.toml(made), nl=as_json)
    else:
        for one in grammar.names(most or 0):
            click.echo(json.dumps({"name": str(one), "words": one.words}) if as_json else str(one))
    return 0
