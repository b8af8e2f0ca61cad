"""The shipped scenarios, plans, profiles and recordings: in a checkout its folders, else ``data`` in the package."""

from __future__ import annotations

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


def found(path: Path, folder: str) -> Path:
    """The file at `path`; if it does not exist and `path` is a bare name such as 03-virtio, the shipped file of this
    name. Otherwise `path` itself."""
    if path.exists() or path.parent != Path():
        return path
    by_name = {file.stem: file for file in shipped(folder, below=True)}
    return by_name.get(path.name.removesuffix(".toml"), path)
