"""The ticket: the file job.json of a store, which names the job of its sweep."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ultrafolio.errors import InputError
from ultrafolio.sweep.distributed.job import Record, Spans

TICKET_VERSION = 1


class Ticket(msgspec.Struct, frozen=True):
    """The content of job.json, from which a client attaches to a job or submits it again.

    same: digest of the job's input. client: this client's name. run: run number of its segments. redis: URL without
    password. stop: the end of the sweep's span. version: of the file's form."""

    job: str
    same: str
    client: str
    run: int
    redis: str
    record: Record
    chunks: list[Spans]
    stop: int
    version: int = 1


def read_ticket(folder: Path) -> Ticket | None:
    """The ticket in the store ``folder``, or None. Raises InputError for a damaged file or another version."""
    path = folder / "job.json"
    try:
        ticket = msgspec.json.decode(path.read_bytes(), type=Ticket)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise InputError(
            f"{path}: damaged",
            value=str(error),
            allowed="the file as the sweep wrote it",
            then=f"delete only {path}, then repeat the sweep: what was fetched is kept",
        ) from None
    if ticket.version != TICKET_VERSION:
        raise InputError(
            f"{path}: a job of another version",
            value=ticket.version,
            allowed=str(TICKET_VERSION),
            cause="another ultrafolio wrote it",
            then=f"delete only {path}, then repeat the sweep: what was fetched is kept",
        )
    return ticket
