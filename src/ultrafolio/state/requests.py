"""A client's request ids: a request is its id, its method and its arguments.

Inside, a request is called DIGEST~ID, the digest being that of method and arguments; parts of it DIGEST~ID/PART. What
is kept for a repetition lies under the id, with the digest: the id with another digest is another request, which gets
no answer that is not its own.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from ultrafolio.errors import InputError

MARK = "~"
DIGEST = 16
"""Characters of a digest, 64 bits: enough for what is no attack on others, since answers are kept per group."""
PATTERN = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
NO_DIGEST = "-" * DIGEST


class Reused(Exception):
    """A request id that was used before, for another method or with other arguments."""


def named(method: str, message: Any, identifier: str) -> str:
    """The name of a request. message: the protobuf message, whose field request_id does not count.

    InputError: the id is none that a client may use.
    """
    if not PATTERN.fullmatch(identifier):
        raise InputError(
            "request_id",
            value=identifier,
            allowed="1 to 128 letters, digits, _ . : -",
            then="stamp(request) of ultrafolio.rpc.client makes one",
        )
    message.request_id = ""
    data = method.encode() + b"\0" + message.SerializeToString(deterministic=True)
    return hashlib.blake2b(data, digest_size=DIGEST // 2).hexdigest() + MARK + identifier


def split(name: str) -> tuple[str, str]:
    """(id with its part, digest) of a name; a name without a digest is its own id."""
    digest, mark, rest = name.partition(MARK)
    return (rest, digest) if mark else (name, NO_DIGEST)


def repeats(name: str, before: str) -> bool:
    """Whether the request `name` is the request `before` again. Reused: only its id is."""
    if split(name)[0] == split(before)[0] and name != before:
        raise Reused(split(name)[0])
    return name == before


def derived(name: str, *parts: object) -> str:
    """An id for a call to another service that is part of the request `name`."""
    text = "/".join(map(str, (name, *parts)))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def kept(name: str, answer: bytes) -> bytes:
    """An answer as it is kept."""
    return split(name)[1].encode() + answer


def own(name: str, found: bytes | None) -> bytes | None:
    """The answer to a request in what was kept under its id. Reused: it is another request's."""
    if found is None:
        return None
    if found[:DIGEST].decode("ascii", "replace") != split(name)[1]:
        raise Reused(split(name)[0])
    return found[DIGEST:]
