"""What a plan's file has beside definitions. Importing this loads nothing else."""

STRUCTURE = ("title", "design", "fixed", "grid", "skip")
ASKED = "asks"
"""The name under which a plan that `ultrafolio search` writes says what it asks."""
