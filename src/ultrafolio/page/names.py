"""What a function of Python may name, for its translation to JavaScript: the state's fields, functions, constants."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ultrafolio.model.design import Design
from ultrafolio.model.rule import Rule

Fields = Mapping[str, Mapping[str, int]]
"""Per section the place of each field within a record."""
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
    "finally", "for", "function", "if", "implements", "import", "in", "instanceof", "interface", "let", "new", "null",
    "package", "private", "protected", "public", "return", "static", "super", "switch", "this", "throw", "true", "try",
    "typeof", "var", "void", "while", "with", "yield",
})  # fmt: skip
HELPERS = frozenset({
    "allOf", "anyOf", "bitLength", "both", "either", "equal", "formatted", "get", "has", "item", "list", "order",
    "plus", "put", "same", "times", "truth", "unequal", "union",
})  # fmt: skip
"""Functions of js/python.js that translated functions call: no variable may hide one."""


def fields_of(design: Design) -> Fields:
    """Returns per section of a design's state the place of each field within a record; a field is one number of 16
    bits."""
    sections = design.constants["SECTIONS"]
    return {section: {name: n for n, name in enumerate(record.names or ())} for section, record in sections.items()}


class Untranslatable(ValueError):
    """A function uses a form of Python that the translation does not know; says which, and where."""

    def __init__(self, node: ast.AST, where: str) -> None:
        super().__init__(
            f"{where}, line {getattr(node, 'lineno', '?')}: cannot be said in JavaScript: {ast.unparse(node)}"
        )


@dataclass
class Names:
    """The names that functions which are translated together share.

    fields     the records of their state
    functions  per function or class that is translated: its parameters in order, to place keyword arguments
    classes    names of classes among them
    used       constants of the modules that are no plain number: translated functions that use one put it here
    of_design  constants that each design has another value of: functions of no design take that of the one in use
    """

    fields: Fields = field(default_factory=dict)
    functions: dict[str, list[str]] = field(default_factory=dict)
    classes: set[str] = field(default_factory=set)
    used: dict[str, Any] = field(default_factory=dict)
    of_design: tuple[str, ...] = ()

    def use(self, name: str, value: Any) -> None:
        """Note that a constant is used. ValueError where another one of this name is."""
        if name not in self.of_design and self.used.setdefault(name, value) != value:
            raise ValueError(f"two constants of the name {name}")

    def constants(self, elsewhere: Mapping[str, Any] | None = None) -> str:
        """The constants that are used, as JavaScript; without those that `elsewhere` has with the same value."""
        there = elsewhere or {}
        own = {name: value for name, value in self.used.items() if name not in there or there[name] != value}
        return "".join(f"const {name} = {literal(value)};\n" for name, value in sorted(own.items()))


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
    if isinstance(value, np.dtype):
        return json.dumps({"names": value.names})
    if isinstance(value, ModuleType):
        return "{" + ", ".join(f"{name}: {literal(fact)}" for name, fact in _facts(value).items()) + "}"
    if isinstance(value, Rule):
        told = {"name": value.name, "actor": value.actor, "fair": value.fair, "fairness": value.fairness}
        return json.dumps(told)
    raise ValueError(f"no constant that JavaScript has: {value!r}")


def _facts(module: ModuleType) -> dict[str, Any]:
    """Returns the constants that a module itself assigns, but texts: what it says of a machine."""
    lines = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8")).body
    named = [ast.unparse(line.targets[0]) for line in lines if isinstance(line, ast.Assign)]
    return {name: value for name in named if not isinstance(value := vars(module)[name], str)}


def name_of(name: str) -> str:
    """A Python name as JavaScript has it."""
    return f"{name}_" if name in RESERVED or name in HELPERS else name
