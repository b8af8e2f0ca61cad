"""Layout of a group's state in a store: one value per section and owner, each with its own revision.

The sections are those of model.layout, but two records with fields of several roles are divided: the program counters
(`pc`, which pass between guest and host) are apart from the threads, and each actor's record is in the section of the
role that runs it (`actor`: vCPUs, devices and the reboot; `work`: the host's threads).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np

from ultrafolio.engine.tables import guest_kinds
from ultrafolio.model.layout import (
    ACTOR,
    CFG,
    IO,
    MM,
    PT,
    TASK,
    UV,
    VM,
    WHO,
    State,
)

from .roles import PARTS

Array = np.ndarray[Any, Any]

PC = np.dtype([("pc", TASK["pc"])])
SEAL = np.dtype([("counter", np.uint64), ("slot", np.uint8), ("nonce", "V12"), ("tag", "V16")])
DTYPES: dict[str, np.dtype[Any]] = {
    "uv": UV,
    "seal": SEAL,
    "mm": MM,
    "vm": VM,
    "task": TASK,
    "work": ACTOR,
    "pt": PT,
    "pc": PC,
    "actor": ACTOR,
    "io": IO,
}
"""Every stored section. `seal` is not in the model: the ultravisor's records of exported pages' contents."""

MAY_WRITE = {role.name: role.writes for role in PARTS}
"""Which role writes which sections (state.roles)."""
MAY_READ = {role.name: role.reads for role in PARTS}
"""What a role reads."""
MAY_LOOK = {role.name: role.looks for role in PARTS if role.looks}
"""What a role's service reads beside, and none of its rules does."""
LARGEST_GROUP = 16_384
"""Most pages of one folio group, 64 MiB: every reader holds a group whole."""
PER_ACTOR = ("task", "work", "pc", "actor")
GUEST_KINDS = guest_kinds()


class Meta(NamedTuple):
    """Constants of a group: policy, parameters, actors, the choices of each, origin.

    cfg, who   arrays of layout.CFG and WHO
    vms        number of records of virtual machines
    origin     absolute address of page 0, bytes
    scenario   name of its scenario, for display
    """

    cfg: Array
    who: Array
    vms: int
    choices: list[list[tuple[int, int]]]
    origin: int
    scenario: str

    def blank(self, section: str) -> Array:
        """Returns a zeroed section of this group's size."""
        config = self.cfg[0]
        pages, actors = int(config["pages"]), int(config["actors"])
        records = self.vms if section == "vm" else actors if section in PER_ACTOR else pages
        return np.zeros(records, DTYPES[section])


def is_guest(kind: int) -> bool:
    """Whether the guest service runs actors of this kind."""
    return kind in GUEST_KINDS


def split(state: State) -> dict[str, bytes]:
    """Returns the sections of a state as bytes, without `seal`."""
    mine = np.isin(state.who["kind"], GUEST_KINDS)
    task, actor, work = state.task.copy(), state.actor.copy(), state.actor.copy()
    task["pc"] = 0
    actor[~mine], work[mine] = 0, 0
    pc = state.task["pc"].astype(PC)
    sections = {
        "uv": state.uv,
        "mm": state.mm,
        "vm": state.vm,
        "task": task,
        "work": work,
        "pt": state.pt,
        "pc": pc,
        "actor": actor,
        "io": state.io,
    }
    return {name: array.tobytes() for name, array in sections.items()}


def join(meta: Meta, sections: Mapping[str, bytes]) -> State:
    """Returns the state of sections as bytes, the inverse of `split`. Missing sections are zero."""
    array = {
        name: np.frombuffer(sections[name], DTYPES[name]).copy() if name in sections else meta.blank(name)
        for name in DTYPES
    }
    task, actor = array["task"], array["actor"]
    task["pc"] = array["pc"]["pc"]
    mine = np.isin(meta.who["kind"], GUEST_KINDS)
    actor[~mine] = array["work"][~mine]
    return State(
        cfg=meta.cfg,
        who=meta.who,
        uv=array["uv"],
        mm=array["mm"],
        vm=array["vm"],
        task=task,
        actor=actor,
        io=array["io"],
        pt=array["pt"],
    )


class _Meta(msgspec.Struct, array_like=True):
    cfg: bytes
    who: bytes
    vms: int
    choices: list[list[tuple[int, int]]]
    origin: int
    scenario: str


def encode_meta(meta: Meta) -> bytes:
    """Returns the constants as bytes, the inverse of `decode_meta`."""
    return msgspec.msgpack.encode(
        _Meta(meta.cfg.tobytes(), meta.who.tobytes(), meta.vms, meta.choices, meta.origin, meta.scenario)
    )


def decode_meta(data: bytes) -> Meta:
    """Returns the constants in these bytes. Raises msgspec.DecodeError or ValidationError if they are none."""
    made = msgspec.msgpack.decode(data, type=_Meta)
    cfg, who = np.frombuffer(made.cfg, CFG).copy(), np.frombuffer(made.who, WHO).copy()
    return Meta(cfg, who, made.vms, made.choices, made.origin, made.scenario)
