"""Waits: what stands in the way of an actor, who holds it, and which step would release it. One definition for all."""
