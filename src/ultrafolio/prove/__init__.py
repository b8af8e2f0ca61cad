"""Proofs of safety for every size of a system, by induction over the rules' own syntax trees. Needs the extra `prove`."""
