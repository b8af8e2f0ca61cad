"""Which rules look at no thread but their own, read off their source.

The checker remembers what a thread's step does to a memory (the pages and machines). That is right for a rule whose
source never looks at the record of another thread; the others are run again in every state.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path

from ultrafolio.engine.tables import RULE_MODULES
from ultrafolio.model.layout import DEAD
from ultrafolio.model.rule import RULES

_THREADS = ("task", "actor")
ORDER = "turn_come"
"""The function that asks whether another actor has finished: only where this one comes `after` it (who.after), and then
the checker takes the step for one that looks further."""


@functools.cache
def far_functions() -> frozenset[str]:
    """The rule functions that look at another thread than `t`, or call one that does."""
    trees = [ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8")) for module in RULE_MODULES]
    functions = {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}
    far = {name for name, node in functions.items() if name != ORDER and _looks_further(node, functions)}
    while True:
        more = {name for name, node in functions.items() if name not in far and _called(node) & far}
        if not more:
            return frozenset(far)
        far |= more


def local_rules() -> tuple[bool, ...]:
    """Per place in the rule order: whether its rule looks at no thread but its own."""
    far = far_functions()
    if {"focus", "broken"} & far:
        raise AssertionError("a property that looks at other threads than the one that stepped")
    return tuple(pc not in RULES or RULES[pc].function.__name__ not in far for pc in range(DEAD + 1))


def _called(node: ast.FunctionDef) -> set[str]:
    return {call.func.id for call in ast.walk(node) if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)}


def _looks_further(node: ast.FunctionDef, functions: dict[str, ast.FunctionDef]) -> bool:
    """Whether a thread's record is taken by anything but `t`, here or through an argument for a callee's `t`."""
    own = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Subscript) and _is_own(inner.slice):
            own.add(id(inner.value))
        if isinstance(inner, ast.Name) and inner.id == "t" and not isinstance(inner.ctx, ast.Load):
            return True
        if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) and inner.func.id in functions:
            names = [argument.arg for argument in functions[inner.func.id].args.args]
            if "t" in names and not _is_own(inner.args[names.index("t")]):
                return True
    return any(
        isinstance(inner, ast.Attribute)
        and inner.attr in _THREADS
        and id(inner) not in own
        and isinstance(inner.value, ast.Name)
        and inner.value.id == "s"
        for inner in ast.walk(node)
    )


def _is_own(index: ast.expr) -> bool:
    return isinstance(index, ast.Name) and index.id == "t"
