"""Scenarios and policies with their names and sources."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ultrafolio.errors import InputError
from ultrafolio.fields import toml_tables
from ultrafolio.model import policies, scenario
from ultrafolio.model.designs import DESIGNS
from ultrafolio.model.policies import AnyPolicy as Choices
from ultrafolio.names.find import found


def no_such_type(what: str, value: object, allowed: str) -> InputError:
    """The error for an argument of a wrong type."""
    return InputError(what, value=f"{type(value).__name__} {value!r}"[:80], allowed=allowed)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A small closed system: memory and actors.

    name    the shipped scenario's name, or the file's path as it was given
    source  the argument of a command that reads it again; "" if it was made from text
    story   the scenario as read
    """

    name: str
    source: str
    story: scenario.Scenario

    @classmethod
    def find(cls, name: str | Path) -> Scenario:
        """The scenario in a file, the shipped one of this name, or that of a name by pattern such as LPIN+neigh. Raises
        InputError if there is none.

        >>> uf.Scenario.find("03-virtio").title
        'virtio ring beside a private page'
        """
        if not isinstance(name, (str, Path)):
            raise no_such_type("scenario", name, "a name such as 03-virtio, a path, or a Scenario")
        return cls(str(name), str(name), found(Path(name)))

    @classmethod
    def parse(cls, text: str, name: str = "scenario") -> Scenario:
        """The scenario in TOML text. Raises InputError with the field, the value and what is allowed."""
        if not isinstance(text, str):
            raise no_such_type("scenario text", text, "TOML text")
        try:
            document = toml_tables(text)
        except ValueError as error:
            raise InputError(
                f"{name}: not TOML",
                value=str(error),
                allowed="a scenario, as in scenarios/",
                then="ultrafolio reference",
            ) from None
        return cls(name, "", scenario.parse(document, name))

    @property
    def title(self) -> str:
        """The scenario's title."""
        return self.story.title

    @property
    def actors(self) -> list[str]:
        """The actors' kinds, in order."""
        return [DESIGNS[self.story.design].kinds[kind] for kind, _ in self.story.actors]

    @property
    def policies(self) -> list[str]:
        """Names of the scenario's own [policy.NAME] tables."""
        return list(self.story.tables)

    def __repr__(self) -> str:
        return f"Scenario({self.name!r}: {self.title})"


@dataclass(frozen=True, slots=True)
class Policy:
    """One point in the product of the choices.

    name     its name
    source   the value of --policy that finds it again; "" if it was made by a call
    choices  its choices
    """

    name: str
    source: str
    choices: Choices

    @classmethod
    def find(cls, name: str, scenario: Scenario | None = None) -> Policy:
        """The preset, kernel, FILE.toml#NAME, or [policy.NAME] of a scenario, of this name. Raises InputError for none.

        >>> uf.Policy.find("split").choices.large
        'split'
        >>> uf.Policy.find("linux-6.14+3ec8a8330a1a").name
        'linux-6.14+3ec8a8330a1a'
        """
        if not isinstance(name, str):
            raise no_such_type("policy", name, "a name such as whole-folio, FILE.toml#NAME, or a Policy")
        return cls(name, name, policies.find_any(name, scenario.story.tables if scenario else None))

    @classmethod
    def of(cls, base: str = "split", name: str = "mine", **choices: object) -> Policy:
        """A policy that differs from preset `base` in these choices. Raises InputError for an unknown choice.

        >>> uf.Policy.of("split", refs="page").choices.refs
        'page'
        """
        return cls(name, "", policies.any_from_table({"base": base, **choices}, f"policy {name}"))

    def as_dict(self) -> dict[str, Any]:
        """Choice -> value, as in a [policy.NAME] table."""
        return {**asdict(self.choices), "variants": list(self.choices.variants)}

    def __repr__(self) -> str:
        return f"Policy({self.name!r})"
