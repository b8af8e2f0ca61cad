"""The shipped scenarios, plans, profiles and recordings: in a checkout its folders, else ``data`` in the package."""

from __future__ import annotations

import difflib
from pathlib import Path

FOLDERS = ("scenarios", "sweeps", "profiles", "traces")


def root() -> Path:
    """The folder that holds FOLDERS: `data` of an installed package, or the checkout."""
    here = Path(__file__).parent
    return here / "data" if (here / "data").is_dir() else here.parent.parent


def shipped(folder: str, *, below: bool = False) -> list[Path]:
    """The TOML files of a shipped folder, sorted by name; those of the current directory's folder if it has one.

    below: and those of its folders, one for each design but s390, behind the others
    """
    base = Path(folder) if any(Path(folder).glob("*.toml")) else root() / folder
    return sorted(base.glob("*.toml")) + (sorted(base.glob("*/*.toml")) if below else [])


def names(folder: str) -> list[str]:
    """The bare names of all shipped files of a folder."""
    return [file.stem for file in shipped(folder, below=True)]


def found(path: Path, folder: str) -> Path:
    """The file at `path`; if it does not exist, the shipped file of a bare name such as 03-virtio, or of a path such as
    scenarios/03-virtio.toml where the current directory has no such folder. Otherwise `path` itself."""
    if path.exists():
        return path
    if path.parent != Path():
        there = root() / path
        inside = path.parts[0] == folder and ".." not in path.parts and not Path(folder).exists()
        return there if inside and there.exists() else path
    by_name = {file.stem: file for file in shipped(folder, below=True)}
    return by_name.get(path.name.removesuffix(".toml"), path)


def name_of(path: Path, folder: str) -> str:
    """What to type for the file at `path`, which need not exist: the bare name where that means this very file and the
    current directory has not the folder itself, else the path."""
    file = path.absolute()
    here = file.parent == Path(folder).absolute()
    return path.stem if not here and found(Path(path.stem), folder).absolute() == file else str(path)


def why_absent(path: Path) -> str:
    """The likely cause why there is no file at `path`, in words: a shipped file's name mistyped, a folder that is not
    there, or another current directory."""
    known = [name for folder in FOLDERS for name in names(folder)]
    near = difflib.get_close_matches(path.name.removesuffix(".toml"), known, n=1)
    if near:
        return f"did you mean {near[0]!r}, which is shipped?"
    if path.parent.exists():
        return "a path is relative to where you are"
    return f"there is no folder {path.parent}; a path is relative to where you are"
