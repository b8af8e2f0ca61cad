"""Proofs of safety for every size of a system, by induction over the rules. Needs the extra `prove`."""

from collections.abc import Collection

from ultrafolio.model.design import Design
from ultrafolio.model.designs import S390
from ultrafolio.model.layout import MAPPING

WITHOUT = frozenset((MAPPING,))
"""Kinds of actors that no proof speaks of: with a second mapping property 5 fails under every policy (scenario 13)."""


def without(design: Design) -> frozenset[int]:
    """The kinds of actors of a design that no proof speaks of."""
    return WITHOUT if design is S390 else frozenset(n for n, name in enumerate(design.kinds) if not name)


def all_but(names: Collection[str], design: Design = S390) -> frozenset[int]:
    """The kinds of actors that are left out where only those of these names act; WITHOUT is always left out."""
    return without(design) | {number for number, name in enumerate(design.kinds) if name not in names}
