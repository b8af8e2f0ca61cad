"""The designs: s390, and guest_memfd. `of(state)` is the one of a state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from . import layout, properties, rules
from .design import Design
from .guest_memfd import blocks, convert, fault, guest, hole, machines, restructure, user, vmm
from .guest_memfd import layout as memfd
from .guest_memfd import properties as memfd_properties
from .guest_memfd.machines import content
from .guest_memfd.table import STEPS
from .layout import DISK, INTERRUPT, PIN, RING, SHARE, UNSHARE
from .rule import RULES
from .rules import folio, references, thread, unpin

LEADS_TO = (
    "touch leads to access", "unshare leads to secure", "pin leads to granted or refused", "writeback leads to ended",
)  # fmt: skip
"""The leads-to properties of s390: what an actor that has begun something owes."""


def _constants(module: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name.isupper()}


S390 = Design(
    name="s390",
    machines=("s390-uv",),
    rules=RULES,
    modules=(*rules.MODULES, properties),
    constants=_constants(layout),
    kinds=layout.ACTOR_KINDS,
    idle=layout.IDLE_PC,
    outcomes=layout.OUTCOMES,
    waits=layout.WAITS,
    properties=properties.PROPERTIES,
    first=0,
    in_state=((1, "io_on_secure"), (2, "bit_missing")),
    leads_to=LEADS_TO,
    devices=(DISK, RING, PIN, INTERRUPT),
    second=UNSHARE,
)
GUEST_MEMFD = Design(
    name="guest_memfd",
    machines=machines.NAMES,
    rules=STEPS,
    modules=(folio, thread, references, unpin, *machines.MODULES, content, blocks, fault, restructure, user, vmm,
             convert, hole, guest, memfd_properties),
    constants=_constants(memfd) | machines.facts(),
    kinds=memfd.KINDS,
    idle=memfd.IDLE_PC,
    outcomes=memfd.OUTCOMES,
    waits=memfd.WAITS,
    properties=memfd_properties.PROPERTIES,
    first=len(properties.PROPERTIES) - 1,
    in_state=((3, "used_by_host"), (4, "of_other_kind"), (5, "mapped_unallocated"), (6, "io_on_guests"),
              (8, "not_given_back")),
    leads_to=("fault leads to mapped or exit", "request leads to converted or told no",
              "pin leads to granted or refused"),
    devices=(DISK, PIN, memfd.SPLICE),
    second=SHARE,
    verbs=tuple(machines.dispatcher(verb) for verb in machines.VERBS),
)  # fmt: skip
OUTCOMES_END = max(len(design.outcomes) for design in (S390, GUEST_MEMFD))
"""One more than the highest outcome of a step of any design."""
PROPERTIES_END = max(len(design.properties) for design in (S390, GUEST_MEMFD))
"""One more than the highest number of a property of any design."""
DESIGNS = {design.name: design for design in (S390, GUEST_MEMFD)}
NUMBERS = {
    name: design.first + number
    for design in DESIGNS.values()
    for number, name in enumerate(design.properties)
    if number
}
"""Always-property of any design -> its number in documents."""


Made = TypeVar("Made")


class PerDesign(Generic[Made]):
    """A function of a design, called once for each; of s390, if it is called without one."""

    def __init__(self, function: Callable[[Design], Made]) -> None:
        self._function, self._made = function, dict[Design, Made]()
        self.__doc__ = function.__doc__

    def __call__(self, design: Design = S390) -> Made:
        if design not in self._made:
            self._made[design] = self._function(design)
        return self._made[design]

    def cache_clear(self) -> None:
        """Forget what was made."""
        self._made.clear()


def of(state: Any) -> Design:
    """Returns the design of a state, whatever form its records have."""
    return DESIGNS[getattr(type(state), "design", S390.name)]
