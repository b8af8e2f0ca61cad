"""Starts a cluster on one machine, makes its secrets, applies an operator's decision after lost writes."""
