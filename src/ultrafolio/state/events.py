"""A group's event stream: the steps and calls of every commit, in order.

An entry is one of: `made`, a role's sections at the layout of the group (with the constants, from the host); `steps`,
the steps of one commit; `uvc`, a page call that the ultravisor executed outside of any step; `again`, a repetition of
the last entries; `kept`, the state after all entries that were cut off before it.
"""

from __future__ import annotations

import msgspec


class StepEvent(msgspec.Struct, frozen=True, array_like=True):
    """One step: thread `actor` ran its present rule, with its choice and outcome.

    results: results of the calls to other roles, in order; they tell an injected busy answer from the rule's own
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
    """The sections of one role at the layout of the group; `meta`: bytes of state.sections.encode_meta."""

    role: str
    sections: dict[str, bytes]
    meta: bytes = b""


class Uvc(msgspec.Struct, frozen=True, tag="uvc"):
    """A page call outside of any step: function of model.ultravisor, arguments, result."""

    function: str
    arguments: list[int]
    result: int


class Again(msgspec.Struct, frozen=True, tag="again"):
    """The last `entries` entries, without those of this kind, repeated `rounds` times: a thread polls and nothing else
    happens."""

    entries: int
    rounds: int


class Kept(msgspec.Struct, frozen=True, tag="kept"):
    """A checkpoint: the state after entries that were cut off.

    meta, sections  as in Made, of all roles;  recent: the last entries before it, for an `again` after it
    steps, calls    their numbers so far;  broken: the first (step, property) pairs so far
    """

    meta: bytes
    sections: dict[str, bytes]
    recent: list[bytes]
    steps: int
    calls: int
    broken: list[tuple[int, str]] = []


LONGEST_ROUND = 64
"""Most entries of a round of polling; every repetition of a longer one is stored."""
MOST_ROUNDS = 65_536
"""Most rounds in one `again`."""
Entry = Steps | Made | Uvc | Again | Kept
_DECODER: msgspec.msgpack.Decoder[Entry] = msgspec.msgpack.Decoder(Entry)
encode = msgspec.msgpack.Encoder().encode


def decode(data: bytes) -> Entry:
    """Returns the entry in these bytes. Raises msgspec.ValidationError or DecodeError if they are none."""
    return _DECODER.decode(data)
