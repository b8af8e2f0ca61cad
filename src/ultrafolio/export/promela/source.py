"""The rule modules as syntax trees, and the error for one that cannot be translated."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ultrafolio.export.promela.terms import Term, constant
from ultrafolio.model.design import Design
from ultrafolio.model.designs import S390, PerDesign


class Untranslatable(ValueError):
    """A rule uses Python that has no translation. The message has the form and its place."""


class Source:
    """The functions of a design's rule modules by name, and those that call its machine, as syntax trees."""

    def __init__(self, changed: Mapping[str, str] | None = None, design: Design = S390) -> None:
        """`changed` replaces source text, {old: new}, as engine.load.functions does for deliberately broken rules.

        Raises ValueError unless each `old` occurs exactly once.
        """
        self.design = design
        left = dict(changed or {})
        self.functions: dict[str, ast.FunctionDef] = {}
        self.places: dict[int, Term] = {}
        for module in design.modules:
            text = Path(str(module.__file__)).read_text(encoding="utf-8")
            for old in [old for old in left if text.count(old) == 1]:
                text = text.replace(old, left.pop(old))
            for node in ast.parse(text).body:
                if isinstance(node, ast.FunctionDef) and node.decorator_list:
                    self.functions[node.name] = node
                    self._place(node)
        for verb in design.verbs:
            for node in ast.parse(verb).body:
                if isinstance(node, ast.FunctionDef):
                    self.functions[node.name] = node
        if left:
            raise ValueError(f"not found exactly once in the rules: {list(left)}")
        self._writes: dict[str, frozenset[str]] = {}
        self._leaves: dict[tuple[ast.stmt, bool], bool] = {}

    def _place(self, node: ast.FunctionDef) -> None:
        """Record a rule's number in the rule order, from the first argument of its decorator."""
        match node.decorator_list[0]:
            case ast.Call(func=ast.Name(id="rule"), args=[ast.Name(id=name)]):
                self.places[self.constants[name]] = constant(self.constants[name], name)

    def writes(self, name: str) -> frozenset[str]:
        """Returns the names of the fields that a function, or one that it calls, may write."""
        if name not in self._writes:
            self._writes[name] = frozenset()
            self._writes[name] = self.writes_of(self.functions[name].body)
        return self._writes[name]

    def writes_of(self, body: Iterable[ast.stmt]) -> frozenset[str]:
        """Returns writes() of statements."""
        found: set[str] = set()
        for node in (n for statement in body for n in ast.walk(statement)):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.attr)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in self.functions:
                found |= self.writes(node.func.id)
        return frozenset(found)

    def leaves(self, node: ast.If | ast.For, *, loops: bool) -> bool:
        """Whether a statement inside ends the function, or with `loops` the loop around it."""
        if (node, loops) not in self._leaves:
            kinds = (ast.Return, ast.Break) if loops else (ast.Return,)
            self._leaves[node, loops] = any(isinstance(n, kinds) for n in ast.walk(node))
        return self._leaves[node, loops]

    @functools.cached_property
    def constants(self) -> dict[str, Any]:
        return dict(self.design.constants)


@PerDesign
def unchanged(design: Design) -> Source:
    """Returns the unchanged rules of a design; read once per process."""
    return Source(design=design)
