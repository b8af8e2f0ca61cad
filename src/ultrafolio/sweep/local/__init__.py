"""Cells computed on this machine: forked processes, and which span of cells goes out next."""
