"""Converts between protobuf messages and the package's records."""

from __future__ import annotations

import hashlib

import numpy as np

from ultrafolio.model.layout import CFG, WHO
from ultrafolio.state.sections import Meta
from ultrafolio.state.turn import Done

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
    )


def meta_from(message: pb.Meta) -> Meta:
    """Returns a group's constants. Raises ValueError if their bytes are not whole records."""
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
    """Returns the message of a step taken or refused."""
    return pb.Step(actor=done.actor, rule=done.pc, name=done.name, outcome=done.outcome, word=done.word)


def step_from(message: pb.Step) -> Done:
    """Returns the step in a message."""
    return Done(message.actor, message.rule, message.outcome)


def laboratory_handle(group: str, vm: int) -> int:
    """Returns the handle of virtual machine `vm` in a group laid out without a boot: 64 bits that host and ultravisor
    compute alike. The ultravisor makes the handle of a booted guest."""
    return int.from_bytes(hashlib.blake2b(f"{group}/{vm}".encode(), digest_size=8).digest(), "big")
