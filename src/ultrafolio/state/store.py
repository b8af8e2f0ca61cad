"""The compare-and-set store of folio groups: what one commit says, and what comes back.

A group's sections have one owner each, yet a step of the model may cross the walls: a vCPU's exit hands its thread to
the host, the host's import makes the ultravisor change a page. Such a step is atomic all the same, by a *turn*: who
begins it takes the group's turn; whoever it calls commits its own section under that turn and leaves the result in the
journal; the beginner commits last, with the event, and gives the turn back. While a turn is held nobody else commits.
The first part that is called may take the turn for the beginner in its own commit, if all that the beginner saw stands.

A holder that dies leaves its turn to expire. With an empty journal nothing has happened yet and the turn is void: the
next commit ends it. With results in it, the holder's role must finish the step: rules are pure, so running them again
over what they read before, with the recorded results, leads to the same end. Steps that cross no wall need no turn: one
commit, compared on revisions. docs/faults.md says what that comes to when parts die.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec

LEASE_MS = 2_000
"""How long a turn is held without a further commit before it counts as left behind, in milliseconds."""
REPLY_MS = 600_000
"""How long the answer to a client's request is kept for a repetition of it, in milliseconds at least."""


class Patch(msgspec.Struct, frozen=True, array_like=True):
    """Bytes `data` at `offset` of a section."""

    section: str
    offset: int
    data: bytes


class Turn(msgspec.Struct, frozen=True, array_like=True):
    """A turn as it is held: by which `token` and `role`, for which thread, its first choice and the client's request,
    until when (server ms).

    seen: (section, data in hexadecimal) of those that its holder reads and other parts may write under it, as they were
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

    id         number of this commit among its writer's, rising: sent twice, or arriving late, it changes once
    writer     the process that commits; it sends one commit of a group at a time
    cached     per section to be read: the revision held already, -1 for none
    expect     sections whose cached revision must still stand, else nothing is done
    patches    bytes to write; each section written moves on by one revision
    events     entries for the group's stream, as bytes
    token      the turn under which this happens, "" for none: then no turn may be held
    take       a turn to take or to keep (its `until` is set by the server); None leaves or gives back
    adopt      take over a turn of the own role that was left behind, keeping its journal
    release    give the turn back, and empty the journal
    journal    (index, result) to append to the journal: done only if the journal has exactly `index` entries
    request    (request as in state.requests, answer) to keep for a repetition; Reused if its id is another request's
    polls      1 + the thread whose polling begins another round with these events, 0 for none
    offer      done only if what it says stands; with a journal entry its turn is taken, unless it is held already;
               without one, whether `expect` stands is said before whether a turn is in the way
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


class Answer(msgspec.Struct, frozen=True):
    """What a commit did.

    status     done; stale: an expected revision has moved on, or the writer's next commit is known; held: somebody has
               the turn; left: a turn of the own role was left behind with results in its journal, adopt it; lost: the
               token given holds no turn any more; moved: what the offer's beginner saw does not stand, or the offer is
               late; absent: there is no such group
    revisions  per section of `cached` and `patches`
    sections   data of those whose revision was not the cached one
    turn       the turn in the way (held, left);  journal: its results (left, or a journal entry that was there before)
    wait       held: milliseconds until that turn expires
    """

    status: str
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
    """A place where groups are kept, seen by one role. All methods raise StoreUnavailable when it cannot be reached in
    time."""

    role: str

    def create(self, group: str, sections: dict[str, bytes], event: bytes) -> bool:
        """Write a role's sections of a new group, at revision 1, and the event; False if any is there already, or the
        group was deleted: parts know the name."""

    def commit(self, group: str, commit: Commit) -> Answer:
        """Do all of `commit` or nothing. A commit sent again with the same id by the same writer is answered done."""

    def turn(self, group: str) -> Turn | None:
        """The turn as it is held, or was left behind; None if there is none."""

    def reply(self, group: str, request: str) -> bytes | None:
        """The kept answer to a client's request, or None. Reused: the id was another request's."""

    def read(self, group: str, sections: Sequence[str]) -> dict[str, bytes]:
        """The present data of sections; those that are not there are missing from the result."""

    def events(self, group: str, after: str = "0", block_ms: int = 0) -> Iterator[Event]:
        """Entries of the stream after an id, waiting up to `block_ms` for the first of them. Where that id was cut
        off, or "0" is given, the first is the checkpoint, if there is one."""

    def history(self, group: str) -> Iterator[Event]:
        """All entries of the stream, and those that rounds of polling under way would add."""

    def number(self, key: str) -> int:
        """The next number of a counter of the role's own, from 1."""

    def groups(self) -> list[str]:
        """The groups there are, sorted."""

    def delete(self, group: str) -> None:
        """Remove all of a group."""


class StoreFull(Exception):
    """The store takes no writes until somebody does something. then: what;  told: the server's own words."""

    def __init__(self, then: str, told: str) -> None:
        super().__init__(told)
        self.then = then


class StoreBehind(Exception):
    """The store has lost writes of this group that were acknowledged: nobody goes on before an operator decides."""


class StoreUnavailable(Exception):
    """The store did not answer in time; the commit may or may not have happened, and can be sent again."""
