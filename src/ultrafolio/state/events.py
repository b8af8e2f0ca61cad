"""A group's event stream: what every commit says it did, in the order in which it happened.

An entry is one of: `made`, a role's sections when the group was laid out (with the constants, from the host); `steps`,
the steps of one commit; `uvc`, a page call that the ultravisor executed outside of any step.
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


Entry = Steps | Made | Uvc
_DECODER: msgspec.msgpack.Decoder[Entry] = msgspec.msgpack.Decoder(Entry)
encode = msgspec.msgpack.Encoder().encode


def decode(data: bytes) -> Entry:
    """The entry in these bytes. msgspec.ValidationError or DecodeError if there is none."""
    return _DECODER.decode(data)
