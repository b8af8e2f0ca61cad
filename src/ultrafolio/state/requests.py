"""Request ids of clients: two requests are equal if id, method and arguments are.

Inside the services a request's name is DIGEST~ID, with the digest of method and arguments; of a part of it
DIGEST~ID/PART. Answers are stored under the id, with the digest: a known id with another digest is another request, and
is refused.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from ultrafolio.errors import InputError

MARK = "~"
DIGEST = 16
"""Characters of a digest, 64 bits. Answers are stored per group, so a collision harms only the caller's own group."""
PATTERN = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
NO_DIGEST = "-" * DIGEST


class Reused(Exception):
    """A request id was used before, for another method or with other arguments."""


def named(method: str, message: Any, identifier: str) -> str:
    """Returns the name of a request. message: the protobuf message. The digest is without its request_id, and without
    its owner: another owner of the group may repeat the request.

    Raises InputError if clients may not use this id.
    """
    if not PATTERN.fullmatch(identifier):
        raise InputError(
            "request_id",
            value=identifier,
            allowed="1 to 128 letters, digits, _ . : -",
            then="stamp(request) of ultrafolio.rpc.client makes one",
        )
    message.request_id = ""
    owner = message.owner.SerializeToString() if "owner" in message.DESCRIPTOR.fields_by_name else b""
    if owner:
        message.ClearField("owner")
    data = method.encode() + b"\0" + message.SerializeToString(deterministic=True)
    if owner:
        message.owner.ParseFromString(owner)
    return hashlib.blake2b(data, digest_size=DIGEST // 2).hexdigest() + MARK + identifier


def split(name: str) -> tuple[str, str]:
    """Returns (id with its part, digest) of a name. A name without a digest is an id."""
    digest, mark, rest = name.partition(MARK)
    return (rest, digest) if mark else (name, NO_DIGEST)


def repeats(name: str, before: str) -> bool:
    """Whether request `name` repeats request `before`. Raises Reused if only their ids are equal."""
    if split(name)[0] == split(before)[0] and name != before:
        raise Reused(split(name)[0])
    return name == before


def derived(name: str, *parts: object) -> str:
    """Returns an id for a call to another service that is part of request `name`."""
    text = "/".join(map(str, (name, *parts)))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def kept(name: str, answer: bytes) -> bytes:
    """Returns an answer with the digest, to store under the id."""
    return split(name)[1].encode() + answer


def own(name: str, found: bytes | None) -> bytes | None:
    """Returns the answer in the bytes stored under a request's id. Raises Reused if they are another request's."""
    if found is None:
        return None
    if found[:DIGEST].decode("ascii", "replace") != split(name)[1]:
        raise Reused(split(name)[0])
    return found[DIGEST:]
