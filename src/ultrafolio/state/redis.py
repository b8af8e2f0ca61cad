"""The store in Redis, or any server that speaks its protocol: one script does every commit.

Keys of a group share one hash tag: `uf:{GROUP}:SECTION`, `uf:{GROUP}:turn`, `…:journal`, `…:log` (the stream),
`…:poll` (rounds of polling that are not in it yet), `…:bell` (rings for who waits for the stream), `…:checkpoint`,
`…:did` (last commit per writer, revision per section), `…:reply:ROLE:ID` and `…:order:ROLE` (answers, and their
order), `…:owner:ROLE` (state/owner.py). Who may touch which is in state/acl.py. Commands are those that Redis 7 and
Valkey share.
"""

from __future__ import annotations

import copy
import functools
import itertools
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from . import requests, script, until
from .events import Again, encode
from .owner import Ownership
from .roles import PARTS
from .script import BEHIND, OWNERS, key_of
from .sections import every_section
from .store import (
    LEASE_MS,
    TURN,
    Answer,
    Commit,
    Event,
    NotOwner,
    StoreBehind,
    StoreFull,
    StoreUnavailable,
    Turn,
)

_SCRIPT, _TAKE = ((Path(__file__).parent / name).read_text() for name in ("commit.lua", "take.lua"))
CHECKPOINT = "checkpoint"
_ORDERS = tuple(f"order:{role.name}" for role in PARTS)
_SECTIONS = every_section()
_BESIDE = "turn", "journal", "log", "did", BEHIND, "poll", "bell", CHECKPOINT, *_ORDERS, *OWNERS
PIECE = 1000
"""Entries that are read at a time."""
_TIME = 8
"""Bytes of an entry's time, in milliseconds since 1970."""
SCRIPT_KILL = "`redis-cli SCRIPT KILL`, as the administrator,"
TRY_S = 1.0
"""How long the server may take for one answer."""
FULL = {
    "OOM": "its memory is full: raise maxmemory, or delete folio groups that nobody needs",
    "MISCONF": "its disk is full, or cannot be written: make room on it",
}
"""First words of the server's errors that last until an operator acts -> the action."""
FOR_A_WHILE = {
    "LOADING": "the store loads its data", "BUSY": f"the store runs a script of somebody's: {SCRIPT_KILL} ends it",
    "READONLY": "the store is a replica", "MASTERDOWN": "the store has lost its master",
    "NOREPLICAS": "the store has too few replicas", "CLUSTERDOWN": "the store's cluster is down",
    "TRYAGAIN": "the store moves its data",
}  # fmt: skip
"""First words of errors that end by themselves, or after a failover -> meaning."""
MOST_CONNECTIONS = 512
"""Most connections of one process: more than its threads."""
_REVISION = 8
PASSED = 1 << 40
"""Increment of revisions when an operator accepts a store that lost writes: more than the lost commits."""
DELETED = "uf:deleted"
"""The names of groups that were deleted."""
UNCUT = "uf:uncut"
"""Of groups whose stream cannot be cut: why. Written by who cuts."""
LONGEST_WHY = 500
_CREATE = """
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then return 1 end
if ARGV[4] ~= '0' and redis.call('HGET', KEYS[3], 'epoch') ~= ARGV[4] then return -1 end
for i = 4, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 1 then return 0 end
end
for i = 4, #KEYS do
  redis.call('SET', KEYS[i], ARGV[i + 1])
  redis.call('HSET', KEYS[1], '~' .. string.match(KEYS[i], '[^:]*$'), 1)
end
local time = redis.call('TIME')
redis.call('RPUSH', KEYS[2], struct.pack('>I8', time[1] * 1000 + math.floor(time[2] / 1000)) .. ARGV[3])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
"""
_SETTLE = """
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 0 end
local time = redis.call('TIME')
local ends = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[3]
redis.call('HSET', KEYS[1], 'home', ARGV[2], 'until', string.format('%.0f', ends))
return 1
"""
_SWAP = """
local now = redis.call('GET', KEYS[1]) or ''
if now == ARGV[2] and ARGV[3] == '1' then return 1 end
if now ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""
_CUT = """
if redis.call('GETRANGE', KEYS[1], 0, 7) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('LTRIM', KEYS[2], ARGV[3], -1)
return 1
"""
T = TypeVar("T")


class RedisStore:
    """The groups of one server, with the rights of one role.

    url: redis://user:password@host:port/0 or unix://…;  role: whose turns and answers these are
    patience: seconds to go on trying while the server cannot be reached, before StoreUnavailable
    """

    def __init__(self, url: str, role: str, *, patience: float = 10.0, lease_ms: int = LEASE_MS) -> None:
        self.role, self._patience, self._lease, self.epoch = role, patience, lease_ms, 0
        self._lost: Callable[[], None] = lambda: None
        # tried again by _patiently only: the client's own tries would go on beyond a call's deadline
        once = Retry(NoBackoff(), 0)
        self._client: Any = redis.Redis.from_url(
            url, socket_timeout=TRY_S, socket_connect_timeout=TRY_S, retry=once, max_connections=MOST_CONNECTIONS
        )
        self._script = self._client.register_script(_SCRIPT)
        self._create = self._client.register_script(_CREATE)
        self._swap = self._client.register_script(_SWAP)
        self._cut = self._client.register_script(_CUT)
        self._take = self._client.register_script(_TAKE)
        self._settle = self._client.register_script(_SETTLE)

    def take(self, group: str, replica: str, silence_ms: int = 0) -> Ownership:
        """Make `replica` the owner of a group: nobody owns it, or its owner has sent nothing for a lease and
        `silence_ms`. Else raises NotOwner."""
        keys = [key_of(group, f"owner:{self.role}")]
        args: list[Any] = [replica, self._lease, silence_ms]
        taken, first, second = self._patiently(lambda: self._take(keys=keys, args=args))
        if not taken:
            raise NotOwner(group, first.decode(), second)
        return Ownership(first, second)

    def settle(self, group: str, epoch: int, home: int) -> None:
        """Say, as owner in `epoch`, that the files of `home` hold the group's contents; renew the lease. Raises
        NotOwner."""
        keys, args = [key_of(group, f"owner:{self.role}")], [epoch, home, self._lease]
        if not self._patiently(lambda: self._settle(keys=keys, args=args)):
            raise NotOwner(group)

    def owned(self, group: str, role: str) -> int:
        """Returns the epoch of a role's owner, 0 for none."""
        return int(self._patiently(lambda: self._client.hget(key_of(group, f"owner:{role}"), "epoch")) or 0)

    def under(self, epoch: int, lost: Callable[[], None]) -> RedisStore:
        """Returns this store for the owner of a group in `epoch`. lost: called before NotOwner is raised."""
        made = copy.copy(self)
        made.epoch, made._lost = epoch, lost
        return made

    def create(self, group: str, sections: dict[str, bytes], event: bytes) -> bool:
        if self._patiently(lambda: self._client.sismember(DELETED, group)):
            return False
        keys = [key_of(group, name) for name in ("did", "log", f"owner:{self.role}", *sections)]
        values = [(1).to_bytes(_REVISION, "big") + data for data in sections.values()]
        args: list[Any] = [f"create-{self.role}", os.urandom(8).hex(), event, self.epoch, *values]
        self._patiently(lambda: self._client.sadd("uf:groups", group))
        made = self._patiently(lambda: self._create(keys=keys, args=args))
        if made < 0:
            self._lost()
            raise NotOwner(group)
        return bool(made)

    def commit(self, group: str, commit: Commit) -> Answer:
        keys, args = script.arguments(group, commit, self.role, self._lease, self.epoch)
        answered = self._patiently(lambda: self._script(keys=keys, args=args))
        if answered[0] == b"behind":
            raise StoreBehind(group)
        if answered[0] == b"reused":
            raise requests.Reused(requests.split(commit.request[0])[0] if commit.request else "")
        if answered[0] == b"owned":
            self._lost()
            raise NotOwner(group)
        return script.answer(answered)

    def turn(self, group: str) -> Turn | None:
        held = self._patiently(lambda: self._client.get(key_of(group, "turn")))
        return TURN.decode(held) if held else None

    def reply(self, group: str, request: str) -> bytes | None:
        key = key_of(group, f"reply:{self.role}:{requests.split(request)[0]}")
        return requests.own(request, self._patiently(lambda: self._client.get(key)))

    def read(self, group: str, sections: Sequence[str]) -> dict[str, bytes]:
        if not sections:
            return {}
        values = self._patiently(lambda: self._client.mget([key_of(group, name) for name in sections]))
        return {name: value[_REVISION:] for name, value in zip(sections, values, strict=True) if value}

    def events(self, group: str, after: str = "0", block_ms: int = 0) -> Iterator[Event]:
        at, rung = number_of(after), self._rung(group) if block_ms else b""
        while True:
            cut, checkpoint, found = self._patiently(functools.partial(self._piece, group, at))
            if at < cut:
                at = cut
                yield Event(f"{cut}-0", checkpoint)
                continue
            for entry in found:
                at += 1
                yield Event(f"{at}-{int.from_bytes(entry[:_TIME], 'big')}", entry[_TIME:])
            if not found and not block_ms:
                return
            if not found:
                bell, block = {key_of(group, "bell"): rung}, min(block_ms, int(1000 * TRY_S / 2))
                self._patiently(functools.partial(self._client.xread, bell, count=1, block=block))
            block_ms = 0

    def history(self, group: str) -> Iterator[Event]:
        last, there = "0", -1
        poll: dict[bytes, bytes] = {}
        while there != number_of(last):
            for event in self.events(group, last):
                last = event.id
                yield event
            there, poll = self._patiently(functools.partial(self._end_of, group))
        yield from _rounds(poll, there)

    def cut(self, group: str, number: int, checkpoint: bytes) -> bool:
        """Replace the entries up to a number by a checkpoint. False if another process did. Needs keeper rights."""
        keys = [key_of(group, CHECKPOINT), key_of(group, "log")]
        cut, _, _ = self._patiently(functools.partial(self._piece, group, number))
        head = [n.to_bytes(_REVISION, "big") for n in (cut, number)]
        args: list[Any] = [head[0] if cut else b"", head[1] + checkpoint, number - cut]
        return number > cut and bool(self._patiently(lambda: self._cut(keys=keys, args=args)))

    def note_uncut(self, group: str, why: str) -> None:
        """Say why a group's stream cannot be cut, or with "" that it can. With the keeper's rights."""
        if why:
            self._patiently(lambda: self._client.hset(UNCUT, group, why[:LONGEST_WHY]))
        else:
            self._patiently(lambda: self._client.hdel(UNCUT, group))

    def uncut(self) -> dict[str, str]:
        """The groups whose stream cannot be cut, and why."""
        found = self._patiently(lambda: self._client.hgetall(UNCUT))
        return {group.decode(): why.decode("utf-8", "replace") for group, why in found.items()}

    def length(self, group: str) -> int:
        """Returns the number of entries in the log."""
        return int(self._patiently(lambda: self._client.llen(key_of(group, "log"))))

    def size(self, group: str) -> int:
        """Returns the approximate bytes of a group in the store."""
        keys = [key_of(group, name) for name in (*_SECTIONS, "meta", *_BESIDE)]
        return self._patiently(lambda: sum(self._client.memory_usage(key) or 0 for key in keys))

    def _rung(self, group: str) -> bytes:
        """Returns the id of the last wake-up of the stream's readers."""
        rung = self._patiently(lambda: self._client.xrevrange(key_of(group, "bell"), count=1))
        return rung[0][0] if rung else b"0"

    def _end_of(self, group: str) -> tuple[int, dict[bytes, bytes]]:
        """Returns the number of entries so far, and the rounds of polling that are not among them."""
        with self._client.pipeline() as pipe:
            pipe.getrange(key_of(group, CHECKPOINT), 0, _REVISION - 1)
            pipe.llen(key_of(group, "log"))
            pipe.hgetall(key_of(group, "poll"))
            cut, length, poll = pipe.execute()
        return int.from_bytes(cut, "big") + length, poll

    def _piece(self, group: str, at: int) -> tuple[int, bytes, list[bytes]]:
        """Returns the number of entries that were cut off, their checkpoint, and the next entries after number `at`."""
        cut = int.from_bytes(self._client.getrange(key_of(group, CHECKPOINT), 0, _REVISION - 1), "big")
        while True:
            with self._client.pipeline() as pipe:
                pipe.get(key_of(group, CHECKPOINT))
                start = max(0, at - cut)
                pipe.lrange(key_of(group, "log"), start, start + PIECE - 1)
                checkpoint, found = pipe.execute()
            now = int.from_bytes((checkpoint or b"")[:_REVISION], "big")
            if now == cut:
                return cut, (checkpoint or b"")[_REVISION:], found
            cut = now

    def groups(self) -> list[str]:
        return sorted(name.decode() for name in self._patiently(lambda: self._client.smembers("uf:groups")))

    def delete(self, group: str) -> None:
        self._patiently(lambda: self._client.sadd(DELETED, group))
        self._patiently(lambda: self._client.srem("uf:groups", group))
        self.note_uncut(group, "")
        names = *_SECTIONS, "meta", *_BESIDE
        self._patiently(lambda: self._client.delete(*(key_of(group, name) for name in names)))

    def deleted(self, groups: Collection[str]) -> set[str]:
        """Returns those of these groups that were deleted."""
        names = sorted(groups)
        found = self._patiently(lambda: self._client.smismember(DELETED, names)) if names else []
        return {name for name, gone in zip(names, found, strict=True) if gone}

    def get(self, key: str) -> bytes | None:
        """Returns a key of this role outside of groups."""
        value: bytes | None = self._patiently(lambda: self._client.get(key))
        return value

    def swap(self, key: str, old: bytes | None, new: bytes) -> bool:
        """Set a key of the role's own if it still holds `old` (None: is not there); False if it does not. After a lost
        answer, a key that holds `new` counts as set."""
        tries = itertools.count()
        return bool(self._patiently(lambda: self._swap(keys=[key], args=[old or b"", new, int(next(tries) > 0)])))

    def remove(self, key: str) -> None:
        """Remove a key of this role outside of groups."""
        self._patiently(lambda: self._client.delete(key))

    def number(self, key: str) -> int:
        """Returns the next number, from 1, of a counter of this role."""
        return int(self._patiently(lambda: self._client.execute_command("INCR", key)))

    def ping(self) -> bool:
        """Whether the server answers now."""
        try:
            return bool(self._client.ping())
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    def behind(self) -> list[str]:
        """Returns the groups that are refused because the store lost writes, sorted. Needs an operator's rights."""
        groups = self.groups()
        marks = self._patiently(lambda: [self._client.exists(key_of(group, BEHIND)) for group in groups])
        return [group for group, marked in zip(groups, marks, strict=True) if marked]

    def accept(self, group: str) -> None:
        """An operator's decision: continue from a group's stored state, with revisions above all that were seen."""

        def decide() -> None:
            names = [*(name for name in _SECTIONS if self._client.exists(key_of(group, name))), "meta"]
            with self._client.pipeline() as pipe:
                for name in names:
                    head = self._client.getrange(key_of(group, name), 0, _REVISION - 1)
                    later = int.from_bytes(head, "big") + PASSED
                    pipe.setrange(key_of(group, name), 0, later.to_bytes(_REVISION, "big"))
                    pipe.hset(key_of(group, "did"), f"~{name}", later)
                pipe.delete(key_of(group, BEHIND))
                pipe.execute()

        self._patiently(decide)

    def close(self) -> None:
        self._client.close()

    def _patiently(self, attempt: Callable[[], T]) -> T:
        """Try again while the server is away, as long as the patience and the caller's deadline allow. Everything sent
        is safe to send twice."""
        began, pause = time.monotonic(), 0.01
        end = began + until.left(self._patience) - TRY_S
        while True:
            try:
                return attempt()
            except (redis.ConnectionError, redis.TimeoutError) as error:
                if time.monotonic() + pause > end:
                    raise _unavailable("it does not answer", began, error) from error
            except redis.ResponseError as error:
                word = _word(error)
                if word in FULL:
                    raise StoreFull(FULL[word], str(error)) from error
                if not word:
                    raise
                if time.monotonic() + pause > end:
                    raise _unavailable(FOR_A_WHILE[word], began, error) from error
            time.sleep(pause)
            pause = min(2 * pause, 0.2)


def _unavailable(why: str, began: float, error: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"{why}; tried for {time.monotonic() - began:.1f} s: {error}")


def _word(error: redis.ResponseError) -> str:
    """Returns the error's word in FULL or FOR_A_WHILE, or "". The client drops words that have an exception class."""
    kinds = {redis.exceptions.OutOfMemoryError: "OOM", redis.exceptions.ReadOnlyError: "READONLY"}
    first = str(error).partition(" ")[0]
    return kinds.get(type(error), first if first in FULL or first in FOR_A_WHILE else "")


def number_of(place: str) -> int:
    """The number in an entry's id."""
    return int(place.partition("-")[0])


def _rounds(poll: dict[bytes, bytes], number: int) -> Iterator[Event]:
    """Yields the entries of unfinished rounds of polling, as after entry `number`."""
    if poll.get(b"known") != b"1":
        return
    length, rounds, at = (int(poll[name]) for name in (b"length", b"count", b"at"))
    entries = [poll[str(n + 1).encode()] for n in range(at)]
    again = [encode(Again(length, rounds))] if rounds else []
    for place, data in enumerate([*again, *entries], number + 1):
        yield Event(f"{place}-0", data)
