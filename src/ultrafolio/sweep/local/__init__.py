"""Cells computed on this machine: a pool of forked processes, and the schedule of spans."""
