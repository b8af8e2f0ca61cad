"""Secrets of a cluster in containers: one folder per part, so that a container gets only its own.

    python -m services.launcher.keys FOLDER [--redis HOST:PORT] [--port PORT]

makes, readable by their owner only,

    FOLDER/ROLE     the role's Redis password, its certificate and key, and the authority's certificate
    FOLDER/worker   redis.url of the queue for the user `lab`; its username and password also alone
    FOLDER/redis    the server's aclfile
    FOLDER/admin    all of them; its redis.url has all rights, where.json has the addresses for scripts

Files that exist are not changed, so that containers can be restarted.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from urllib.parse import quote

import click

from services.launcher import certificates, users
from ultrafolio.errors import InputError
from ultrafolio.state import acl
from ultrafolio.state.roles import ROLES

URL_FILE = "redis.url"
WHERE_FILE = "where.json"


def hand_out(folder: Path, redis: str = "redis:6379", port: int = 50051) -> None:
    """Make the missing secrets in `folder`/admin, and copy to each part's folder its own.

    redis, port  HOST:PORT of the shared state in the containers; port of every service
    """
    everything = folder / "admin"
    passwords = users.keep(everything)
    if not (everything / "ca.crt").exists():
        certificates.make(everything)
    _give(everything, folder / "redis", users.ACL_FILE)
    for role in sorted(role.name for role in ROLES if role.service):
        # a guest service also acts for its devices
        names = (role, "device") if role == "guest" else (role,)
        certified = [f"{name}.{kind}" for name in names for kind in ("crt", "key")]
        _give(everything, folder / role, "ca.crt", f"{role}.password", *certified)
    # the lab's second user
    _give(everything, folder / "lab", f"{acl.KEEPER}.password")
    urls = {user: f"redis://{user}:{quote(passwords[user], safe='')}@{redis}/0" for user in ("lab", acl.ADMIN)}
    for part, user in (("worker", "lab"), ("lab", "lab"), ("admin", acl.ADMIN)):
        _write(folder / part / URL_FILE, urls[user])
    # KEDA reads username and password separately
    _write(folder / "worker" / "username", "lab")
    _write(folder / "worker" / "password", passwords["lab"])
    services = [{"service": role.service, "address": f"{role.host}:{port}"} for role in ROLES if role.service]
    # containers: a name stands for all replicas of a service
    where = {"services": services, "redis": urls[acl.ADMIN], "tls": str(folder / "lab"), "replicated": True}
    _write(everything / WHERE_FILE, json.dumps(where) + "\n")


def _give(source: Path, target: Path, *names: str) -> None:
    """Copy the named files from one folder to another, readable by the owner only."""
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copyfile(source / name, target / name)
        (target / name).chmod(0o600)


def _write(file: Path, text: str) -> None:
    """Write a file that only the owner can read."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)
    file.write_text(text, encoding="utf-8")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--redis", default="redis:6379", show_default=True, metavar="HOST:PORT", help="The shared state.")
@click.option("--port", type=click.IntRange(1, 65535), default=50051, show_default=True, help="Of every service.")
def main(folder: Path, redis: str, port: int) -> None:
    """Make the secrets of a cluster in FOLDER, one folder per part."""
    try:
        hand_out(folder, redis, port)
    except InputError as error:
        print(f"services.launcher.keys: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
