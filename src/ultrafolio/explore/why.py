"""Why an expression is not true: in one state, or in any state of the graph. It is taken apart at its `and`s."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ultrafolio.check.search.graph import Graph
from ultrafolio.model import designs
from ultrafolio.model.layout import State
from ultrafolio.nouns import plural

from .expression import Value, compiled
from .node import word
from .walk import Walk, path_text


@dataclass(frozen=True, slots=True)
class Part:
    """One of the expressions that `and` joins. fields: (text, section, field, value), for the values in it."""

    text: str
    holds: Value
    fields: list[tuple[str, str, str, Value]]


def parts(text: str, state: State) -> list[Part]:
    """Returns the parts of an expression. Raises InputError for a malformed one."""
    compiled(text, state)
    tree = ast.parse(text, mode="eval").body
    every = tree.values if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And) else [tree]
    return [Part(ast.unparse(one), compiled(ast.unparse(one), state), list(_fields(one, state))) for one in every]


def _fields(tree: ast.expr, state: State) -> Iterator[tuple[str, str, str, Value]]:
    """The section[number].field of an expression, each once."""
    found: dict[str, tuple[str, str]] = {}
    for one in ast.walk(tree):
        if isinstance(one, ast.Attribute) and isinstance(one.value, ast.Subscript):
            found[ast.unparse(one)] = (ast.unparse(one.value.value), one.attr)
    for text, (section, name) in found.items():
        yield text, section, name, compiled(text, state)


def why_not(walk: Walk, graph: Graph, text: str, here: State) -> dict[str, Any]:
    """Returns why the expression is not true, as one JSON object.

    here      for each part, whether it holds in the state `here`, and the values in it
    states    of how many states; complete: whether these are all
    parts     for each part, in how many states it holds
    nearest   of the states in which most parts hold, one that is reached in the fewest steps: its path, and what lacks
    """
    some = parts(text, walk.system.state)
    counts, best, at = [0] * len(some), -1, 0
    for number in range(graph.states):
        state = graph.unpack(number)
        truths = [bool(part.holds(state)) for part in some]
        counts = [count + truth for count, truth in zip(counts, truths, strict=True)]
        if sum(truths) > best:
            best, at = sum(truths), number
    nearest = graph.unpack(at)
    return {
        "expression": text,
        "here": [{"part": part.text, "holds": bool(part.holds(here)), "values": _values(part, here)} for part in some],
        "states": graph.states,
        "complete": graph.complete,
        "parts": [{"part": part.text, "states": count} for part, count in zip(some, counts, strict=True)],
        "nearest": {
            "path": path_text(walk.indices(graph.path(at))),
            "hold": best,
            "lacks": [
                {"part": part.text, "values": _values(part, nearest)} for part in some if not part.holds(nearest)
            ],
        },
    }


def _values(part: Part, state: State) -> dict[str, str]:
    """Returns the values in a part, by name where the field has names."""
    design = designs.of(state).name
    return {text: word(section, name, value(state), design) for text, section, name, value in part.fields}


def why_not_text(made: dict[str, Any]) -> str:
    """Returns the answer of why_not() as lines."""
    out = [f"in this state: {made['expression']}"]
    for one in made["here"]:
        out.append(f"  {'holds  ' if one['holds'] else 'is not '} {one['part']}{_told(one['values'])}")
    every = "every reachable state" if made["complete"] else "what was explored"
    out.append(f"in {every}, {plural(made['states'], 'state')}:")
    out += [f"  {plural(one['states'], 'state')} with {one['part']}" for one in made["parts"]]
    near, lacks = made["nearest"], made["nearest"]["lacks"]
    where = f"path {near['path'] or '(none)'}"
    if not lacks:
        return "\n".join([*out, f"it holds at {where}"])
    out.append(f"most of it, {near['hold']} of {plural(len(made['parts']), 'part')}, holds at {where}; there is not")
    return "\n".join([*out, *(f"  {one['part']}{_told(one['values'])}" for one in lacks)])


def _told(values: dict[str, str]) -> str:
    return ": " + ", ".join(f"{name} is {value}" for name, value in values.items()) if values else ""
