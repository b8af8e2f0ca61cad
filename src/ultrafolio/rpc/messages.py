"""Converts between protobuf messages and the package's records."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from ultrafolio.model.design import Design
from ultrafolio.model.designs import S390
from ultrafolio.state.sections import Meta, constants
from ultrafolio.state.store import Offer, Turn
from ultrafolio.state.turn import Done, Section

from .v1 import common_pb2 as pb


def meta_to(meta: Meta) -> pb.Meta:
    """Returns the message of a group's constants."""
    choices = [pb.Choices(ops=[op for op, _ in some], pages=[page for _, page in some]) for some in meta.choices]
    return pb.Meta(
        cfg=meta.cfg.tobytes(),
        who=meta.who.tobytes(),
        vms=meta.vms,
        choices=choices,
        origin=meta.origin,
        scenario=meta.scenario,
        design=meta.named,
    )


def meta_from(message: pb.Meta) -> Meta:
    """Returns a group's constants. Raises ValueError if their bytes are not whole records, or their design is none."""
    choices = [list(zip(some.ops, some.pages, strict=True)) for some in message.choices]
    made = constants(message.design or S390.name, message.cfg, message.who)
    return made._replace(vms=message.vms, choices=choices, origin=message.origin, scenario=message.scenario)


def step_to(done: Done) -> pb.Step:
    """Returns the message of a step taken or refused."""
    return pb.Step(actor=done.actor, rule=done.pc, name=done.name, outcome=done.outcome, word=done.word)


def step_from(message: pb.Step, design: Design = S390) -> Done:
    """Returns the step in a message about a group of a design."""
    return Done(message.actor, message.rule, message.outcome, design)


Access = tuple[int, int, int, bytes]
"""An access of a page: page, offset, length to read, data to write."""


def offer_to(offer: Offer) -> pb.Turn:
    """The message of an offered turn, for the first crossing of its step."""
    turn = offer.turn
    made = pb.Offer(
        actor=turn.actor,
        op=turn.op,
        page=turn.page,
        request=turn.request,
        standing=offer.standing,
        writer=offer.writer,
        number=offer.number,
        seen={name: bytes.fromhex(data) for name, data in turn.seen},
    )
    return pb.Turn(token=turn.token, offer=made)


def offer_from(message: pb.Turn, role: str) -> Offer:
    """The turn that a part of this role offers in a message."""
    made = message.offer
    seen = [(name, made.seen[name].hex()) for name in sorted(made.seen)]
    turn = Turn(message.token, role, made.actor, made.op, made.page, made.request, seen=seen)
    return Offer(turn, dict(made.standing), made.writer, made.number)


def sections_to(sections: Iterable[Section]) -> list[pb.Section]:
    """The messages of sections."""
    return [pb.Section(name=one.name, revision=one.revision, data=one.data) for one in sections]


def sections_from(messages: Iterable[pb.Section]) -> list[Section]:
    """The sections in messages."""
    return [Section(one.name, one.revision, one.data) for one in messages]


def laboratory_handle(group: str, vm: int) -> int:
    """Returns the handle of virtual machine `vm` in a group laid out without a boot: 64 bits that host and ultravisor
    compute alike. The ultravisor makes the handle of a booted guest."""
    return int.from_bytes(hashlib.blake2b(f"{group}/{vm}".encode(), digest_size=8).digest(), "big")
