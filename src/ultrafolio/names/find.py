"""The scenario that a word means: a file, a shipped scenario, or a name by pattern; or the plan of a simulation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ultrafolio import shipped
from ultrafolio.fields import read_toml
from ultrafolio.model import scenario

from . import grammar, short


def found(path: Path) -> scenario.Scenario:
    """The scenario of a file, TOML or with the suffix .uf the short form, of a shipped one's name such as 03-virtio, or
    of a name such as LPIN+neigh, in this order. Raises InputError for none."""
    file = shipped.found(path, "scenarios")
    if not file.exists() and grammar.is_name(str(path)):
        return grammar.scenario(grammar.read(str(path)))
    return short.read(file) if file.suffix == short.SUFFIX else scenario.read(file)


def simulated(path: Path) -> tuple[scenario.Scenario | None, Path, dict[str, Any]]:
    """What `run` simulates: (a scenario as found() has it, its file or name, {}), or (None, the file, the tables) of a
    plan, also a shipped one's name such as seed. Raises InputError for neither."""
    file = shipped.found(path, "scenarios")
    if file.suffix == short.SUFFIX or (not file.exists() and grammar.is_name(str(path))):
        return found(path), file, {}
    file = file if file.exists() else shipped.found(path, "sweeps")
    document = read_toml(file)
    return (scenario.parse(document, str(file)), file, {}) if "memory" in document else (None, file, document)


def stem(text: str) -> str:
    """The name of a scenario that was given as a file or a name: without folders, .toml and .uf."""
    return Path(text).name.removesuffix(".toml").removesuffix(short.SUFFIX)
