"""Client of a whole cluster: channels to its services, layout of folio groups, single steps.

with Cluster.at(where) as cluster:          # the JSON line that `python -m services --json` prints
    cluster.lay_out("mine", system, "title")
    cluster.guest.Touch(guest_pb2.TouchRequest(group="mine", actor=0, page=1))
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
import numpy as np

from ultrafolio.errors import InputError
from ultrafolio.model.design import Design
from ultrafolio.model.designs import S390
from ultrafolio.model.layout import EXPORTED, State
from ultrafolio.model.scenario import System
from ultrafolio.state.redis import RedisStore
from ultrafolio.state.roles import HOST, OWNING, PARTS, ROLE_OF_ACTOR
from ultrafolio.state.sections import decode_meta, join, meta_of_state, of_state, split
from ultrafolio.state.turn import Done

from . import replicas
from .client import Tls, connect, request_id
from .messages import meta_to, step_from
from .v1 import (
    guest_pb2,
    guest_pb2_grpc,
    host_mm_pb2,
    host_mm_pb2_grpc,
    lab_pb2_grpc,
    ultravisor_pb2,
    ultravisor_pb2_grpc,
)

ROLES = {role.service: role.name for role in PARTS}


class Cluster:
    """addresses: host:port of ultravisor, host_mm, guest and optionally lab;  redis: URL with all rights, for `state`.

    role: the client's role; `lab` may lay out groups and give orders to guests
    replicated: whether ultravisors and host MMs share the groups: all of theirs, with , between (rpc.replicas)
    """

    def __init__(
        self,
        addresses: Mapping[str, str],
        redis: str = "",
        *,
        tls: Tls | None = None,
        role: str = "lab",
        replicated: bool = False,
    ) -> None:
        self._channels: dict[str, grpc.Channel] = {
            name: (replicas.connect if replicated and server in OWNING else connect)(
                addresses[name], role, tls=tls, server=server
            )
            for name, server in ROLES.items()
        }
        self.ultravisor = ultravisor_pb2_grpc.UltravisorServiceStub(self._channels["ultravisor"])
        self.host = host_mm_pb2_grpc.HostMmServiceStub(self._channels["host_mm"])
        self.guest = guest_pb2_grpc.GuestServiceStub(self._channels["guest"])
        if "lab" in addresses:
            self._channels["lab"] = connect(addresses["lab"], role, tls=tls, server="lab")
            self.lab = lab_pb2_grpc.LabServiceStub(self._channels["lab"])
        self.store = RedisStore(redis, "admin") if redis else None

    @classmethod
    def at(cls, where: Mapping[str, Any], *, role: str = "lab") -> Cluster:
        """Returns the client for the JSON object that `python -m services --json` prints."""
        addresses = {part["service"]: part["address"] for part in reversed(where["services"])}
        replicated = bool(where.get("replicated"))
        for name in (name for name, server in ROLES.items() if replicated and server in OWNING):
            addresses[name] = ",".join(part["address"] for part in where["services"] if part["service"] == name)
        tls = Tls.read(Path(where["tls"]), role) if where.get("tls") else None
        return cls(addresses, where.get("redis", ""), tls=tls, role=role, replicated=replicated)

    def lay_out(self, group: str, system: System, title: str = "") -> int:
        """Lay out a folio group in the system's initial state, in every service. Returns the address of its page 0."""
        return self.lay_out_state(group, system.state, system.choices, title)

    def lay_out_state(self, group: str, state: State, choices: list[list[tuple[int, int]]], title: str = "") -> int:
        """As `lay_out`, for any state and the actors' choices. Raises InputError if the name is used."""
        meta = meta_of_state(state, choices, title)
        parts, touched = split(state), meta.sections.touched
        # of a section with two writers the guest lays out the first content
        mine = {"guest": {name: parts[name] for name in touched["guest"].writes}}
        mine["host"] = {name: parts[name] for name in touched["host"].writes if name not in mine["guest"]}
        made = self.host.Prepare(
            host_mm_pb2.HostMmServicePrepareRequest(group=group, meta=meta_to(meta), sections=mine["host"])
        )
        altered: list[int] = []
        if meta.design is S390:
            altered = np.flatnonzero((state.uv["state"] == EXPORTED) & (state.mm["altered"] > 0)).tolist()
        self.ultravisor.Prepare(
            ultravisor_pb2.UltravisorServicePrepareRequest(group=group, uv=parts["uv"], altered=altered)
        )
        self.guest.Prepare(guest_pb2.GuestServicePrepareRequest(group=group, sections=mine["guest"]))
        return int(made.origin)

    def step(self, group: str, pc: int, actor: int, op: int = 0, page: int = 0, design: Design = S390) -> Done:
        """Take one step of an actor whose next rule is `pc`, in the service that runs that rule of the group's
        design."""
        identifier = request_id()
        if ROLE_OF_ACTOR[design.rules[pc].actor] == HOST.name:
            asked = host_mm_pb2.HostMmServiceStepRequest(
                group=group, actor=actor, op=op, page=page, request_id=identifier
            )
            return step_from(self.host.Step(asked).step, design)
        wanted = guest_pb2.GuestServiceStepRequest(group=group, actor=actor, op=op, page=page, request_id=identifier)
        return step_from(self.guest.Step(wanted).step, design)

    def state(self, group: str) -> State:
        """Returns a group's present state, all sections. Raises InputError if it is not readable or absent."""
        if self.store is None:
            raise InputError(
                "state of a group",
                allowed="a Redis URL with all rights",
                cause="none was given",
                then="python -m services --json prints one",
            )
        sections = self.store.read(group, of_state())
        if "meta" not in sections:
            raise InputError("folio group", value=group, allowed=", ".join(self.store.groups()) or "none is there")
        return join(decode_meta(sections.pop("meta")), sections)

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()
        if self.store:
            self.store.close()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
