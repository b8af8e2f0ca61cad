"""What a function of Python may name, for its translation to JavaScript: the state's fields, functions, constants."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ultrafolio.model.layout import SECTIONS
from ultrafolio.model.rule import Rule

FIELDS = {section: {name: n for n, name in enumerate(record.names or ())} for section, record in SECTIONS.items()}
"""Per section the place of each field within a record; a field is one number of 16 bits."""
CONSTANT_SECTIONS = {"cfg": "C", "who": "W"}
"""Sections that nobody writes: arrays of their own, the same in every state."""
COUNTED = {
    "mm": "nPages",
    "uv": "nPages",
    "io": "nPages",
    "pt": "nPages",
    "task": "nActors",
    "actor": "nActors",
    "who": "nActors",
    "vm": "nVms",
}
"""The variable with the number of records of a section."""
RESERVED = frozenset({
    "case", "catch", "class", "const", "default", "delete", "do", "else", "enum", "export", "extends", "false",
    "finally", "for", "function", "if", "import", "in", "instanceof", "let", "new", "null", "return", "super", "switch",
    "this", "throw", "true", "try", "typeof", "var", "void", "while", "with", "yield",
})  # fmt: skip
HELPERS = frozenset({
    "allOf", "anyOf", "bitLength", "both", "either", "formatted", "get", "has", "item", "list", "order", "plus", "put",
    "same", "truth",
})  # fmt: skip
"""Functions of js/python.js that translated functions call: no variable may hide one."""


class Untranslatable(ValueError):
    """A function uses a form of Python that the translation does not know; says which, and where."""

    def __init__(self, node: ast.AST, where: str) -> None:
        super().__init__(
            f"{where}, line {getattr(node, 'lineno', '?')}: cannot be said in JavaScript: {ast.unparse(node)}"
        )


@dataclass
class Names:
    """The names that all translated modules share.

    functions  per function or class that is translated: its parameters in order, to place keyword arguments
    classes    names of classes among them
    constants  constants of the modules that are no plain number: translated functions that use one put it into `used`
    """

    functions: dict[str, list[str]] = field(default_factory=dict)
    classes: set[str] = field(default_factory=set)
    used: dict[str, Any] = field(default_factory=dict)

    def use(self, name: str, value: Any) -> None:
        """Note that a constant is used. ValueError where another one of this name is."""
        if self.used.setdefault(name, value) != value:
            raise ValueError(f"two constants of the name {name}")

    def constants(self) -> str:
        """The constants that are used, as JavaScript."""
        return "".join(f"const {name} = {literal(value)};\n" for name, value in sorted(self.used.items()))


def literal(value: Any) -> str:
    """A constant as JavaScript: a dictionary is a Map, a set a Set, a tuple an array."""
    if value is None:
        return "null"
    if isinstance(value, bool | int | str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(literal, value)) + "]"
    if isinstance(value, Mapping):
        return "new Map([" + ", ".join(f"[{literal(k)}, {literal(v)}]" for k, v in value.items()) + "])"
    if isinstance(value, set | frozenset):
        return f"new Set({literal(sorted(value))})"
    if isinstance(value, Rule):
        told = {"name": value.name, "actor": value.actor, "fair": value.fair, "fairness": value.fairness}
        return json.dumps(told)
    raise ValueError(f"no constant that JavaScript has: {value!r}")


def name_of(name: str) -> str:
    """A Python name as JavaScript has it."""
    return f"{name}_" if name in RESERVED or name in HELPERS else name
