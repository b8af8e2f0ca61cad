"""The compare-and-set store of folio groups: a commit and its answer.

Each section has one owner, but a step of the model may change sections of several roles: a vCPU's exit passes its
thread to the host, the host's import makes the ultravisor change a page. A *turn*, a lease of the group, makes such a
step atomic. The caller takes the turn; each role that it calls commits its own section under that turn and appends its
result to the journal; the caller commits last, with the event, and releases the turn. Other commits are refused while a
turn is held.
The first role that is called may take the turn for the caller in its own commit, if no section that the caller read
has changed.

The turn of a holder that died expires. If its journal is empty, nothing was done and the next commit ends the turn. If
it has results, the holder's role must finish the step: rules are pure, so running them again on the saved inputs, with
the recorded results, gives the same step. A step within one role needs no turn: one commit that compares revisions.
docs/faults.md lists the failures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol

import msgspec

from .owner import Ownership

LEASE_MS = 2_000
"""Milliseconds after its last commit at which a turn expires and counts as abandoned."""
REPLY_MS = 600_000
"""Milliseconds, at least, for which the answer to a client's request is stored for its repetition."""


class Patch(msgspec.Struct, frozen=True, array_like=True):
    """Bytes `data` at `offset` of a section."""

    section: str
    offset: int
    data: bytes


class Turn(msgspec.Struct, frozen=True, array_like=True):
    """A held turn: its `token` and `role`, the thread, its first choice, the client's request, its expiry (server ms).

    seen: (section, data in hexadecimal), at the start, of those that the holder reads and other roles may write in it
    """

    token: str
    role: str
    actor: int
    op: int
    page: int
    request: str = ""
    until: int = 0
    seen: list[tuple[str, str]] = []


class Offer(msgspec.Struct, frozen=True, array_like=True):
    """A turn that the first part which is asked takes for its beginner, with its result as the first of the journal.

    turn            as its beginner would take it
    standing        per section that the beginner reads, the revision it has: every one must stand, else nothing is done
    writer, number  the beginner, and the number of this offer among its own: it counts once, and not after a later one;
                    an offer without a token, which takes no turn, counts as often as it comes
    """

    turn: Turn
    standing: dict[str, int]
    writer: str
    number: int


class Commit(msgspec.Struct, frozen=True, array_like=True):
    """One atomic change of a group.

    id         number of this commit, rising per writer: a repeated or late copy has no effect
    writer     the process that commits; it sends one commit of a group at a time
    cached     per section to read: the revision that the caller has, -1 for none
    expect     sections whose cached revision must be the present one, else the commit does nothing
    patches    bytes to write; the revision of each written section rises by one
    events     entries for the group's stream, as bytes
    token      the turn of this commit, "" for none: then no turn may be held
    take       a turn to take or to renew (the server sets its `until`); None: neither
    adopt      take over an abandoned turn of the same role with its journal
    release    release the turn, and empty the journal
    journal    (index, result) to append to the journal: only if the journal has exactly `index` entries
    request    (request as in state.requests, answer) to store for a repetition; Reused if its id is another request's
    polls      1 + the thread whose polling starts another round with these events, 0 for none
    offer      done only if its revisions are the present ones; with a journal entry its turn is taken, unless held
               already; without one, stale is reported before held
    told       sections of `cached` whose revision another part told: a later one than the present is no sign of writes
               that the store lost
    """

    id: str
    writer: str
    cached: dict[str, int] = {}
    expect: list[str] = []
    patches: list[Patch] = []
    events: list[bytes] = []
    token: str = ""
    take: Turn | None = None
    adopt: bool = False
    release: bool = False
    journal: tuple[int, bytes] | None = None
    request: tuple[str, bytes] | None = None
    polls: int = 0
    offer: Offer | None = None
    told: list[str] = []


Status = Literal["done", "stale", "held", "left", "lost", "moved", "absent"]


class Answer(msgspec.Struct, frozen=True):
    """Result of a commit.

    status     done; stale: an expected revision changed, or a later commit of the same writer was applied; held:
               another turn is held; left: a turn of the same role is abandoned with results in its journal, adopt it;
               lost: `token` holds no turn any more; moved: a revision of the offer changed, or the offer is late;
               absent: there is no such group
    revisions  per section of `cached` and `patches`
    sections   data of those whose revision was not the cached one
    turn       the held turn (held, left);  journal: its results (left, or the journal has entry `index` already)
    wait       held: milliseconds until that turn expires
    """

    status: Status
    revisions: dict[str, int] = {}
    sections: dict[str, bytes] = {}
    turn: Turn | None = None
    journal: list[bytes] = []
    wait: int = 0


TURN = msgspec.msgpack.Decoder(Turn)


class Event(msgspec.Struct, frozen=True):
    """One entry of a group's stream; ids order the stream: NUMBER-MILLISECONDS, counted from 1."""

    id: str
    data: bytes


class Store(Protocol):
    """A store of groups, with the rights of one role. All methods raise StoreUnavailable on a timeout.

    epoch: of the ownership under which it commits and creates (state.owner); 0: the role has one process
    """

    role: str
    epoch: int

    def take(self, group: str, replica: str, silence_ms: int = 0) -> Ownership:
        """Make `replica` the owner of a group: nobody owns it, or its owner has sent nothing for a lease and
        `silence_ms`. Raises NotOwner if neither is so."""

    def settle(self, group: str, epoch: int, home: int) -> None:
        """Say, under the ownership `epoch`, that the files of `home` hold the group's contents; its lease is renewed.
        Raises NotOwner if it is over."""

    def under(self, epoch: int, lost: Callable[[], None]) -> Store:
        """Returns this store for the owner of a group in `epoch`. lost: called before NotOwner is raised."""

    def create(self, group: str, sections: dict[str, bytes], event: bytes) -> bool:
        """Write a role's sections of a new group, at revision 1, and the event. False if a section exists, or a group
        of this name was deleted: services may have cached it."""

    def commit(self, group: str, commit: Commit) -> Answer:
        """Apply `commit` whole or not at all. A repeated commit (same writer and id) is answered done."""

    def turn(self, group: str) -> Turn | None:
        """Returns the turn that is held or abandoned, None if there is none."""

    def reply(self, group: str, request: str) -> bytes | None:
        """Returns the stored answer to a client's request, or None. Raises Reused if the id is another request's."""

    def read(self, group: str, sections: Sequence[str]) -> dict[str, bytes]:
        """Returns the present data of the sections that exist."""

    def events(self, group: str, after: str = "0", block_ms: int = 0) -> Iterator[Event]:
        """Yields entries of the stream after an id; waits up to `block_ms` for the first. If that id was cut off or is
        "0", the checkpoint comes first, if there is one."""

    def history(self, group: str) -> Iterator[Event]:
        """Yields all entries of the stream, and those of unfinished rounds of polling."""

    def number(self, key: str) -> int:
        """Returns the next number, from 1, of a counter of this role."""

    def groups(self) -> list[str]:
        """Returns the groups, sorted."""

    def delete(self, group: str) -> None:
        """Remove a group."""


class StoreFull(Exception):
    """The store refuses writes until an operator acts. then: the action;  told: the server's message."""

    def __init__(self, then: str, told: str) -> None:
        super().__init__(told)
        self.then = then


class StoreBehind(Exception):
    """The store has lost acknowledged writes of this group: every commit is refused until an operator decides."""


class NotOwner(Exception):
    """Another replica of the role owns the group. wait_ms: until its lease is over, if it does nothing more."""

    def __init__(self, group: str, owner: str = "another replica", wait_ms: int = 0) -> None:
        super().__init__(f"{group}: owned by {owner}" + (f" for {wait_ms} ms, or longer" if wait_ms else ""))
        self.group, self.owner, self.wait_ms = group, owner, wait_ms


class FormerOwner(Exception):
    """Another host owns the group that a host asked for as its owner."""


class NoGroup(Exception):
    """There is no group of this name in the store: it was never laid out, or it was deleted."""


class StoreUnavailable(Exception):
    """The store did not answer in time. The commit may have been applied, and can be repeated."""
