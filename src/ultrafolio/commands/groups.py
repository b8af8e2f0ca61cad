"""`ultrafolio trace groups`: list the memory of a cluster's folio groups; archive, cut or delete one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import click

from ultrafolio import durable
from ultrafolio.nouns import plural
from ultrafolio.state import validate

from .stores import has_group, opened


class Request(NamedTuple):
    """Names of groups to archive (to the file `save`), to delete, and to cut to a window of entries."""

    archive: str | None
    save: Path | None
    delete: str | None
    cut: str | None
    window: int


def run(url: str, request: Request, as_json: bool) -> int:
    """Archive, cut and delete as requested, in this order; else list the groups. Returns 1 if the rules refuse the
    stream, else 0."""
    with opened(url) as store:
        there = store.groups()
        for name in filter(None, (request.archive, request.cut, request.delete)):
            has_group(name, there)
        if not (request.archive or request.cut or request.delete):
            _list(store, there, as_json)
        return _do(store, request)


def _do(store: Any, request: Request) -> int:
    """Archive, cut and delete streams, as requested. Returns the exit code."""
    from ultrafolio.state import checkpoint

    if request.archive and request.save:
        events = list(store.history(request.archive))
        durable.replace(request.save, validate.saved([(request.archive, events)]))
        click.echo(f"{request.archive}: {plural(len(events), 'entry', 'entries')} in {request.save}")
    if request.cut:
        why = checkpoint.cut(store, request.cut, request.window, request.window)
        kept = plural(store.length(request.cut), "entry", "entries")
        click.echo(f"{request.cut}: not cut: {why}" if why else f"{request.cut}: kept: {kept}")
        if why:
            return 1
    if request.delete:
        store.delete(request.delete)
        click.echo(f"{request.delete}: deleted")
    return 0


def _list(store: Any, there: list[str], as_json: bool) -> None:
    """Print each group with its number of entries, its bytes, and why its stream is not cut."""
    uncut = store.uncut()
    for name in there:
        entries, size, why = store.length(name), store.size(name), uncut.get(name, "")
        if as_json:
            click.echo(json.dumps({"group": name, "entries": entries, "bytes": size, "uncut": why}))
        else:
            click.echo(f"{name:<40} {plural(entries, 'entry', 'entries'):>18} {plural(size, 'byte'):>18}")
            if why:
                click.echo(f"  not cut, it grows: {why}")
