"""`ultrafolio trace groups`: what the folio groups of a cluster take, and how one is archived, cut or deleted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import click

from ultrafolio import durable
from ultrafolio.state import validate

from .stores import has_group, opened


class Wish(NamedTuple):
    """Names of groups to archive (to the file `save`), to delete, and to cut to a window of entries."""

    archive: str | None
    save: Path | None
    delete: str | None
    cut: str | None
    window: int


def run(url: str, wish: Wish, as_json: bool) -> int:
    """Do what is wished, in the order archive, cut, delete; else list the groups. 1: the rules refuse the stream."""
    with opened(url) as store:
        there = store.groups()
        for name in filter(None, (wish.archive, wish.cut, wish.delete)):
            has_group(name, there)
        if not (wish.archive or wish.cut or wish.delete):
            _list(store, there, as_json)
        return _do(store, wish)


def _do(store: Any, wish: Wish) -> int:
    from ultrafolio.state import checkpoint

    if wish.archive and wish.save:
        events = list(store.history(wish.archive))
        durable.replace(wish.save, validate.saved([(wish.archive, events)]))
        click.echo(f"{wish.archive}: {len(events)} entries in {wish.save}")
    if wish.cut:
        why = checkpoint.cut(store, wish.cut, wish.window, wish.window)
        click.echo(f"{wish.cut}: not cut: {why}" if why else f"{wish.cut}: {store.length(wish.cut)} entries are kept")
        if why:
            return 1
    if wish.delete:
        store.delete(wish.delete)
        click.echo(f"{wish.delete}: deleted")
    return 0


def _list(store: Any, there: list[str], as_json: bool) -> None:
    for name in there:
        entries, size = store.length(name), store.size(name)
        if as_json:
            click.echo(json.dumps({"group": name, "entries": entries, "bytes": size}))
        else:
            click.echo(f"{name:<40} {entries:>10} entries {size:>12} bytes")
