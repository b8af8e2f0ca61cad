"""The systems of guest_memfd that one proof is about: a policy on a machine, with single pages or with huge pages."""

from __future__ import annotations

from ultrafolio.model.guest_memfd.layout import UP_TO_DATE
from ultrafolio.model.guest_memfd.machines import NAMES
from ultrafolio.model.guest_memfd.policy import MemfdPolicy

SINGLE = {"mm.order": 0, "pt.large": 0, "uv.large": 0, "mm.stale": UP_TO_DATE}
"""Fields of a page that have one value in every state of a system without huge pages; a rule that sets another one is
refused."""
ASSUMED = {"uv.refuses": 0, "uv.never": 0}
"""Fields that a proof takes for 0: the hardware gives every page back, and takes every page."""
NO_RACE = {"uv.pamt": 0}
"""The same of systems with huge pages, where no rule sets it to anything else."""


def configuration(policy: MemfdPolicy, machine: str, huge: bool = False) -> dict[str, int]:
    """The fields of the configuration, and those of pages that have one value, under a policy on a machine.

    huge: every page is in a huge page, of any one order. The field `block` is 1 then, and stands for that order.
    """
    if not huge:
        return policy.codes() | {"machine": NAMES.index(machine), "block": 0} | SINGLE | ASSUMED
    made = policy.codes() | {"machine": NAMES.index(machine), "block": 1} | ASSUMED
    return made if made["pamt_race"] else made | NO_RACE
