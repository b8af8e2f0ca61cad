"""The rules' syntax trees as proofs read them: the rules, the properties, and who holds what."""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from typing import Any

from ultrafolio.engine.load import constants
from ultrafolio.export.promela.source import Source
from ultrafolio.waits import tables


class Rules(Source):
    """The functions of the rule modules and of waits/rules.py, which says who holds what."""

    def __init__(self, changed: Mapping[str, str] | None = None) -> None:
        super().__init__(changed)
        self.pure: dict[str, bool] = {}
        self.simple: dict[ast.AST, bool] = {}
        """What a reader found out about pieces of the rules."""
        self.asked: dict[Any, Any] = {}
        """What counts.py asked the rules of threads, and the answers."""

    @functools.cached_property
    def constants(self) -> dict[str, Any]:
        return constants(tables) | super().constants


@functools.cache
def unchanged() -> Rules:
    """The rules as they stand, read once."""
    return Rules()


def only(rules: Rules, number: int) -> Rules:
    """The rules with the verdict on one property alone: `broken` looks past what breaks another one before it."""
    made = Rules.__new__(Rules)
    made.__dict__.update(rules.__dict__)
    made.functions = dict(rules.functions)
    made.pure, made.simple = {}, {}
    for name in ("broken", "over_range"):
        made.functions[name] = _Only(number).visit(ast.parse(ast.unparse(rules.functions[name])).body[0])
    return made


class _Only(ast.NodeTransformer):
    """Takes out `return N` for each other property."""

    def __init__(self, number: int) -> None:
        self.number = number

    def visit_Return(self, node: ast.Return) -> ast.stmt:
        match node.value:
            case ast.Constant(value=int() as value) if value not in (0, self.number):
                return ast.Pass()
        return node
