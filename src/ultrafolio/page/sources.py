"""Which functions of the package the page runs, read from their source files and written in JavaScript.

The rules, the properties and the waits are all translated; so are the words of waits, stories and verdicts. What the
page does by code of its own (folder `js`): search the graph, read a scenario, draw.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from ultrafolio import nouns
from ultrafolio.check.verdicts import claim, liveness, scope, told, verdict
from ultrafolio.engine.load import constants
from ultrafolio.engine.tables import RULE_MODULES
from ultrafolio.export import observation
from ultrafolio.export import text as mail
from ultrafolio.model import layout
from ultrafolio.model.layout import DEAD, W_IDLE
from ultrafolio.model.properties import PROPERTIES
from ultrafolio.model.rule import RULES
from ultrafolio.waits import rules as wait_rules
from ultrafolio.waits import tables, words

from .names import FIELDS, Names, name_of
from .statements import Function, class_written, fields, parameters

Definition = ast.FunctionDef | ast.ClassDef
PLAIN = (*RULE_MODULES, wait_rules, liveness)
"""Modules whose functions with a decorator are written in the rules' subset, all of which are translated."""
WORDS: dict[ModuleType, tuple[str, ...]] = {
    nouns: (), words: (), claim: (), told: ("livelock", "actor_words", "holders_of"), scope: ("scope_text",),
    mail: ("page_flags", "deed", "outcome_of", "story", "finding_text", "never_waiting", "result_text"),
    verdict: ("Finding", "Result"),
    observation: ("word_of", "facts_of", "waiting", "observation_line", "of_result"),
}  # fmt: skip
"""Modules that say things in words, and which of their functions and classes; none named: all."""
LEFT_OUT = ("record", "brief", "json", "rows")
"""Methods that the page has no use for."""
SHARED = (
    "OBSTACLE_OF",
    "BUSY",
    "IDLE_PC",
    "ACTOR_KINDS",
    "OPS",
    "OBSTACLES",
    "LEADS_TO",
    "PAGE",
    "RULES",
    "PROPERTIES",
)
"""Constants that the page's own code uses, too."""
BY_HAND = {"paragraph": ["text", "indent"]}
"""Functions that translated ones call and that the page has by hand, with their parameters."""


def text_of(module: ModuleType) -> str:
    """The source of a module."""
    return Path(str(module.__file__)).read_text(encoding="utf-8")


def translated(changed: Mapping[str, str] | None = None) -> str:
    """All these functions as JavaScript, the constants they use, the places of the state's fields, and `step`.

    `changed` replaces source text, {old: new}, as engine.load.functions does for deliberately broken rules; each `old`
    must stand in exactly one place. ValueError otherwise; Untranslatable for a form of Python that is not known.
    """
    left, names = dict(changed or {}), Names(functions=dict(BY_HAND))
    chosen: list[tuple[ModuleType, Definition]] = []
    for module in (*PLAIN, *WORDS):
        text = text_of(module)
        for old in [old for old in left if text.count(old) == 1]:
            text = text.replace(old, left.pop(old))
        chosen += [
            (module, node)
            for node in ast.parse(text).body
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and _is_chosen(module, node)
        ]
    if left:
        raise ValueError(f"not found exactly once in the rules: {list(left)}")
    for _, node in chosen:
        if node.name in names.functions:
            raise ValueError(f"two functions of the name {node.name}")
        names.functions[node.name] = _given(node)
        if isinstance(node, ast.ClassDef):
            names.classes.add(node.name)
    known = constants(layout) | vars(tables) | vars(words) | {"PROPERTIES": PROPERTIES}
    for name in SHARED:
        names.use(name, known[name])
    made = [_written(names, module, node) for module, node in chosen]
    return "\n".join([_layout(), names.constants(), *made, dispatcher()])


def _is_chosen(module: ModuleType, node: Definition) -> bool:
    """Whether a definition is translated: each function of the rules; of another module what WORDS lists, or all."""
    if module in PLAIN:
        return isinstance(node, ast.FunctionDef) and any(_is_rule(d) for d in node.decorator_list)
    return not WORDS[module] or node.name in WORDS[module]


def _is_rule(node: ast.expr) -> bool:
    """Whether a decorator is @fn or @rule(...)."""
    return ast.unparse(node).partition("(")[0] in ("fn", "rule")


def _given(node: Definition) -> list[str]:
    """Returns the names of what a function or a class takes."""
    if isinstance(node, ast.FunctionDef):
        return parameters(node)
    return [ast.unparse(line.target) for line in fields(node)]


def _written(names: Names, module: ModuleType, node: Definition) -> str:
    """Returns a function or a class as JavaScript."""
    known = constants(layout) | vars(module)
    if isinstance(node, ast.ClassDef):
        return class_written(names, known, node, LEFT_OUT)
    return Function(names, known, f"{module.__name__}.{node.name}", plain=module in PLAIN).written(node)


def _layout() -> str:
    """The variables that a system sets, where its sections begin; and the place of each field within its record."""
    sections = ", ".join(f"o_{name}" for name in FIELDS if name not in ("cfg", "who"))
    return f"let C, W, nPages, nActors, nVms, {sections};\n"


def dispatcher() -> str:
    """`step(s, t, op, page)`: run the rule that thread `t` is at; `op` and `page` are its choice."""
    place = f"s[o_task + t * {len(FIELDS['task'])} + {FIELDS['task']['pc']}]"
    lines = ["function step(s, t, op, page) {", f"  switch ({place}) {{"]
    for pc in sorted(RULES):
        rule = RULES[pc]
        more = ", op, page" if rule.chooses else ""
        lines.append(f"    case {pc}: return {name_of(rule.function.__name__)}(s, t{more});")
    return "\n".join([*lines, f"    case {DEAD}: return {W_IDLE};", "  }", f"  return {W_IDLE};", "}"])
