"""The Redis users' secrets, in files for the server and the services of a cluster.

    python -m services.launcher.users FOLDER

writes users.acl (for the server's `aclfile`) and ROLE.password for each user (for ULTRAFOLIO_REDIS_PASSWORD_FILE, and
admin.password for you), readable by their owner only. Existing passwords are not changed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from ultrafolio.errors import InputError
from ultrafolio.state import acl

ACL_FILE = "users.acl"


def keep(folder: Path) -> dict[str, str]:
    """Returns the passwords in `folder`; makes missing ones, and the aclfile with their hashes.

    Raises InputError if the folder cannot be read or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        passwords = acl.new_passwords()
        for user in passwords:
            file = password_file(folder, user)
            if file.exists():
                passwords[user] = file.read_text(encoding="utf-8").strip()
            else:
                _private(file, passwords[user] + "\n")
        _private(folder / ACL_FILE, acl.acl_file(passwords))
    except OSError as error:
        raise InputError(
            f"{folder}: the Redis users' files cannot be written",
            value=error.strerror or str(error),
            allowed="a folder that this user may write to",
        ) from None
    return passwords


def password_file(folder: Path, user: str) -> Path:
    """Returns the file with the password of `user`."""
    return folder / f"{user}.password"


def _private(file: Path, text: str) -> None:
    """Write a file that only the owner can read, whole or not at all."""
    part = file.with_name(file.name + ".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        out.write(text)
    os.replace(part, file)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def main(folder: Path) -> None:
    """Make the Redis users' passwords and the server's aclfile in FOLDER."""
    try:
        users = keep(folder)
    except InputError as error:
        print(f"services.launcher.users: {error}", file=sys.stderr)
        sys.exit(2)
    for file in (folder / ACL_FILE, *(password_file(folder, user) for user in users)):
        print(file)


if __name__ == "__main__":
    main()
