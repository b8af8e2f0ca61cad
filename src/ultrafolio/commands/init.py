"""`ultrafolio init`: the shipped scenarios, plans, profiles and recordings as files to edit."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import click

from ultrafolio import shipped
from ultrafolio.errors import InputError
from ultrafolio.nouns import plural


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def init(folder: Path, as_json: bool) -> int:
    """Copy the shipped scenarios, plans, profiles and recordings to FOLDER, to edit and run there.

    Nothing that exists is written over: FOLDER must be new or empty.

    \b
    ultrafolio init my-lab

    Exit codes: 0 done, 2 bad input.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InputError(
            f"{folder}: not empty",
            allowed="a new or an empty folder",
            cause="what stands there is not written over",
            then=f"ultrafolio init {folder}/lab",
        )
    new = not folder.exists()
    part = (folder.parent if new else folder) / f".init-{os.getpid()}"
    try:
        for name in shipped.FOLDERS:
            # pip compiles the programs among the recordings
            shutil.copytree(shipped.root() / name, part / name, ignore=shutil.ignore_patterns("__pycache__"))
        if new:
            part.rename(folder)
        else:
            for name in shipped.FOLDERS:
                (part / name).rename(folder / name)
    except OSError as error:
        # shutil.Error has no errno; its argument is a list of (from, to, reason)
        why = error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror
        raise InputError(
            f"{folder}: cannot be written",
            value=why,
            allowed="a folder with 6 MB of free space",
            cause="the disk is full, or the folder is somebody else's",
            then="make room, or name another folder",
        ) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    files = sum(1 for path in folder.rglob("*") if path.is_file())
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "files": files}))
    else:
        click.echo(f"{plural(files, 'file')} in {folder}; next: cd {folder} && ultrafolio check 03-virtio")
    return 0
