"""The shipped scenarios, plans, profiles and recordings: in a checkout its folders, else ``data`` in the package."""

from __future__ import annotations

from pathlib import Path

FOLDERS = ("scenarios", "sweeps", "profiles", "traces")


def root() -> Path:
    """The folder that holds FOLDERS: `data` of an installed package, or the checkout."""
    here = Path(__file__).parent
    return here / "data" if (here / "data").is_dir() else here.parent.parent


def shipped(folder: str) -> list[Path]:
    """The TOML files of a shipped folder, sorted by name; those of the current directory's folder if it has one."""
    here = sorted(Path(folder).glob("*.toml"))
    return here or sorted((root() / folder).glob("*.toml"))


def found(path: Path, folder: str) -> Path:
    """The file at `path`; if it does not exist, the shipped file of a bare name such as 03-virtio, or of a path such as
    scenarios/03-virtio.toml where the current directory has no such folder. Otherwise `path` itself."""
    if path.exists():
        return path
    if path.parent != Path():
        there = root() / path
        inside = path.parts[0] == folder and ".." not in path.parts and not Path(folder).exists()
        return there if inside and there.exists() else path
    by_name = {file.stem: file for file in shipped(folder)}
    return by_name.get(path.name.removesuffix(".toml"), path)
