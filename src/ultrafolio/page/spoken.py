"""The functions that say a design's waits and stories in words, and that begin its state: found from a few names of
them (SAID), by what the names of a function mean in its module."""

from __future__ import annotations

import ast
import copy
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from ultrafolio.check.verdicts import told_in
from ultrafolio.export import text_in
from ultrafolio.model import scenario
from ultrafolio.model.design import Design
from ultrafolio.model.designs import GUEST_MEMFD, S390
from ultrafolio.model.guest_memfd import scenario as memfd
from ultrafolio.waits import telling

SAID = ("bits", "dead", "holders_of", "in_words", "last", "leads_to", "livelock", "name", "obstacle_names",
        "page_flags", "stalls", "story")  # fmt: skip
"""Functions that the page's own code calls, of each design."""
BEGINS: dict[str, dict[str, Any]] = {
    S390.name: {"_memory": scenario._memory, "_actor": scenario._actor},
    GUEST_MEMFD.name: {"begins": memfd.system},
}
"""Per design the functions that make the first state of a system from numpy's arrays, by the page's names for them."""


@dataclass(frozen=True)
class Spoken:
    """A function or a class under the name that its callers use. columns: see expressions.Expressions."""

    node: ast.FunctionDef | ast.ClassDef
    known: Mapping[str, Any]
    where: str
    columns: bool


def spoken(design: Design, elsewhere: set[str], rules: set[str]) -> Iterator[Spoken]:
    """Yield SAID and BEGINS of a design and whatever they call, but what is `elsewhere`, and functions of the modules
    `rules`. ValueError where one name means two things."""
    spaces = [vars(told_in.in_design(design.name)), vars(text_in.of(design.name)), vars(telling.in_design(design.name))]
    begins = BEGINS[design.name]
    left = [(name, next(space[name] for space in [*spaces, begins] if name in space)) for name in (*SAID, *begins)]
    found: dict[str, Any] = {}
    while left:
        name, value = left.pop(0)
        value = next((space[name] for space in spaces if _is_same(space.get(name), value)), value)
        if found.setdefault(name, value) is not value:
            raise ValueError(f"two functions of the name {name}")
        left += [(n, v) for n, v in _called(value) if not {n, v.__module__} & (elsewhere | rules) and n not in found]
    columns = {value.__module__ for value in begins.values()}
    for name, value in found.items():
        node = copy.copy(definition(value))
        node.name = name
        yield Spoken(node, _space(value), f"{value.__module__}.{name}", value.__module__ in columns)


def definition(value: Callable[..., Any] | type) -> Any:
    """Returns the definition of a function or a class in its source file."""
    name = value.__code__.co_name if isinstance(value, FunctionType) else value.__name__
    body = parsed(sys.modules[value.__module__]).body
    return next(n for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name == name)


@functools.cache
def parsed(module: ModuleType) -> ast.Module:
    """Returns the source of a module as a tree, which nobody changes."""
    return ast.parse(text_of(module))


def text_of(module: ModuleType) -> str:
    """The source of a module."""
    return Path(str(module.__file__)).read_text(encoding="utf-8")


def _is_same(one: Any, other: Any) -> bool:
    """Whether a function is the other one, or that one with names of its design (waits.telling.rebound)."""
    return isinstance(one, FunctionType) and isinstance(other, FunctionType) and one.__code__ is other.__code__


def _space(value: Any) -> Mapping[str, Any]:
    """Returns what the names in a function or a class mean."""
    return value.__globals__ if isinstance(value, FunctionType) else vars(sys.modules[value.__module__])


def _called(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the functions and classes of the package that a function or a class names, but in annotations."""
    space = _space(value)
    for node in _unannotated(definition(value)):
        match node:
            case ast.Name(id=name):
                found = space.get(name)
            case ast.Attribute(value=ast.Name(id="words" | "told" as name), attr=attr):
                name, found = attr, getattr(space.get(name), attr, None)
            case _:
                continue
        if (inspect.isfunction(found) or inspect.isclass(found)) and found.__module__.startswith("ultrafolio"):
            yield name, found


def _unannotated(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes within a definition, without its decorators and annotations."""
    yield node
    for name, child in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_comment"):
            continue
        for one in child if isinstance(child, list) else [child]:
            if isinstance(one, ast.AST):
                yield from _unannotated(one)
