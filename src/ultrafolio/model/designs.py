"""The designs: s390, and guest_memfd. `of(state)` is the one of a state."""

from __future__ import annotations

from typing import Any

from . import layout, properties, rules
from .design import Design
from .guest_memfd import convert, fault, guest, user, vmm
from .guest_memfd import layout as memfd
from .guest_memfd import properties as memfd_properties
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
    machines=("software",),
    rules=STEPS,
    modules=(folio, thread, references, unpin, fault, user, vmm, convert, guest, memfd_properties),
    constants=_constants(memfd),
    kinds=memfd.KINDS,
    idle=memfd.IDLE_PC,
    outcomes=memfd.OUTCOMES,
    waits=memfd.WAITS,
    properties=memfd_properties.PROPERTIES,
    first=len(properties.PROPERTIES) - 1,
    in_state=((3, "used_by_host"), (4, "of_other_kind")),
    leads_to=("fault leads to mapped or exit", "request leads to converted or told no",
              "pin leads to granted or refused"),
    devices=(DISK, PIN),
    second=SHARE,
)  # fmt: skip
DESIGNS = {design.name: design for design in (S390, GUEST_MEMFD)}


def of(state: Any) -> Design:
    """Returns the design of a state, whatever form its records have."""
    return DESIGNS[getattr(type(state), "design", S390.name)]
