"""A group's event stream: what every commit says it did, in the order in which it happened.

An entry is one of: `made`, a role's sections when the group was laid out (with the constants, from the host); `steps`,
the steps of one commit; `uvc`, a page call that the ultravisor executed outside of any step; `again`, entries that
came once more; `kept`, the state after all entries that were cut off before it.
"""

from __future__ import annotations

import msgspec


class StepEvent(msgspec.Struct, frozen=True, array_like=True):
    """One step: thread `actor` ran the rule it was at, with its choice, and this came of it.

    results: what calls across the walls returned, in order; they tell an injected busy answer from the rule's own
    """

    actor: int
    op: int
    page: int
    outcome: int
    results: list[tuple[str, int]] = []


class Steps(msgspec.Struct, frozen=True, tag="steps"):
    """The steps of one commit by `role`."""

    role: str
    steps: list[StepEvent]


class Made(msgspec.Struct, frozen=True, tag="made"):
    """The sections of one role when the group was laid out; `meta` as state.sections.encode_meta wrote it."""

    role: str
    sections: dict[str, bytes]
    meta: bytes = b""


class Uvc(msgspec.Struct, frozen=True, tag="uvc"):
    """A page call outside of any step: function of model.ultravisor, its arguments, what it returned."""

    function: str
    arguments: list[int]
    result: int


class Again(msgspec.Struct, frozen=True, tag="again"):
    """The last `entries` entries, those of this kind not counted, came `rounds` times more: a thread polls, nothing
    else happens."""

    entries: int
    rounds: int


class Kept(msgspec.Struct, frozen=True, tag="kept"):
    """A checkpoint: the state after entries that are kept no more.

    meta, sections  as in Made, of all roles;  recent: the last entries before it, for an `again` after it
    steps, calls    how many there were so far;  broken: (step, property) so far, the first of them
    """

    meta: bytes
    sections: dict[str, bytes]
    recent: list[bytes]
    steps: int
    calls: int
    broken: list[tuple[int, str]] = []


LONGEST_ROUND = 64
"""Entries of a round of polling at most; a longer one is stored every time."""
MOST_ROUNDS = 65_536
"""Rounds that one entry stands for at most."""
Entry = Steps | Made | Uvc | Again | Kept
_DECODER: msgspec.msgpack.Decoder[Entry] = msgspec.msgpack.Decoder(Entry)
encode = msgspec.msgpack.Encoder().encode


def decode(data: bytes) -> Entry:
    """The entry in these bytes. msgspec.ValidationError or DecodeError if there is none."""
    return _DECODER.decode(data)
