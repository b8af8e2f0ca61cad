"""The caller of a call: its role, and for a guest its virtual machine.

With TLS the role is the URI in the client's certificate, signed by the cluster's own authority:

    ultrafolio://host   ultrafolio://ultravisor   ultrafolio://lab   ultrafolio://device
    ultrafolio://guest      a guest service: may act for every virtual machine
    ultrafolio://guest/3    one guest: virtual machine 3 of any folio group
    ultrafolio://guest/g/3  one guest: virtual machine 3 of folio group g

Without TLS (development on loopback) the metadata key ultrafolio-role names it, unverified: `host`, `guest`, `guest:3`,
`guest:g/3`. With TLS the same key may narrow the certificate's role (`guest` to `guest:3`), but not change it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import lru_cache

import grpc

from ultrafolio.errors import one_of
from ultrafolio.rpc.client import ROLE_KEY
from ultrafolio.rpc.errors import StatusError
from ultrafolio.state import roles
from ultrafolio.state.acl import GROUP

ROLES = tuple(role.name for role in roles.ROLES)
NOBODY = "nobody"
URI = "ultrafolio://"
VM = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller.

    role      one of ROLES, or NOBODY for a caller that names none
    vm        the guest's virtual machine, as text; None: not named, or not a guest
    verified  whether a certificate proves it
    group     the folio group of that machine; None: not named
    """

    role: str
    vm: str | None = None
    verified: bool = False
    group: str | None = None

    def __str__(self) -> str:
        machine = self.vm if self.group is None else f"{self.group}/{self.vm}"
        return self.role if self.vm is None else f"{self.role}:{machine}"


def of(context: grpc.ServicerContext) -> Identity:
    """Returns the caller. Raises StatusError (UNAUTHENTICATED, PERMISSION_DENIED) if its claim is not allowed.

    A context of services.common.calls has the caller that its wrapper found.
    """
    known = getattr(context, "caller", None)
    if isinstance(known, Identity):
        return known
    said = claimed(context)
    proven = certified(context)
    if proven is None:
        return said
    if said.role == NOBODY or (said.vm is None and said.role == proven.role):
        return proven
    group = said.group or proven.group
    if said.role != proven.role or proven.vm not in (None, said.vm) or proven.group not in (None, group):
        raise StatusError(
            grpc.StatusCode.PERMISSION_DENIED,
            "ROLE_NOT_CERTIFIED",
            f"{ROLE_KEY}: not what the certificate says",
            value=str(said),
            allowed=str(proven),
            cause="a role may be narrowed to one guest, not changed",
        )
    return Identity(said.role, said.vm, verified=True, group=group)


def require(context: grpc.ServicerContext, roles: Collection[str]) -> Identity:
    """Returns the caller. Raises StatusError (PERMISSION_DENIED) unless its role is one of `roles`."""
    identity = of(context)
    if identity.role not in roles:
        raise StatusError(
            grpc.StatusCode.PERMISSION_DENIED,
            "ROLE_NOT_ALLOWED",
            "this call is not for this role",
            value=str(identity),
            allowed=", ".join(roles),
            cause="another role's certificate, or no role named",
            then=f"connect(address, role={next(iter(roles))!r})",
        )
    return identity


def claimed(context: grpc.ServicerContext) -> Identity:
    """Returns the identity in the call's metadata, unverified."""
    for key, value in context.invocation_metadata() or ():
        if key == ROLE_KEY:
            return _parse(value.decode("utf-8", "replace") if isinstance(value, bytes) else value, ":")
    return Identity(NOBODY)


def certified(context: grpc.ServicerContext) -> Identity | None:
    """Returns the identity in the client's certificate, None without TLS.

    Raises StatusError (UNAUTHENTICATED) if the certificate names no role.
    """
    properties = context.auth_context()
    if not properties.get("x509_pem_cert"):
        return None
    for name in properties.get("x509_subject_alternative_name", ()):
        text = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
        if text.startswith(URI):
            identity = _parse(text.removeprefix(URI), "/")
            return replace(identity, verified=True)
    raise StatusError(
        grpc.StatusCode.UNAUTHENTICATED,
        "NO_ROLE",
        "the client certificate names no role",
        allowed=f"a URI {URI}ROLE",
        cause="a certificate that was made for something else",
        then="python -m services.launcher.certificates FOLDER",
    )


@lru_cache(1024)
def _parse(text: str, separator: str) -> Identity:
    """Returns the identity in "ROLE", "guest{separator}VM" or "guest{separator}GROUP/VM". Raises StatusError
    (UNAUTHENTICATED)."""
    role, _, machine = text.partition(separator)
    group, slash, vm = machine.rpartition("/")
    named = VM.fullmatch(vm) and (not slash or GROUP.fullmatch(group))
    if role not in ROLES or (machine and not (role == "guest" and named)):
        error = one_of("role of the caller", text, (*ROLES, f"guest{separator}VM", f"guest{separator}GROUP/VM"))
        raise StatusError(
            grpc.StatusCode.UNAUTHENTICATED,
            "UNKNOWN_ROLE",
            error.what,
            value=text,
            allowed=error.allowed,
            cause=error.cause,
        )
    return Identity(role, vm or None, group=group or None)
