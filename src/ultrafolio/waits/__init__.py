"""Waits: the obstacles of an actor, their holders, and the releasing step. The one definition for all engines."""
