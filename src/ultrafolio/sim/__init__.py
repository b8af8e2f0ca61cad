"""The simulator: the rules with costs in time, workloads, wait queues and measures."""
