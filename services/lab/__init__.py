"""The laboratory as a service: sweeps as jobs on the workers, and a look at what the cluster does."""
