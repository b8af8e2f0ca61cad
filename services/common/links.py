"""Connections of a service: to the shared state with its role's rights, and to the other services."""

from __future__ import annotations

import tempfile
from pathlib import Path

import grpc

from services.common.settings import Settings
from services.common.tracing import Tracing
from ultrafolio.errors import InputError
from ultrafolio.rpc import replicas
from ultrafolio.rpc.client import Tls, connect
from ultrafolio.state.acl import KEEPER
from ultrafolio.state.redis import RedisStore
from ultrafolio.state.roles import ROLE_OF_SERVICE


def store_of(settings: Settings, name: str) -> RedisStore:
    """Returns the shared state with the rights of service `name`. Raises InputError if the settings name none."""
    role = ROLE_OF_SERVICE[name]
    return RedisStore(settings.redis_url(role), role)


def keeper_of(settings: Settings) -> RedisStore | None:
    """Returns the shared state with the rights of the user `keeper`, None if the settings have no password for it."""
    url = settings.keeper_url()
    return RedisStore(url, KEEPER) if url else None


def channel_to(settings: Settings, name: str, other: str, tracing: Tracing | None, role: str = "") -> grpc.Channel:
    """Returns a channel from service `name` to service `other`. Raises InputError if the settings lack its address.

    role: the caller's role if it is not that of `name`: the guest service also runs devices
    """
    role = role or ROLE_OF_SERVICE[name]
    address = getattr(settings, other)
    if not address:
        raise InputError(
            f"ULTRAFOLIO_{other.upper()}: no address is given",
            allowed="host:port",
            cause=f"{name} started alone",
            then="python -m services starts all, and prints the addresses",
        )
    tls = Tls.read(settings.tls, role) if settings.tls else None
    return (replicas.connect if settings.replicated else connect)(
        address,
        role,
        tls=tls,
        server=ROLE_OF_SERVICE[other],
        message_mib=settings.max_message_mib,
        metadata=tracing.outgoing if tracing else None,
    )


def folder_of(settings: Settings, name: str) -> Path:
    """Returns the folder for the files of service `name`: that of the settings, or a new temporary one."""
    return Path(settings.data or tempfile.mkdtemp(prefix=f"ultrafolio-{name}-"))
