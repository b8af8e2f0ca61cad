"""The laboratory as a service: sweeps as jobs on the workers, and the cluster's groups and streams."""
