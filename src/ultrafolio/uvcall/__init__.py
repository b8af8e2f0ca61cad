"""Ultravisor control blocks, the table of calls, and boot images. No network."""
