"""The roles of a cluster, in one table: names, services, whose rules each runs, and which sections it may touch."""

from __future__ import annotations

from typing import NamedTuple


class Touched(NamedTuple):
    """What a role touches of a group.

    writes  stored sections that it may write
    reads   stored sections that it reads
    looks   stored sections that its service reads beside these, and none of its rules does
    """

    writes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    looks: tuple[str, ...] = ()


NONE = Touched()


class Role(NamedTuple):
    """One role.

    name     its identity: in certificates, in the metadata of calls, and as a Redis user
    service  the service that has it, a package below `services`; "" for a role that a client of another service has
    host     the service's name in a compose file or a Kubernetes namespace
    runs     the rules that it runs: values of Rule.actor, and owners of sections in model.layout.OWNERS
    s390, guest_memfd  what it touches of a group of this design
    owns     whether one replica of its service at a time works for a group: it keeps contents outside of the store
    """

    name: str
    service: str = ""
    host: str = ""
    runs: tuple[str, ...] = ()
    s390: Touched = NONE
    guest_memfd: Touched = NONE
    owns: bool = False

    def of(self, design: str) -> Touched:
        """Returns what it touches of a group of a design."""
        touched: Touched = getattr(self, design)
        return touched


ULTRAVISOR = Role(
    "ultravisor",
    service="ultravisor",
    host="ultravisor",
    runs=("ultravisor",),
    # the hardware walks the guest's page table
    s390=Touched(writes=("uv", "seal"), reads=("uv", "seal", "pt")),
    # the hardware sees, too, as which kind the guest uses a page, and which vCPU is in the guest
    guest_memfd=Touched(writes=("uv",), reads=("uv", "pt", "kind", "pc")),
    owns=True,
)
HOST = Role(
    "host",
    service="host_mm",
    host="host-mm",
    # a broken or hostile host is the host, too
    runs=("host", "fault"),
    s390=Touched(
        # the I/O in flight is the devices', and the host's where it swaps
        writes=("mm", "vm", "task", "work", "pt", "pc", "io"),
        reads=("mm", "vm", "task", "work", "pt", "pc", "io"),
        # to tell who waits for whom: a vCPU that left the guest came to the host with what it wants
        looks=("actor",),
    ),
    guest_memfd=Touched(
        # a call of the VMM comes with its thread, and ends what the VMM was at
        writes=("mm", "vm", "thread", "wanted", "work", "pt", "pc"),
        reads=("mm", "vm", "thread", "wanted", "work", "pt", "pc"),
        looks=("actor",),
    ),
    owns=True,
)
GUEST = Role(
    "guest",
    service="guest",
    host="guest",
    # the VMM is a process of its own, which knows answers and exits
    runs=("guest", "device", "vmm"),
    # whether a machine runs decides about SIE entry
    s390=Touched(writes=("actor", "io", "pc"), reads=("actor", "io", "pc", "vm")),
    guest_memfd=Touched(
        writes=("actor", "kind", "wanted", "thread", "io", "pc"),
        reads=("actor", "kind", "wanted", "thread", "io", "pc", "vm"),
    ),
)
LAB = Role("lab", service="lab", host="lab")
DEVICE = Role("device")
"""A device of a guest: the guest service calls the ultravisor as one, with the host's view of pages."""

ROLES = (ULTRAVISOR, HOST, GUEST, LAB, DEVICE)
"""In the order in which the services start."""
PARTS = tuple(role for role in ROLES if role.s390.writes)
"""The roles that share a folio group's state."""
OWNING = tuple(role.name for role in ROLES if role.owns)
"""The roles of which one replica owns a group (state.owner)."""
ROLE_OF_SERVICE = {role.service: role.name for role in ROLES if role.service}
ROLE_OF_ACTOR = {actor: role.name for role in ROLES for actor in role.runs}
"""Whose process runs the rules of each actor (Rule.actor)."""
