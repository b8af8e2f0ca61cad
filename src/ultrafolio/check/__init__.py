"""Every interleaving: the search, its symmetry, and the verdicts."""
