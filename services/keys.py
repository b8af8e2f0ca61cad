"""The secrets of a cluster in containers, one folder per role, so that each container is given its own only.

    python -m services.keys FOLDER

makes FOLDER/ROLE with the role's Redis password and its certificate and key, FOLDER/redis with the server's aclfile, and
FOLDER/admin with everything. What is there already stays, so that containers can be started again.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from services import certificates, users
from services.serve import ROLE
from ultrafolio.errors import InputError


def hand_out(folder: Path) -> None:
    """Make what is missing in `folder`/admin, and give each role what is its own."""
    everything = folder / "admin"
    users.keep(everything)
    if not (everything / "ca.crt").exists():
        certificates.make(everything)
    _give(everything, folder / "redis", users.ACL_FILE)
    for role in sorted(set(ROLE.values())):
        # a guest service speaks for its devices, too
        names = (role, "device") if role == "guest" else (role,)
        certified = [f"{name}.{kind}" for name in names for kind in ("crt", "key")]
        _give(everything, folder / role, "ca.crt", f"{role}.password", *certified)


def _give(source: Path, target: Path, *names: str) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copyfile(source / name, target / name)
        (target / name).chmod(0o600)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    """Make the secrets of a cluster in FOLDER, one folder per role."""
    try:
        hand_out(folder)
    except InputError as error:
        print(f"services.keys: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
