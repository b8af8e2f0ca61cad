"""Common to all services: settings, gRPC server, and the wrapper of every call."""
