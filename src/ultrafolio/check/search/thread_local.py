"""Finds the rules that read no thread but their own, from their source.

The checker memoises what a thread's step does to the pages and machines that it looks at. That is valid for a rule
whose source never reads the record of another thread; other rules are run again in every state.
"""

from __future__ import annotations

import ast
from pathlib import Path

from ultrafolio.model.design import Design
from ultrafolio.model.designs import S390, PerDesign

_THREADS = ("task", "actor")
ORDER = "turn_come"
"""The one function that reads another thread and is accepted: it does so only if who.after is set, and run_steps()
tests that."""


@PerDesign
def far_functions(design: Design) -> frozenset[str]:
    """Returns the names of rule functions that read another thread than `t`, or call one that does."""
    trees = [ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8")) for module in design.modules]
    trees += [ast.parse(verb) for verb in design.verbs]
    functions = {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}
    far = {name for name, node in functions.items() if name != ORDER and _looks_further(node, functions)}
    while True:
        more = {name for name, node in functions.items() if name not in far and _called(node) & far}
        if not more:
            return frozenset(far)
        far |= more


def local_rules(design: Design = S390) -> tuple[bool, ...]:
    """Returns per rule number of a design whether the rule reads no thread but its own."""
    far, rules = far_functions(design), design.rules
    if {"focus", "broken", "broken_within"} & far:
        raise AssertionError("a property reads other threads than the one that stepped")
    return tuple(pc not in rules or rules[pc].function.__name__ not in far for pc in range(design.last_rule + 1))


def _called(node: ast.FunctionDef) -> set[str]:
    """Returns the names of the functions that a function calls."""
    return {call.func.id for call in ast.walk(node) if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)}


def _looks_further(node: ast.FunctionDef, functions: dict[str, ast.FunctionDef]) -> bool:
    """Whether a thread's record is indexed by anything but `t`, here or by an argument for a callee's `t`."""
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
    """Whether an index is the thread's own, `t`."""
    return isinstance(index, ast.Name) and index.id == "t"
