"""Running the rules: interpreted and compiled from one source, and the conformance suite that holds both to it."""
