"""Recordings of real programs, and the event record."""
