"""The model in Promela, for SPIN: an independent check of the checker. `program.export` returns the text."""
