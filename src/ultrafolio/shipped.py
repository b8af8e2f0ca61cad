"""What is shipped with the package: scenarios, plans, profiles, recordings. In a checkout they are its folders."""

from __future__ import annotations

from pathlib import Path

FOLDERS = ("scenarios", "sweeps", "profiles", "traces")


def root() -> Path:
    """The folder that holds FOLDERS: `data` of an installed package, or the checkout that this package lies in."""
    here = Path(__file__).parent
    return here / "data" if (here / "data").is_dir() else here.parent.parent


def shipped(folder: str) -> list[Path]:
    """The TOML files of a shipped folder, by name; those of the folder here, if this is a checkout or a copy of it."""
    here = sorted(Path(folder).glob("*.toml"))
    return here or sorted((root() / folder).glob("*.toml"))


def found(path: Path, folder: str) -> Path:
    """The file at `path`; where none is there and it is a bare name such as 03-virtio, the shipped one of this name. A
    path that leads nowhere is returned as it is."""
    if path.exists() or path.parent != Path():
        return path
    by_name = {file.stem: file for file in shipped(folder)}
    return by_name.get(path.name.removesuffix(".toml"), path)
