"""From a graph to verdicts: safety properties, leads-to, classes of waits, certified stories."""
