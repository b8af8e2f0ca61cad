"""Health probe for containers and scripts: exit code 0 if a service is SERVING, 1 if not.

python -m services.common.probe 127.0.0.1:50051 [--tls FOLDER --role host]
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ultrafolio.errors import InputError
from ultrafolio.rpc.client import Tls, connect


def serving(address: str, tls: Tls | None = None, *, timeout_s: float = 2.0) -> bool:
    """Whether the service at `address` reports SERVING. Raises InputError on a timeout or a malformed address."""
    with connect(address, "lab", tls=tls, timeout_s=timeout_s, retry=False) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest())
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@click.command()
@click.argument("address")
@click.option("--tls", type=click.Path(path_type=Path), help="Folder of services.launcher.certificates.")
@click.option("--role", default="lab", show_default=True, help="Whose certificate to show.")
def main(address: str, tls: Path | None, role: str) -> None:
    """Ask the service at ADDRESS (host:port) whether it is serving."""
    try:
        yes = serving(address, Tls.read(tls, role) if tls else None)
    except InputError as error:
        print(f"services.common.probe: {error}", file=sys.stderr)
        sys.exit(1)
    print("SERVING" if yes else "NOT_SERVING")
    sys.exit(0 if yes else 1)


if __name__ == "__main__":
    main()
