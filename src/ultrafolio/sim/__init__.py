"""The rules in time: costs, workloads, wait-for graph, measures."""
