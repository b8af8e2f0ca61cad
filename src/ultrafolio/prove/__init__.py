"""Proofs of safety for every size of a system, by induction over the rules. Needs the extra `prove`."""

from ultrafolio.model.layout import MAPPING

WITHOUT = frozenset((MAPPING,))
"""Kinds of actors that no proof speaks of: with a second mapping property 5 fails under every policy (scenario 13)."""
