"""Layout of a group's state in a store: one value per section and owner, each with its own revision.

The sections are the arrays of a design's state, but records with fields of several roles are divided. In every design
the program counters (`pc`, which pass between guest and host) are apart from the threads, and each actor's record is in
the section of the role that takes its first step: `actor` those of vCPUs, and in s390 of devices and the reboot; `work`
those of the host's threads. In guest_memfd `wanted` are those of what the VMM does, threads are `thread`, since VMM and
kernel both write them, and `kind` is as which kind the guest uses each page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import msgspec
import numpy as np

from ultrafolio.model import designs, layout
from ultrafolio.model.design import Design
from ultrafolio.model.designs import DESIGNS, GUEST_MEMFD, S390, PerDesign
from ultrafolio.model.guest_memfd import layout as memfd
from ultrafolio.model.layout import State

from .roles import PARTS, Touched

Array = np.ndarray[Any, Any]

SEAL = np.dtype([("counter", np.uint64), ("slot", np.uint8), ("nonce", "V12"), ("tag", "V16")])
LARGEST_GROUP = 16_384
"""Most pages of one folio group, 64 MiB: every reader holds a group whole."""
_OF_ACTORS = {"guest": "actor", "device": "actor", "vmm": "wanted", "host": "work", "fault": "work"}
"""Who takes an actor's first step (Rule.actor) -> the section of its record of `actor`."""
_ALONE = {
    S390.name: {("task", "pc"): "pc"},
    GUEST_MEMFD.name: {("task", "pc"): "pc", ("uv", "shared"): "kind"},
}
"""Per design: (array, field) that is a section of its own."""
_RENAMED = {GUEST_MEMFD.name: {"task": "thread"}}
_STATES: dict[str, tuple[type[State], Mapping[str, np.dtype[Any]]]] = {
    S390.name: (State, layout.SECTIONS),
    GUEST_MEMFD.name: (memfd.MemfdState, memfd.SECTIONS),
}
"""Per design: the class of its states, and the records of its arrays."""


@dataclass(frozen=True)
class Sections:
    """The stored sections of a design.

    state    class of its states;  records: of each array
    dtypes   records of each stored section. `seal` is not in the model: the ultravisor's records of exported pages
    arrays   section -> the array of the state that it is of
    alone    (array, field) -> the section of that field alone; in the array's other section it is 0
    whole    array -> that other section
    kinds    per kind of actors, the section with their records of `actor`; "" for a number that is no kind
    touched  per role, which sections it touches
    """

    state: type[State]
    records: Mapping[str, np.dtype[Any]]
    dtypes: Mapping[str, np.dtype[Any]]
    arrays: Mapping[str, str]
    alone: Mapping[tuple[str, str], str]
    whole: Mapping[str, str]
    kinds: tuple[str, ...]
    touched: Mapping[str, Touched]

    def section(self, array: str, field: str, kind: int) -> str:
        """Returns the section of a field of a record; kind: that of the actor whose record it is, if it is one's."""
        if array == "actor":
            return self.of_kind(kind)
        return self.alone.get((array, field)) or self.whole[array]

    def of_kind(self, kind: int) -> str:
        """Returns the section with the records of `actor` of this kind. One that no design numbers is the host's."""
        return self.kinds[kind] if kind < len(self.kinds) else "work"

    def field(self, section: str) -> str:
        """Returns the field that a section has alone, "" if it has whole records."""
        return self._fields.get(section, "")

    @cached_property
    def _fields(self) -> dict[str, str]:
        """Section that a field has alone -> the field."""
        return {name: field for (_, field), name in self.alone.items()}

    def cut(self, section: str, state: State, kinds: Array, at: slice = slice(None)) -> Array:
        """Returns the records `at` of a section, from a state whose actors are of these kinds."""
        array, field = self.arrays[section], self.field(section)
        found = getattr(state, array)[at]
        made = np.zeros(len(found), self.dtypes[section])
        if field:
            made[field] = found[field]
            return made
        mine = self._mine(section, kinds)[at] if array == "actor" else slice(None)
        made[mine] = found[mine]
        for name in self._elsewhere(section):
            made[name] = 0
        return made

    def enter(self, section: str, data: Array, state: State, kinds: Array) -> None:
        """Write the data of a section into the arrays of a state; the inverse of `cut`."""
        array, field = getattr(state, self.arrays[section]), self.field(section)
        elsewhere = self._elsewhere(section)
        if field or elsewhere:
            for name in (field,) if field else data.dtype.names or ():
                if name not in elsewhere:
                    array[name] = data[name]
            return
        mine = self._mine(section, kinds) if self.arrays[section] == "actor" else slice(None)
        array[mine] = data[mine]

    def _elsewhere(self, section: str) -> list[str]:
        """Returns the fields of a section's records that other sections have alone."""
        if self.field(section):
            return []
        return [field for array, field in self.alone if array == self.arrays[section]]

    def _mine(self, section: str, kinds: Array) -> Array:
        """Returns, per actor, whether its record of `actor` is in this section."""
        return np.array([self.of_kind(kind) == section for kind in kinds], bool)


@PerDesign
def sections(design: Design) -> Sections:
    """Returns the stored sections of a design."""
    state, records = _STATES[design.name]
    alone, renamed = _ALONE[design.name], _RENAMED.get(design.name, {})
    kinds = tuple(_OF_ACTORS[design.rules[pc].actor] if pc in design.rules else "" for pc in design.idle)
    arrays = {renamed.get(name, name): name for name in records if name not in ("cfg", "who", "actor")}
    arrays |= {section: array for (array, _), section in alone.items()} | {name: "actor" for name in kinds if name}
    dtypes = {section: records[array] for section, array in arrays.items()}
    for (array, field), section in alone.items():
        dtypes[section] = np.dtype([(field, records[array][field])])
    if design is S390:
        dtypes["seal"] = SEAL
    whole = {array: section for section, array in arrays.items() if section not in alone.values()}
    return Sections(
        state, records, dtypes, arrays, alone, whole, kinds, {role.name: role.of(design.name) for role in PARTS}
    )


class Meta(NamedTuple):
    """Constants of a group: policy, parameters, actors, the choices of each, origin.

    cfg, who   arrays of the design's CFG and WHO
    vms        number of records of virtual machines
    origin     absolute address of page 0, bytes
    scenario   name of its scenario, for display
    named      its design
    """

    cfg: Array
    who: Array
    vms: int
    choices: list[list[tuple[int, int]]]
    origin: int
    scenario: str
    named: str = S390.name

    @property
    def design(self) -> Design:
        return DESIGNS[self.named]

    @property
    def sections(self) -> Sections:
        return sections(self.design)

    def blank(self, section: str) -> Array:
        """Returns a zeroed section of this group's size."""
        made = self.sections
        return np.zeros(self._length(made.arrays.get(section, section)), made.dtypes[section])

    def size(self, section: str) -> int:
        """Returns the bytes of a section of this group."""
        made = self.sections
        return self._length(made.arrays.get(section, section)) * made.dtypes[section].itemsize

    def blank_state(self) -> State:
        """Returns a state of this group's size, of zeroed arrays beside its constants."""
        made = self.sections
        zeros = {name: np.zeros(self._length(name), dtype) for name, dtype in made.records.items()}
        return made.state(**{**zeros, "cfg": self.cfg, "who": self.who})

    def _length(self, array: str) -> int:
        """Returns the number of records of an array."""
        config = self.cfg[0]
        of = {"vm": self.vms, "task": int(config["actors"]), "actor": int(config["actors"])}
        return of.get(array, int(config["pages"]))

    def is_guest(self, kind: int) -> bool:
        """Whether the guest service takes the first step of actors of this kind."""
        return self.sections.of_kind(kind) in ("actor", "wanted")


def every_section() -> tuple[str, ...]:
    """Returns the names of the stored sections of all designs."""
    return tuple(dict.fromkeys(name for design in DESIGNS.values() for name in sections(design).dtypes))


def of_state() -> list[str]:
    """Returns the names of the stored sections of a group, of any design, that `join` makes a state of, and `meta`."""
    return ["meta", *(name for name in every_section() if name != "seal")]


def split(state: State) -> dict[str, bytes]:
    """Returns the sections of a state as bytes, without `seal`."""
    made = sections(designs.of(state))
    return {name: made.cut(name, state, state.who["kind"]).tobytes() for name in made.arrays}


def join(meta: Meta, stored: Mapping[str, bytes]) -> State:
    """Returns the state of sections as bytes, the inverse of `split`. Missing sections are zero."""
    made, state = meta.sections, meta.blank_state()
    for name in made.arrays:
        if name in stored:
            made.enter(name, np.frombuffer(stored[name], made.dtypes[name]), state, meta.who["kind"])
    return state


class _Meta(msgspec.Struct, array_like=True):
    cfg: bytes
    who: bytes
    vms: int
    choices: list[list[tuple[int, int]]]
    origin: int
    scenario: str
    named: str = S390.name


def encode_meta(meta: Meta) -> bytes:
    """Returns the constants as bytes, the inverse of `decode_meta`."""
    return msgspec.msgpack.encode(_Meta(meta.cfg.tobytes(), meta.who.tobytes(), *meta[2:]))


def decode_meta(data: bytes) -> Meta:
    """Returns the constants in these bytes. Raises msgspec.DecodeError or ValidationError if they are none."""
    made = msgspec.msgpack.decode(data, type=_Meta)
    return constants(made.named, made.cfg, made.who)._replace(
        vms=made.vms, choices=made.choices, origin=made.origin, scenario=made.scenario
    )


def constants(named: str, cfg: bytes, who: bytes) -> Meta:
    """Returns the constants of a group of this design with these records. Raises ValueError if they are not whole
    records, or there is no such design."""
    if named not in DESIGNS:
        raise ValueError(f"design {named!r}, of {', '.join(DESIGNS)}")
    records = sections(DESIGNS[named]).records
    made = [np.frombuffer(data, records[name]).copy() for name, data in (("cfg", cfg), ("who", who))]
    return Meta(made[0], made[1], 0, [], 0, "", named)


def meta_of_state(state: State, choices: list[list[tuple[int, int]]], scenario: str) -> Meta:
    """Returns the constants of a group that begins in this state."""
    return Meta(state.cfg, state.who, len(state.vm), choices, 0, scenario, designs.of(state).name)
