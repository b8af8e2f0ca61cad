"""The services: ultravisor, host MM, guest and lab, each a gRPC server; `python -m services` starts them all."""
