"""What the script of a commit (commit.lua) gets, and what it returns: keys, words, bytes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple, get_args

import msgspec

from . import requests
from .roles import OWNING
from .store import REPLY_MS, TURN, Answer, Commit, Status

BEHIND = "behind"
OWNERS = tuple(f"owner:{role}" for role in OWNING)
MOST_KNOWN = 512
"""Combinations of a group and of sections whose keys are kept, some kilobytes each."""
_REPLY = 4
"""Place of the key of the request's answer."""
_NO_REQUEST = "none"
_STATUSES: dict[bytes, Status] = {status.encode(): status for status in get_args(Status)}


class Known(NamedTuple):
    """What all commits of a role to the same sections of a group have in common.

    keys   of the script;  names: of the sections, encoded;  rest: role, milliseconds of a lease and of an answer
    """

    keys: tuple[str, ...]
    names: bytes
    rest: tuple[str, int, int]


def key_of(group: str, name: str) -> str:
    """Returns the key of a group's value. All keys of a group are in one slot of a Redis cluster."""
    return f"uf:{{{group}}}:{name}"


def arguments(group: str, commit: Commit, role: str, lease_ms: int, epoch: int) -> tuple[list[str], list[Any]]:
    """Returns the keys and the arguments of a commit by `role`, under the ownership `epoch`."""
    names = sorted({*commit.cached, *(patch.section for patch in commit.patches)})
    known = _known(group, role, lease_ms, tuple(names))
    keys = list(known.keys)
    if commit.request:
        keys[_REPLY] = key_of(group, f"reply:{role}:{requests.split(commit.request[0])[0]}")
    words, blobs = _words(commit, epoch)
    return keys, [words, known.names, *known.rest, *blobs]


@lru_cache(MOST_KNOWN)
def _known(group: str, role: str, lease_ms: int, names: tuple[str, ...]) -> Known:
    reply, order = f"reply:{role}:{_NO_REQUEST}", f"order:{role}"
    beside = "turn", "journal", "log", "did", reply, BEHIND, "poll", "bell", order, *OWNERS
    keys = tuple(key_of(group, name) for name in (*beside, *names))
    return Known(keys, msgspec.msgpack.encode(names), (role, lease_ms, REPLY_MS))


def _words(commit: Commit, epoch: int) -> tuple[bytes, list[bytes]]:
    """Returns the commit for the script, under the ownership `epoch`, and its byte strings: the commit has their
    indexes, since the server's MessagePack has no binary strings."""
    blobs: list[bytes] = []

    def number(data: bytes) -> int:
        blobs.append(data)
        return len(blobs)

    words = [
        commit.id,
        commit.writer,
        commit.cached,
        commit.expect,
        [(patch.section, patch.offset, number(patch.data)) for patch in commit.patches],
        [number(data) for data in commit.events],
        commit.token,
        commit.take,
        commit.adopt,
        commit.release,
        commit.journal and (commit.journal[0], number(commit.journal[1])),
        commit.request and number(requests.kept(*commit.request)),
        commit.polls,
        commit.offer,
        epoch,
        commit.told,
    ]
    return msgspec.msgpack.encode(words), blobs


def answer(words: list[Any]) -> Answer:
    """Returns the script's reply as an Answer."""
    status, sections, turn, journal, wait = words
    return Answer(
        _STATUSES[status],
        {name.decode(): revision for name, revision, _ in sections},
        {name.decode(): data for name, _, data in sections if data is not None},
        TURN.decode(turn) if turn else None,
        journal,
        wait,
    )
