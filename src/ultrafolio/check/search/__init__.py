"""Exploration of every interleaving of a small system: packed states, hash tables, the breadth-first loop."""
