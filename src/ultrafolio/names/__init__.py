"""Names by pattern: a scenario of one obstacle is named by its obstacle, and where it meets it."""
