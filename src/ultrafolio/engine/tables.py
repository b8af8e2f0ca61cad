"""The modules of the rules, and checks of the model's tables against each other and against the widths of fields.

Importing this module runs the checks. It raises Outgrown if a table grew without another that must grow with it, or if
a field is too narrow for the largest number. The checker, the simulator and the cluster check their own fields
(check/search/packing.py, sim/records.py, state/sections.py).
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path
from types import ModuleType

from ultrafolio.model import layout, properties, rules, scenario
from ultrafolio.model.bounds import fits, most
from ultrafolio.model.layout import ACTOR, ACTOR_KINDS, CFG, DEAD, IDLE_PC, OPS, OUTCOMES, TASK, WAITS, WHO
from ultrafolio.model.policy import CHOICES, Policy
from ultrafolio.model.properties import PROPERTIES, SEED
from ultrafolio.model.rule import CALLS, RULES, SLEEPS

RULE_MODULES = (*rules.MODULES, properties)
SET_BESIDE = ("misc", "stuck", "pages", "actors", "vms")
"""Configuration fields that no policy sets; scenario.system and sim/build.py set them."""


def guest_kinds() -> tuple[int, ...]:
    """Returns the kinds of actors that belong to a guest: the guest or one of its devices takes their first step."""
    return tuple(kind for kind, pc in enumerate(IDLE_PC) if RULES[pc].actor in ("guest", "device"))


def check() -> None:
    """Raises Outgrown for the first table that does not fit. See the module."""
    _rules()
    _outcomes()
    _kinds()
    _facts()
    _configuration()
    _properties()


def _rules() -> None:
    """Check that every number of the rule order has one rule, from a module that every engine reads, and fits its
    fields."""
    names = {value: name for name, value in vars(layout).items() if name.isupper() and isinstance(value, int)}
    without = [str(names.get(pc, pc)) for pc in range(DEAD) if pc not in RULES]
    fits(
        f"places in the rule order, of which {', '.join(without)} has no rule",
        DEAD,
        DEAD - len(without),
        "a function with @rule in a module of engine/tables.py: RULE_MODULES",
    )
    fits("places of rules, beyond DEAD, the last", max(RULES), DEAD - 1, "model/layout.py: the rule order")
    known = {module.__name__ for module in RULE_MODULES}
    strange = [rule.name for rule in RULES.values() if rule.function.__module__ not in known]
    fits(
        f"rules, of which {', '.join(strange)} is in a module that no engine reads",
        len(RULES),
        len(RULES) - len(strange),
        "engine/tables.py: RULE_MODULES",
    )
    written = sum(_is_rule(node) for module in RULE_MODULES for node in _tree(module).body)
    fits("functions with @rule, and the places they have", written, len(RULES), "model/layout.py: the rule order")
    for field in ("pc", "then", "back"):
        fits(f"rules that task.{field} may name", DEAD, most(TASK, field), "model/layout.py: TASK")


def _is_rule(node: ast.stmt) -> bool:
    """Whether a statement defines a rule."""
    match node:
        case ast.FunctionDef(decorator_list=[ast.Call(func=ast.Name(id="rule"))]):
            return True
    return False


def _facts() -> None:
    """Check that the facts of a rule name known kinds of actors, calls and obstacles."""
    for what, known, where, said in (
        ("kinds of actors", ACTOR_KINDS, "model/layout.py: ACTOR_KINDS", lambda rule: rule.takers),
        ("calls", CALLS, "model/rule.py: CALLS", lambda rule: (rule.call,)),
        ("obstacles to sleep for", SLEEPS, "model/rule.py: SLEEPS", lambda rule: rule.sleeps),
    ):
        strange = [f"{word} of {rule.name}" for rule in RULES.values() for word in said(rule) if word not in known]
        fits(f"{what}, of which nobody knows {', '.join(strange)}", len(known) + len(strange), len(known), where)


def _outcomes() -> None:
    """Check that each outcome and each wait reason has a distinct number, and a word."""
    beside = _beside("OK")
    outcomes = [value for name, value in vars(layout).items() if name.startswith("E_") or name in beside]
    reasons = [-value for name, value in vars(layout).items() if name.startswith("W_")]
    for what, numbers, words, name in (
        ("outcomes", outcomes, OUTCOMES, "OUTCOMES"),
        ("reasons to wait", reasons, WAITS, "WAITS"),
    ):
        fits(f"{what}, and their numbers", len(numbers), len(set(numbers)), "model/layout.py: two have the same")
        fits(f"{what}, and the words for them", max(numbers), len(words) - 1, f"model/layout.py: {name}")


def _beside(first: str) -> list[str]:
    """Returns the names that layout.py assigns in the one statement that begins with `first`."""
    for node in _tree(layout).body:
        match node:
            case ast.Assign(targets=[ast.Tuple(elts=names)]):
                found = [name.id for name in names if isinstance(name, ast.Name)]
                if found[:1] == [first]:
                    return found
    raise LookupError(f"model/layout.py numbers nothing that begins with {first}")


def _kinds() -> None:
    """Check that each kind of actor has a name, an idle rule, and a table in scenario files."""
    fits("kinds of actors, and the rules where they idle", len(ACTOR_KINDS), len(IDLE_PC), "model/layout.py: IDLE_PC")
    fits(
        "rules where actors idle, and the names of actors",
        len(IDLE_PC),
        len(ACTOR_KINDS),
        "model/layout.py: ACTOR_KINDS",
    )
    unread = [name for name in ACTOR_KINDS if name not in scenario.ACTORS]
    fits(
        f"kinds of actors, of which a scenario file cannot say {', '.join(unread)}",
        len(ACTOR_KINDS),
        len(ACTOR_KINDS) - len(unread),
        "model/scenario.py: ACTORS",
    )
    fits("kinds of actors that who.kind may name", len(ACTOR_KINDS) - 1, most(WHO, "kind"), "model/layout.py: WHO")
    fits("operations that actor.op may name", len(OPS) - 1, most(ACTOR, "op"), "model/layout.py: ACTOR")


def _configuration() -> None:
    """Check that each configuration field is set by every engine, and each choice of a policy has a field wide
    enough."""
    fields, codes = set(CFG.names or ()), Policy().codes()
    lost = sorted(set(codes) - fields)
    fits(
        f"choices of a policy, of which {', '.join(lost)} reaches no rule",
        len(codes),
        len(codes) - len(lost),
        "model/layout.py: CFG",
    )
    unset = sorted(fields - set(codes) - set(SET_BESIDE))
    fits(
        f"configuration fields, of which nobody sets {', '.join(unset)}",
        len(fields),
        len(fields) - len(unset),
        "model/policy.py: Policy; or scenario.system, sim/build.py and engine/tables.py: SET_BESIDE",
    )
    for name in set(CHOICES) & fields:
        fits(f"words of the choice {name}", len(CHOICES[name]) - 1, most(CFG, name), "model/layout.py: CFG")


def _properties() -> None:
    """Check that broken() returns exactly the numbers of PROPERTIES."""
    fits(
        "properties, and the sentences of the mail behind them", len(PROPERTIES), len(SEED), "model/properties.py: SEED"
    )
    returned = _returned(properties, "broken")
    fits(
        "numbers of properties that broken() returns, and their names",
        max(returned),
        len(PROPERTIES) - 1,
        "model/properties.py: PROPERTIES",
    )
    missing = [str(n) for n in range(1, len(PROPERTIES)) if n not in returned]
    fits(
        f"properties, of which broken() never returns {', '.join(missing)}",
        len(PROPERTIES) - 1,
        len(PROPERTIES) - 1 - len(missing),
        "model/properties.py: broken",
    )


def _returned(module: ModuleType, name: str) -> set[int]:
    """Returns the integer literals that a function returns, itself or by functions of its module that it calls."""
    functions = {node.name: node for node in _tree(module).body if isinstance(node, ast.FunctionDef)}
    seen: set[str] = set()
    numbers: set[int] = set()
    left = [name]
    while left:
        here = left.pop()
        if here in seen or here not in functions:
            continue
        seen.add(here)
        for node in ast.walk(functions[here]):
            match node:
                case ast.Return(value=ast.Constant(value=int() as number)) if not isinstance(number, bool):
                    numbers.add(number)
                case ast.Call(func=ast.Name(id=called)):
                    left.append(called)
    return numbers


@functools.cache
def _tree(module: ModuleType) -> ast.Module:
    """Returns the parsed source of a module."""
    return ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))


check()
