"""Measure the costs of the model's steps on this machine, and compare the running kernel with the rules."""
