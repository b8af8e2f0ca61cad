"""All bounds of the services in one table, taken from the code that enforces them.

python -m services.limits > docs/limits.md
"""

from __future__ import annotations

from typing import NamedTuple

from services.common import calls, memory, scheduler, sending, serve, standard
from services.common.settings import Settings
from services.guest import servicer as guest
from services.guest import workload
from services.host_mm import boot
from services.host_mm import servicer as host
from services.lab import follower, jobs, recordings, replays, retention, watch, web
from services.lab import servicer as lab
from services.ultravisor import servicer as ultravisor
from ultrafolio import fields
from ultrafolio.search import cell, files
from ultrafolio.state import checkpoint, events, requests
from ultrafolio.state.sections import LARGEST_GROUP
from ultrafolio.state.store import REPLY_MS
from ultrafolio.sweep import planfile

MIB = 1 << 20


class Limit(NamedTuple):
    """what: the bounded quantity;  most: its bound with the unit;  said: how the next one is refused."""

    what: str
    most: str
    said: str


def table() -> list[Limit]:
    """Every bound, by subject."""
    usual, bad, full = Settings(), "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"
    job = "the worker does not take the job"
    packed, unpacked = recordings.LARGEST // MIB, recordings.LARGEST_UNPACKED // MIB
    return [
        Limit("a message", f"{usual.max_message_mib} MiB (ULTRAFOLIO_MAX_MESSAGE_MIB)", full),
        Limit(
            "fields of a message over 64 KiB, and its packed numbers",
            f"{memory.MOST_FIELDS:,}, {memory.MOST_PACKED // MIB} MiB",
            f"{bad}, TOO_MANY",
        ),
        Limit(
            f"requests, and answers over {calls.LARGE_ANSWER >> 10} KiB, that the calls of a service hold",
            f"{memory.MOST_HELD // MIB} MiB",
            f"{full}, TOO_MUCH_HELD",
        ),
        Limit("calls at work in a service", f"{usual.threads} (ULTRAFOLIO_THREADS)", "queued"),
        Limit("calls that wait in a service", f"{usual.waiting:,} (ULTRAFOLIO_WAITING)", f"{full}, TOO_MANY_WAITING"),
        Limit("calls of a service whose answer is not sent", f"{serve.queue(usual):,}", f"{full}, TOO_MANY_CALLS"),
        Limit("seconds in which a client makes no room for an answer", f"{sending.STALLED_S:g}", "CANCELLED"),
        Limit("seconds of a call", f"{usual.max_call_s:g} (ULTRAFOLIO_MAX_CALL_S)", "CANCELLED"),
        Limit("silence of a client", f"{usual.keepalive_s:g} s, twice (ULTRAFOLIO_KEEPALIVE_S)", "its calls end"),
        Limit("reflection streams", f"{standard.MOST_REFLECTIONS}, {standard.REFLECTION_S:g} s each", full),
        Limit("watchers of a service's health", f"{standard.MOST_WATCHERS}", full),
        Limit("threads that resume suspended calls", f"{scheduler.THREADS}", "queued"),
        Limit("a request id", f"`{requests.PATTERN.pattern}`", bad),
        Limit("an answer kept for a repetition", f"{REPLY_MS // 1000} s", "then it is a new request"),
        Limit("folio groups of a cluster", f"{host.MOST_GROUPS:,}", f"{bad}, TOO_MANY"),
        Limit("pages of a group", f"{LARGEST_GROUP:,}", f"{bad}, BAD_META"),
        Limit("processors of a guest", f"{boot.MOST_CPUS}", f"{bad}, BAD_CPUS"),
        Limit(
            "accesses in one message",
            f"{ultravisor.MOST_ACCESSES:,}, {ultravisor.MOST_READ // MIB} MiB read",
            f"{bad}, TOO_MANY",
        ),
        Limit("pages listed in a workload", f"{guest.MOST_PAGES:,}", f"{bad}, TOO_MANY"),
        Limit("touches of a workload in one message", f"{guest.MOST_BATCH:,}", f"{bad}, TOO_MANY"),
        Limit("a workload's recording, unpacked", f"{workload.LARGEST // MIB} MiB, one at a time", bad),
        Limit("direct I/O held", f"{guest.LONGEST_HOLD_US // 10**6} s", f"{bad}, HELD_TOO_LONG"),
        Limit("an uploaded recording", f"{packed} MiB, unpacked {unpacked} MiB", bad),
        Limit(
            "recordings uploaded at a time",
            f"{lab.MOST_UPLOADS}, {sending.STALLED_S:g} s between two pieces",
            f"{full}, TOO_MANY",
        ),
        Limit("uploaded recordings of a lab", f"{recordings.MOST_BYTES >> 30} GiB", f"{full}, RECORDINGS_FULL"),
        Limit("a plan's text", f"{planfile.LARGEST // MIB} MiB", bad),
        Limit("levels of a plan's tables, and dots of a line", f"{fields.DEEPEST}, {fields.MOST_DOTS:,}", bad),
        Limit("points of a plan", f"{planfile.MOST_POINTS:,}", bad),
        Limit("cells of a submitted plan", f"{jobs.MOST_CELLS:,}", bad),
        Limit("filters of a plan", f"{planfile.MOST_SKIPS}", bad),
        Limit("scenarios of a search", f"{cell.MOST_SCENARIOS:,}", job),
        Limit("actors and pages of a scenario of a search", f"{cell.MOST_ACTORS}, {cell.MOST_PAGES:,}", job),
        Limit("verdicts of a scenario, from a worker", f"{files.LARGEST // MIB} MiB", "the search ends"),
        Limit("a sweep's name", f"{jobs.LONGEST_NAME} characters", f"{bad}, TOO_MANY"),
        Limit("sweeps of a lab", f"{jobs.MOST_JOBS:,}", f"{full}, TOO_MANY"),
        Limit(
            "sweeps fetched at a time, by one process",
            f"{follower.MOST_OPEN}, and points of their plans: {follower.MOST_POINTS:,}",
            "queued",
        ),
        Limit("groups watched at a time", f"{watch.MOST_READERS}", f"{full}, TOO_MANY_WATCHED"),
        Limit(
            "entries of a group's stream",
            f"{checkpoint.LONGEST:,}, then cut to {checkpoint.WINDOW:,}",
            "a checkpoint stands for the older ones",
        ),
        Limit("entries of a round of polling", f"{events.LONGEST_ROUND}", "every round is stored"),
        Limit("rounds of polling in one entry", f"{events.MOST_ROUNDS:,}", "another entry"),
        Limit("archives of a lab", f"{retention.MOST_ARCHIVES:,}", f"{full}, TOO_MANY"),
        Limit("saved streams of the page", f"{replays.MOST_SAVED}, {replays.KEPT_DAYS} days each", "the oldest goes"),
        Limit(
            "replays of the page",
            f"{replays.MAX_REPLAYS}, and pages of their groups: {replays.MOST_PAGES:,}",
            "one that no page shows ends, else 400",
        ),
        Limit(
            "connections to the page",
            f"{web.MOST_CONNECTIONS}, and saved streams on their way: {web.MOST_UPLOADS}",
            "503; queued",
        ),
        Limit("a saved stream", f"{replays.MAX_BYTES // MIB} MiB", "400"),
    ]


def text() -> str:
    """Returns the text of docs/limits.md."""
    rows = [f"| {limit.what} | {limit.most} | {limit.said} |" for limit in table()]
    head = ["# Limits", "", "Made by `python -m services.limits > docs/limits.md` from the code that enforces them.",
            "One more than a bound is refused with what was sent, what is allowed, and what to do.", "",
            "| what | at most | one more |", "|---|---|---|"]  # fmt: skip
    return "\n".join([*head, *rows]) + "\n"


if __name__ == "__main__":
    print(text(), end="")
