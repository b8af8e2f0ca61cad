"""The rules' syntax trees as proofs read them: the rules, the properties, and who holds what."""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from typing import Any

from ultrafolio.engine.load import constants
from ultrafolio.export.promela.source import Source
from ultrafolio.model.design import Design
from ultrafolio.model.designs import S390, PerDesign
from ultrafolio.waits import tables


class Rules(Source):
    """The functions of a design's rule modules, and those of its waits, which say who holds what."""

    def __init__(self, changed: Mapping[str, str] | None = None, design: Design = S390) -> None:
        super().__init__(changed, design)
        self.pure: dict[str, bool] = {}
        self.simple: dict[ast.AST, bool] = {}
        """What a reader found out about pieces of the rules."""
        self.asked: dict[Any, Any] = {}
        """What counts.py asked the rules of threads, and the answers."""

    @functools.cached_property
    def constants(self) -> dict[str, Any]:
        return constants(tables) | super().constants


@PerDesign
def unchanged(design: Design) -> Rules:
    """The rules of a design as they stand, read once."""
    return Rules(design=design)


def only(rules: Rules, number: int, judging: tuple[str, ...]) -> Rules:
    """The rules with the verdict on one property alone: the functions `judging` look past what breaks another one."""
    made = Rules.__new__(Rules)
    made.__dict__.update(rules.__dict__)
    made.functions = dict(rules.functions)
    made.pure, made.simple = {}, {}
    for name in judging:
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
            case ast.IfExp(body=ast.Constant(value=int() as value), orelse=other) if value not in (0, self.number):
                return ast.Return(other)
        return node
