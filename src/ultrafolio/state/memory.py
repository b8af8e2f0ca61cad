"""The store in this process's memory: the semantics of commit.lua, for tests and for a single process. Every round of
polling is a separate entry."""

from __future__ import annotations

import copy
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from . import requests
from .owner import Ownership, epoch_of
from .store import LEASE_MS, Answer, Commit, Event, NotOwner, Offer, Status, Turn


@dataclass
class _Owner:
    name: str
    epoch: int
    until: int
    home: int


@dataclass
class _Group:
    sections: dict[str, bytearray] = field(default_factory=dict)
    revisions: dict[str, int] = field(default_factory=dict)
    turn: Turn | None = None
    journal: list[bytes] = field(default_factory=list)
    events: list[bytes] = field(default_factory=list)
    did: dict[str, str] = field(default_factory=dict)
    replies: dict[tuple[str, str], bytes] = field(default_factory=dict)
    owners: dict[str, _Owner] = field(default_factory=dict)


class Memory:
    """The groups of a server, shared by the stores of several roles."""

    def __init__(self) -> None:
        self.groups: dict[str, _Group] = defaultdict(_Group)
        self.numbers: dict[str, int] = defaultdict(int)
        self.deleted: set[str] = set()
        self.changed = threading.Condition()


class MemoryStore:
    """The store of one role, on the groups in `memory`."""

    def __init__(self, memory: Memory, role: str, *, lease_ms: int = LEASE_MS) -> None:
        self._memory, self.role, self._lease, self.epoch = memory, role, lease_ms, 0
        self._lost: Callable[[], None] = lambda: None

    def take(self, group: str, replica: str, silence_ms: int = 0) -> Ownership:
        """As RedisStore.take."""
        with self._memory.changed:
            owners, now = self._memory.groups[group].owners, _now()
            own = owners.get(self.role, _Owner(replica, 0, 0, 0))
            left = own.until - now
            if own.name != replica and left <= self._lease and left + silence_ms > 0:
                raise NotOwner(group, own.name, left + silence_ms)
            owners[self.role] = _Owner(replica, own.epoch + 1, now + self._lease, own.home)
            return Ownership(own.epoch + 1, own.home)

    def settle(self, group: str, epoch: int, home: int) -> None:
        """As RedisStore.settle."""
        with self._memory.changed:
            own = self._memory.groups[group].owners[self.role]
            if own.epoch != epoch:
                raise NotOwner(group)
            own.home, own.until = home, _now() + self._lease

    def under(self, epoch: int, lost: Callable[[], None]) -> MemoryStore:
        """As RedisStore.under."""
        made = copy.copy(self)
        made.epoch, made._lost = epoch, lost
        return made

    def _keep(self, group: str, found: _Group) -> None:
        """Renew the lease of the ownership under which this store commits. Raises NotOwner if it is over."""
        if self.epoch:
            own = found.owners[self.role]
            if own.epoch != self.epoch:
                self._lost()
                raise NotOwner(group)
            own.until = _now() + self._lease

    def create(self, group: str, sections: dict[str, bytes], event: bytes) -> bool:
        with self._memory.changed:
            made = self._memory.groups[group]
            if group in self._memory.deleted:
                return False
            self._keep(group, made)
            if made.sections.keys() & sections.keys():
                return False
            for name, data in sections.items():
                made.sections[name], made.revisions[name] = bytearray(data), 1
            made.events.append(event)
            self._memory.changed.notify_all()
            return True

    def commit(self, group: str, commit: Commit) -> Answer:
        with self._memory.changed:
            found = self._memory.groups.get(group)
            names = {*commit.cached, *(patch.section for patch in commit.patches)}
            if found is None or not names <= found.sections.keys():
                return Answer("absent")
            if found.did.get(commit.writer) != commit.id:
                self._keep(group, found)
            answer = self._commit(found, commit)
            self._memory.changed.notify_all()
            return answer

    def _commit(self, group: _Group, commit: Commit) -> Answer:
        now = _now()
        held, offer = group.turn, commit.offer
        did = group.did.get(commit.writer, "0")
        if int(did) >= int(commit.id):
            return _answer(group, commit, "done" if did == commit.id else "stale")
        if offer and _outlived(group, offer.turn):
            return _answer(group, commit, "moved")
        if held and _outlived(group, held):
            if commit.token == held.token:
                return _answer(group, commit, "lost")
            held = group.turn = msgspec.structs.replace(held, until=now)
        if offer and held and held.token == offer.turn.token:
            commit, offer = msgspec.structs.replace(commit, token=held.token), None  # asked again: it was taken
        elif offer and _moved(group, offer):
            return _answer(group, commit, "moved")
        elif offer and not commit.journal:
            if _stale(group, commit):
                return _answer(group, commit, "stale")
            if offer.turn.token:
                group.did[offer.writer] = str(offer.number)
        refused = self._turn(group, commit, now)
        if refused:
            wait = max(0, held.until - now) if held else 0
            return _answer(group, commit, refused, held, group.journal if refused == "left" else [], wait)
        if commit.request:
            requests.own(commit.request[0], group.replies.get((self.role, requests.split(commit.request[0])[0])))
        if _stale(group, commit):
            return _answer(group, commit, "stale")
        if commit.journal and offer:  # the turn is taken for its beginner
            commit = msgspec.structs.replace(commit, take=offer.turn)
            group.journal, group.did[offer.writer] = [], str(offer.number)
        if commit.journal:
            index, entry = commit.journal
            if len(group.journal) > index:
                return _answer(group, commit, "done", held, [group.journal[index]])
            group.journal.append(entry)
        cached = dict(commit.cached)
        for patch in commit.patches:
            group.sections[patch.section][patch.offset : patch.offset + len(patch.data)] = patch.data
        for name in {patch.section for patch in commit.patches}:
            group.revisions[name] += 1
            if cached.get(name) == group.revisions[name] - 1:
                cached[name] = group.revisions[name]
        group.events += commit.events
        if commit.take:
            group.turn = msgspec.structs.replace(commit.take, until=now + self._lease)
            if not commit.adopt and not commit.journal and not commit.token:
                group.journal = []
        elif commit.release:
            group.turn, group.journal = None, []
        elif held and commit.token:
            group.turn = msgspec.structs.replace(held, until=now + self._lease)
        elif held and (commit.patches or commit.events):
            group.turn = None  # void, and its holder late
        if commit.request:
            name, answer = commit.request
            group.replies[self.role, requests.split(name)[0]] = requests.kept(name, answer)
        group.did[commit.writer] = commit.id
        return _answer(group, msgspec.structs.replace(commit, cached=cached), "done", held)

    def _turn(self, group: _Group, commit: Commit, now: int) -> Status | Literal[""]:
        """Returns the status with which the turn refuses the commit, "" if it does not."""
        held = group.turn
        if held is None:
            return "lost" if commit.token else ""
        if held.token == commit.token:
            return ""
        if commit.token:
            return "lost"
        if held.until > now:
            return "held"
        if group.journal and held.role != self.role:
            return "held"
        return "left" if group.journal and not commit.adopt else ""

    def turn(self, group: str) -> Turn | None:
        with self._memory.changed:
            found = self._memory.groups.get(group)
            return found.turn if found else None

    def reply(self, group: str, request: str) -> bytes | None:
        with self._memory.changed:
            found = self._memory.groups.get(group)
            return requests.own(request, found.replies.get((self.role, requests.split(request)[0]))) if found else None

    def read(self, group: str, sections: Sequence[str]) -> dict[str, bytes]:
        with self._memory.changed:
            found = self._memory.groups.get(group)
            kept = found.sections if found else {}
            return {name: bytes(kept[name]) for name in sections if name in kept}

    def events(self, group: str, after: str = "0", block_ms: int = 0) -> Iterator[Event]:
        at, end = int(after), time.monotonic() + block_ms / 1000
        while True:
            with self._memory.changed:
                found = self._memory.groups[group].events[at:]
                if not found and not self._memory.changed.wait(max(0.0, end - time.monotonic())):
                    return
            for data in found:
                at += 1
                yield Event(str(at), data)

    def history(self, group: str) -> Iterator[Event]:
        return self.events(group)

    def number(self, key: str) -> int:
        with self._memory.changed:
            self._memory.numbers[key] += 1
            return self._memory.numbers[key]

    def groups(self) -> list[str]:
        with self._memory.changed:
            return sorted(self._memory.groups)

    def delete(self, group: str) -> None:
        with self._memory.changed:
            self._memory.groups.pop(group, None)
            self._memory.deleted.add(group)


def _now() -> int:
    return int(time.monotonic() * 1000)


def _outlived(group: _Group, turn: Turn) -> bool:
    """Whether a turn was begun by a former owner of the group."""
    epoch, own = epoch_of(turn.token), group.owners.get(turn.role)
    return epoch > 0 and (own is None or own.epoch != epoch)


def _moved(group: _Group, offer: Offer) -> bool:
    """Whether something that the beginner of an offered turn saw does not stand any more, or the offer is late."""
    late = bool(offer.turn.token) and int(group.did.get(offer.writer, "0")) >= offer.number
    return late or any(group.revisions.get(name) != known for name, known in offer.standing.items())


def _stale(group: _Group, commit: Commit) -> bool:
    """Whether an expected revision has moved on."""
    return any(commit.cached[name] != group.revisions[name] for name in commit.expect)


def _answer(
    group: _Group,
    commit: Commit,
    status: Status,
    turn: Turn | None = None,
    journal: Sequence[bytes] = (),
    wait: int = 0,
) -> Answer:
    names = {*commit.cached, *(patch.section for patch in commit.patches)}
    return Answer(
        status,
        {name: group.revisions[name] for name in names},
        {name: bytes(group.sections[name]) for name, known in commit.cached.items() if known != group.revisions[name]},
        turn,
        list(journal),
        wait,
    )
