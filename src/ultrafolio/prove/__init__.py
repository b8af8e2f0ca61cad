"""Proofs of safety for every size of a system, by induction over the rules. Needs the extra `prove`."""

from collections.abc import Collection

from ultrafolio.model.layout import ACTOR_KINDS, MAPPING

WITHOUT = frozenset((MAPPING,))
"""Kinds of actors that no proof speaks of: with a second mapping property 5 fails under every policy (scenario 13)."""


def all_but(names: Collection[str]) -> frozenset[int]:
    """The kinds of actors that are left out where only those of these names act; WITHOUT is always left out."""
    return WITHOUT | {number for number, name in enumerate(ACTOR_KINDS) if name not in names}
