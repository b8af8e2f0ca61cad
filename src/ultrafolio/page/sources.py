"""Which functions of the package the page runs, read from their source files and written in JavaScript.

The rules, the properties and the waits of each design are all translated; so are the words of waits, stories and
verdicts. What the page does by code of its own (folder `js`): search the graph, read a scenario, draw.

What every design shares (COMMON) stands once, and what is a design's own in a function of its name: `Part`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

from ultrafolio import nouns
from ultrafolio.check.verdicts import claim, liveness, scope, verdict
from ultrafolio.engine.load import constants
from ultrafolio.export import observation, text_in
from ultrafolio.export import text as mail
from ultrafolio.model import layout
from ultrafolio.model.design import Design
from ultrafolio.model.designs import DESIGNS, S390
from ultrafolio.waits import load as waits
from ultrafolio.waits import tables

from .names import Names, fields_of, name_of
from .spoken import definition, parsed, spoken, text_of
from .statements import Function, class_written, fields, parameters

Definition = ast.FunctionDef | ast.ClassDef
COMMON: dict[ModuleType, tuple[str, ...]] = {
    liveness: ("components", "fairness"), nouns: ("plural",), claim: ("Claim",), scope: ("scope_text",),
    mail: ("finding_text", "never_waiting", "result_text"), verdict: ("Finding", "Result"),
    observation: ("word_of", "facts_of", "waiting", "observation_line", "of_result"),
}  # fmt: skip
"""Modules, and which of their functions and classes are the same in every design."""
OF_DESIGN = ("HEADING", "LEGEND")
"""Constants of these that each design has another value of."""
LEFT_OUT = ("record", "brief", "json", "rows")
"""Methods that the page has no use for."""
SHARED = ("BUSY", "OBSTACLES", "OBSTACLE_OF", "OPS", "PAGE")
"""Constants that the page's own code uses, too, the same in every design."""
BY_HAND = {"paragraph": ["text", "indent"], "new_state": ["pages", "actors", "vms"],
           "InputError": ["what", "value", "allowed", "cause", "then"]}  # fmt: skip
"""Functions that translated ones call and that the page has by hand, with their parameters."""


@dataclass
class Part:
    """Functions in JavaScript that stand together, by name, and the names that they use. words: those that say waits
    and stories, and are no rules."""

    names: Names
    written: dict[str, str] = field(default_factory=dict)
    words: set[str] = field(default_factory=set)

    def defined(self) -> set[str]:
        """The names of its functions and constants."""
        return {name_of(name) for name in self.names.functions} | set(self.names.used)


def translated(changed: Mapping[str, str] | None = None) -> dict[str, Part]:
    """All these functions as JavaScript: those of each design, by its name, and under "" those that every design has.

    `changed` replaces source text, {old: new}, as engine.load.functions does for deliberately broken rules; each `old`
    must stand in exactly one place. ValueError otherwise; Untranslatable for a form of Python that is not known.
    """
    asked, found = dict(changed or {}), dict[str, ModuleType]()
    common = Part(Names(functions=dict(BY_HAND), classes={"InputError"}, of_design=OF_DESIGN))
    parts = {name: Part(Names(fields=fields_of(design))) for name, design in DESIGNS.items()}
    chosen = [
        (module, node) for module, wanted in COMMON.items() for node in parsed(module).body
        if isinstance(node, Definition) and node.name in wanted
    ]  # fmt: skip
    for _, node in chosen:
        _enter(common.names, node)
    for name, design in DESIGNS.items():
        _add_design(parts[name], design, common.names, lambda module: _text(module, asked, found))
    if set(asked) - set(found):
        raise ValueError(f"not found exactly once in the rules: {[old for old in asked if old not in found]}")
    known = vars(tables) | constants(layout)
    common.names.used |= {name: known[name] for name in SHARED}
    with_story = replace(common.names, functions=common.names.functions | {"story": ["steps", "first"]})
    for module, node in chosen:
        common.written[node.name] = _written(with_story, vars(module), module.__name__, node, module is liveness)
    _share(list(parts.values()), common)
    return parts | {"": common}


def _share(parts: list[Part], common: Part) -> None:
    """Move the words that every design says by the same function to the common part; a rule stays, since a call of a
    function that changes with the design takes longer."""
    first, *others = parts
    for name in sorted(first.words):
        if all(name in part.words and part.written[name] == first.written[name] for part in others):
            common.written[name], common.names.functions[name] = first.written[name], first.names.functions[name]
            for part in parts:
                del part.written[name], part.names.functions[name]


def _text(module: ModuleType, changed: Mapping[str, str], found: dict[str, ModuleType]) -> str:
    """The source of a module of rules with what is `changed`; notes in `found` where that was found first."""
    text = text_of(module)
    for old, new in changed.items():
        if text.count(old) == 1 and found.setdefault(old, module) is module:
            text = text.replace(old, new)
    return text


def _add_design(part: Part, design: Design, common: Names, text: Callable[[ModuleType], str]) -> None:
    """Translate the functions of a design. text: the source of a module."""
    names = part.names
    rules = [*_rules(design, text), *_verbs(design)]
    said = list(spoken(design, {*common.functions, "interpreted"}, {module.__name__ for module in modules(design)}))
    names.functions |= common.functions
    names.classes |= common.classes
    for _, _, node in rules:
        _enter(names, node)
    for one in said:
        _enter(names, one.node)
    for known, where, node in rules:
        part.written[node.name] = _written(names, known, where, node, True)
    for one in said:
        part.written[one.node.name] = _written(names, one.known, one.where, one.node, False, one.columns)
        part.words.add(one.node.name)
    names.used |= {name: vars(text_in.of(design.name))[name] for name in OF_DESIGN}
    part.written |= {**dict(_adapted(names, design)), "step": dispatcher(design, names)}
    for name in common.functions:
        del names.functions[name]


def _enter(names: Names, node: Definition) -> None:
    """Enter a function or a class among the names. ValueError where another one has its name."""
    if node.name in names.functions:
        raise ValueError(f"two functions of the name {node.name}")
    names.functions[node.name] = _given(node)
    if isinstance(node, ast.ClassDef):
        names.classes.add(node.name)


def modules(design: Design) -> tuple[ModuleType, ...]:
    """The modules with the functions of a design that are written in the rules' subset."""
    return (*design.modules, waits.MODULES[design.name][-1])


Rule = tuple[Mapping[str, Any], str, ast.FunctionDef]
"""The constants of a function, where it stands, and itself."""


def _rules(design: Design, text: Callable[[ModuleType], str]) -> Iterator[Rule]:
    """Yield every rule of a design and every function that a rule may call; of a module that it shares with s390 only
    what its own modules use."""
    found: dict[str, tuple[ModuleType, ast.FunctionDef, bool]] = {}
    steps = {rule.function.__name__ for rule in design.rules.values()}
    for module in modules(design):
        own = design is S390 or module not in S390.modules
        for node in ast.parse(text(module)).body:
            if isinstance(node, ast.FunctionDef) and any(map(_is_rule, node.decorator_list)):
                found[node.name] = module, node, own or node.name in steps
    wanted = [name for name, (_, _, own) in found.items() if own]
    for name in wanted:
        called = {n.id for n in ast.walk(found[name][1]) if isinstance(n, ast.Name)}
        wanted += [other for other in found if other in called and other not in wanted]
    for name, (module, node, _) in found.items():
        if name in wanted:
            yield vars(module) | dict(design.constants), f"{module.__name__}.{name}", node


def _verbs(design: Design) -> Iterator[Rule]:
    """Yield the same of the functions that call the machine of a state."""
    for verb in design.verbs:
        (node,) = ast.parse(verb).body
        assert isinstance(node, ast.FunctionDef)
        yield design.constants, node.name, node


def _is_rule(node: ast.expr) -> bool:
    """Whether a decorator is @fn or @rule(...)."""
    return ast.unparse(node).partition("(")[0] in ("fn", "rule")


def _given(node: Definition) -> list[str]:
    """Returns the names of what a function or a class takes."""
    if isinstance(node, ast.FunctionDef):
        return parameters(node)
    return [ast.unparse(line.target) for line in fields(node)]


def _written(
    names: Names, known: Mapping[str, Any], where: str, node: Definition, plain: bool, columns: bool = False
) -> str:
    """Returns a function or a class as JavaScript."""
    if isinstance(node, ast.ClassDef):
        return class_written(names, known, node, LEFT_OUT)
    return Function(names, known, where, plain=plain, columns=columns).written(node)


def _adapted(names: Names, design: Design) -> Iterator[tuple[str, str]]:
    """Yield the functions of one name in every design that waits.load.with_rules makes of what a design calls so."""
    node = definition(waits.with_rules)
    (choice,) = [n for n in ast.walk(node) if isinstance(n, ast.If)]
    for line in choice.body if design is S390 else choice.orelse:
        match line:
            case ast.Assign(targets=[ast.Attribute(attr=name)], value=ast.Lambda() as function):
                names.functions[name] = [argument.arg for argument in function.args.args]
                body = Function(names, {}, name, plain=True).of(function)
                yield name, f"const {name} = {body};"


def dispatcher(design: Design, names: Names) -> str:
    """`step(s, t, op, page)`: run the rule that thread `t` is at; `op` and `page` are its choice."""
    records, known = names.fields["task"], design.constants
    names.functions["step"] = ["s", "t", "op", "page"]
    lines = ["function step(s, t, op, page) {", f"  switch (s[o_task + t * {len(records)} + {records['pc']}]) {{"]
    for pc in sorted(design.rules):
        rule = design.rules[pc]
        more = ", op, page" if rule.chooses else ""
        lines.append(f"    case {pc}: return {name_of(rule.function.__name__)}(s, t{more});")
    return "\n".join([*lines, "  }", f"  return {known['W_IDLE']};", "}"])
