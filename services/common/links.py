"""What a service is connected to: the shared state with its role's rights, and the other services."""

from __future__ import annotations

import tempfile
from pathlib import Path

from services.common.serve import ROLE
from services.common.settings import Settings
from services.common.tracing import Tracing
from ultrafolio.errors import InputError
from ultrafolio.rpc.client import Channel, Tls, connect
from ultrafolio.state.acl import KEEPER
from ultrafolio.state.redis import RedisStore


def store_of(settings: Settings, name: str) -> RedisStore:
    """The shared state as service `name` may use it. InputError: none is given."""
    role = ROLE[name]
    return RedisStore(settings.redis_url(role), role)


def keeper_of(settings: Settings) -> RedisStore | None:
    """The shared state as who cuts streams and deletes groups; None where the settings give no such right."""
    url = settings.keeper_url()
    return RedisStore(url, KEEPER) if url else None


def channel_to(settings: Settings, name: str, other: str, tracing: Tracing | None, role: str = "") -> Channel:
    """A channel of service `name` to service `other`, whose address the settings give. InputError: they do not.

    role: who calls, where that is not the service itself: the guest service also runs devices
    """
    role = role or ROLE[name]
    address = getattr(settings, other)
    if not address:
        raise InputError(
            f"ULTRAFOLIO_{other.upper()}: no address is given",
            allowed="host:port",
            cause=f"{name} started alone",
            then="python -m services starts all, and prints the addresses",
        )
    tls = Tls.read(settings.tls, role) if settings.tls else None
    return connect(
        address,
        role,
        tls=tls,
        server=ROLE[other],
        message_mib=settings.max_message_mib,
        metadata=tracing.outgoing if tracing else None,
    )


def folder_of(settings: Settings, name: str) -> Path:
    """Where service `name` keeps its files: the folder given, or a new temporary one."""
    return Path(settings.data or tempfile.mkdtemp(prefix=f"ultrafolio-{name}-"))
