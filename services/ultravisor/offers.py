"""Turns that are offered to the ultravisor: who may offer one, and what it must say for whoever finishes its step."""

from __future__ import annotations

import re

import grpc

from services.common.identity import Identity
from services.ultravisor.commits import Commits, Part
from ultrafolio.model.layout import OPS
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.messages import offer_from
from ultrafolio.rpc.v1 import common_pb2
from ultrafolio.state.requests import DIGEST

WRITER = re.compile(r"(host|guest)-[0-9a-f]{12}(?:/[0-9]{1,6})?")
"""How a service names itself that offers a turn: ROLE-RANDOM, of a guest with its vCPU."""
LONGEST_TOKEN = 64
LONGEST_REQUEST = DIGEST + 256
"""Characters of a request's name: its digest, its id, and the number of its part."""


def part_of(turn: common_pb2.Turn, caller: Identity | None, group: Commits) -> Part | None:
    """Returns the turn of a message about a group, None if it has none.

    Raises StatusError if it is offered by who is none of the services that take turns, or could not be finished as it
    says: the group would be at that step for ever.
    """
    if not turn.HasField("offer"):
        return Part(turn.token, turn.index) if turn.token else None
    role, writer = caller.role if caller else "", WRITER.fullmatch(turn.offer.writer)
    if caller is None or caller.vm is not None or not writer or writer[1] != role or turn.index:
        raise StatusError(
            grpc.StatusCode.PERMISSION_DENIED,
            "NOT_YOUR_TURN",
            "a turn that is offered",
            value=str(caller),
            allowed="by a guest service or a host MM, which name themselves as in the shared state, for a first call",
        )
    wrong = _wrong(turn, role, group)
    if wrong:
        raise StatusError(
            grpc.StatusCode.INVALID_ARGUMENT,
            "BAD_OFFER",
            "a turn that is offered",
            value=wrong,
            allowed="what a service offers: an actor, a page and an operation of the group, and its own sections",
            cause="a client of another version, or a message that was cut",
        )
    return Part(turn.token, turn.index, offer_from(turn, role))


def _wrong(turn: common_pb2.Turn, role: str, group: Commits) -> str:
    """Returns what of an offer no step of a role can have, "" for nothing."""
    made, meta = turn.offer, group.meta
    if made.actor >= len(meta.who) or made.page >= int(meta.cfg["pages"][0]) or made.op >= len(OPS):
        return f"actor {made.actor}, operation {made.op}, page {made.page}"
    if len(turn.token) > LONGEST_TOKEN or len(made.request) > LONGEST_REQUEST:
        return f"a token of {len(turn.token)} characters, a request of {len(made.request)}"
    says = group.offers[role]
    if not says.standing.issuperset(made.standing):
        return f"{len(made.standing)} sections that stand"
    sizes = {name: len(data) for name, data in made.seen.items()} if made.seen else {}
    return "" if sizes == says.seen else f"{len(made.seen)} sections that were seen"
