"""Between messages and the records they stand for."""

from __future__ import annotations

import hashlib

import numpy as np

from ultrafolio.model.layout import CFG, WHO
from ultrafolio.state.sections import Meta
from ultrafolio.state.turn import Done

from .v1 import common_pb2 as pb


def meta_to(meta: Meta) -> pb.Meta:
    """The message of a group's constants."""
    choices = [pb.Choices(ops=[op for op, _ in some], pages=[page for _, page in some]) for some in meta.choices]
    return pb.Meta(
        cfg=meta.cfg.tobytes(),
        who=meta.who.tobytes(),
        vms=meta.vms,
        choices=choices,
        origin=meta.origin,
        scenario=meta.scenario,
    )


def meta_from(message: pb.Meta) -> Meta:
    """A group's constants. ValueError where their bytes are not whole records."""
    choices = [list(zip(some.ops, some.pages, strict=True)) for some in message.choices]
    return Meta(
        np.frombuffer(message.cfg, CFG),
        np.frombuffer(message.who, WHO),
        message.vms,
        choices,
        message.origin,
        message.scenario,
    )


def step_to(done: Done) -> pb.Step:
    """The message of a step taken or refused."""
    return pb.Step(actor=done.actor, rule=done.pc, name=done.name, outcome=done.outcome, word=done.word)


def step_from(message: pb.Step) -> Done:
    """The step in a message."""
    return Done(message.actor, message.rule, message.outcome)


def laboratory_handle(group: str, vm: int) -> int:
    """Handle of virtual machine `vm` in a group that was laid out in a given state, without a boot: 64 bits, known to
    both sides. A booted guest's handle comes from the ultravisor."""
    return int.from_bytes(hashlib.blake2b(f"{group}/{vm}".encode(), digest_size=8).digest(), "big")
