"""Find the job of a store; watch, pause, resume or revoke it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from ultrafolio.errors import InputError
from ultrafolio.nouns import plural
from ultrafolio.sweep.distributed.broker import check_answer, connect, send
from ultrafolio.sweep.distributed.job import Job
from ultrafolio.sweep.distributed.ticket import Ticket, read_ticket
from ultrafolio.sweep.store import open_store


def find(folder: Path, url: str | None) -> tuple[Ticket, Job, Any, str]:
    """(ticket, job, Redis client, Redis URL) of the job of a store. ``url`` None takes the URL in job.json.

    Raises InputError when the store has no job or Redis does not answer.
    """
    store = open_store(folder)
    ticket = read_ticket(store.folder)
    if ticket is None:
        raise InputError(
            f"{folder}: no job is under way",
            value="there is no job.json",
            allowed="a store whose sweep was detached",
            then=f"ultrafolio sweep status {folder}",
        )
    check_answer(url or ticket.redis)
    client = connect(url or ticket.redis)
    return ticket, Job(client, ticket.job), client, url or ticket.redis


def watch(folder: Path, url: str | None) -> str:
    """One line with state and counts of the job of a store, or with the error of Redis."""
    try:
        ticket, job, client, _ = find(folder, url)
    except InputError as error:
        return f"a job is under way, but: {error.what} ({error.value})"
    with client:
        done, (state, _) = job.progress(), job.state()
    chunks = f"{done.chunks} of {plural(ticket.record.chunks, 'chunk')}"
    return f"job {ticket.job} is {state}: {chunks}, {done.computed} of {plural(ticket.record.cells, 'cell')}"


def pause(folder: Path, url: str | None) -> str:
    """Pause the job: workers finish their chunks and take no more. Returns the job's name."""
    ticket, job, _, _ = find(folder, url)
    job.set_state("paused")
    return ticket.job


def resume(folder: Path, url: str | None) -> str:
    """Resume a paused job: queue its held chunks. Returns its name."""
    ticket, job, _, where = find(folder, url)
    job.set_state("running")
    held = job.held()
    send(where, ticket.job, ((number, ticket.chunks[number]) for number in held))
    job.release(held)
    return ticket.job


def revoke(folder: Path, url: str | None) -> str:
    """End the job: workers stop after their current cell. Fetched parts stay stored. Returns the job's name."""
    ticket, job, client, _ = find(folder, url)
    with suppress(InputError):
        job.result_store(ticket.record).clear()
    client.set(f"ultrafolio:revoked:{ticket.job}", 1, ex=3600)
    job.delete()
    (folder / "job.json").unlink(missing_ok=True)
    return ticket.job
