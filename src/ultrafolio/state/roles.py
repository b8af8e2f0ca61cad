"""The roles of a cluster, in one table: names, services, whose rules each runs, and which sections it may touch."""

from __future__ import annotations

from typing import NamedTuple


class Role(NamedTuple):
    """One role.

    name     its identity: in certificates, in the metadata of calls, and as a Redis user
    service  the service that has it, a package below `services`; "" for a role that a client of another service has
    host     the service's name in a compose file or a Kubernetes namespace
    runs     the rules that it runs: values of Rule.actor, and owners of sections in model.layout.OWNERS
    writes   stored sections that it may write
    reads    stored sections that it reads
    looks    stored sections that its service reads beside these, and none of its rules does
    owns     whether one replica of its service at a time works for a group: it keeps contents outside of the store
    """

    name: str
    service: str = ""
    host: str = ""
    runs: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    looks: tuple[str, ...] = ()
    owns: bool = False


ULTRAVISOR = Role(
    "ultravisor",
    service="ultravisor",
    host="ultravisor",
    runs=("ultravisor",),
    writes=("uv", "seal"),
    # the hardware walks the guest's page table
    reads=("uv", "seal", "pt"),
    owns=True,
)
HOST = Role(
    "host",
    service="host_mm",
    host="host-mm",
    # a broken or hostile host is the host, too
    runs=("host", "fault"),
    # the I/O in flight is the devices', and the host's where it swaps
    writes=("mm", "vm", "task", "work", "pt", "pc", "io"),
    reads=("mm", "vm", "task", "work", "pt", "pc", "io"),
    # to tell who waits for whom: a vCPU that left the guest came to the host with what it wants
    looks=("actor",),
    owns=True,
)
GUEST = Role(
    "guest",
    service="guest",
    host="guest",
    runs=("guest", "device"),
    writes=("actor", "io", "pc"),
    # whether a machine runs decides about SIE entry
    reads=("actor", "io", "pc", "vm"),
)
LAB = Role("lab", service="lab", host="lab")
DEVICE = Role("device")
"""A device of a guest: the guest service calls the ultravisor as one, with the host's view of pages."""

ROLES = (ULTRAVISOR, HOST, GUEST, LAB, DEVICE)
"""In the order in which the services start."""
PARTS = tuple(role for role in ROLES if role.writes)
"""The roles that share a folio group's state."""
OWNING = tuple(role.name for role in ROLES if role.owns)
"""The roles of which one replica owns a group (state.owner)."""
ROLE_OF_SERVICE = {role.service: role.name for role in ROLES if role.service}
ROLE_OF_ACTOR = {actor: role.name for role in ROLES for actor in role.runs}
"""Whose process runs the rules of each actor (Rule.actor)."""
