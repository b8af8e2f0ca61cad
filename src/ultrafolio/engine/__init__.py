"""Execution of the rules: interpreted and compiled from one source."""
