"""The model in Promela, for SPIN: a second opinion on the checker. `program.export` makes the text."""
