"""Proofs of safety for every size of a system, by induction over the rules. Needs the extra `prove`."""
