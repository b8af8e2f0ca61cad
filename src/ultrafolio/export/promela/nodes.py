"""The tree of Promela statements of a rule: its nodes, printing, and analysis."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ultrafolio.export.promela import terms
from ultrafolio.export.promela.source import Untranslatable
from ultrafolio.export.promela.terms import Term

PREFIX = "my_"
"""Prefix of every temporary."""
OUTCOME, BROKEN = "my_outcome", "my_broken"


@dataclass(frozen=True, slots=True)
class Set:
    """An assignment to a variable of the state or to a temporary."""

    target: str
    value: Term


@dataclass(frozen=True, slots=True)
class If:
    """Two branches; either may be empty."""

    test: Term
    yes: list[Node]
    no: list[Node]


@dataclass(frozen=True, slots=True)
class For:
    """A loop over first..last, empty where last is smaller."""

    variable: str
    first: Term
    last: Term
    body: list[Node]


@dataclass(frozen=True, slots=True)
class Break:
    """The innermost loop ends."""


@dataclass(frozen=True, slots=True)
class End:
    """End of the step: the value that the root function returned."""

    outcome: Term


@dataclass(frozen=True, slots=True)
class Assert:
    """The step broke this property."""

    number: int


Node = Set | If | For | Break | End | Assert


def ends(nodes: Iterable[Node]) -> Iterator[End]:
    """Yields every End."""
    for node in nodes:
        if isinstance(node, End):
            yield node
        elif isinstance(node, If):
            yield from ends(node.yes)
            yield from ends(node.no)


def enabled(nodes: Sequence[Node]) -> Term:
    """Returns the condition under which a rule, read as a guard, is enabled. Raises Untranslatable if it is
    undecided."""
    if not nodes:
        raise Untranslatable("a rule does not say whether it is enabled")
    first = nodes[0]
    if isinstance(first, End):
        values = first.outcome.values
        if values is None or (min(values) < 0 <= max(values)):
            raise Untranslatable(f"an outcome that may or may not be a step: {first.outcome.text}")
        return terms.TRUE if min(values) >= 0 else terms.FALSE
    if isinstance(first, If):
        yes, no = enabled([*first.yes, *nodes[1:]]), enabled([*first.no, *nodes[1:]])
        test, other = first.test, terms.negate(first.test)
        if no.truth is not None:
            return terms.either(other, yes) if no.truth else terms.both(test, yes)
        if yes.truth is not None:
            return terms.either(test, no) if yes.truth else terms.both(other, no)
        return terms.chosen(test, yes, no)
    raise Untranslatable("a rule decides only after a write whether it is enabled")


def walk(nodes: Iterable[Node]) -> Iterator[Node]:
    """Yields every statement, inner ones after their outer one."""
    for node in nodes:
        yield node
        if isinstance(node, If):
            yield from walk(node.yes)
            yield from walk(node.no)
        elif isinstance(node, For):
            yield from walk(node.body)


def _used(nodes: Iterable[Node]) -> set[str]:
    """Returns every name that is read, also as an index of a write."""
    words: set[str] = set()
    for node in walk(nodes):
        match node:
            case Set(target, value):
                words.update(re.findall(r"\w+", value.text), re.findall(r"\w+", target)[1:])
            case If(test):
                words.update(re.findall(r"\w+", test.text))
            case For(_, first, last):
                words.update(re.findall(r"\w+", f"{first.text} {last.text}"))
    return words


def needed(nodes: Sequence[Node]) -> list[Node]:
    """Returns the statements without unread temporaries, empty branches and empty loops."""
    while True:
        used = _used(nodes)
        fewer = _pruned(nodes, used)
        if fewer == list(nodes):
            return fewer
        nodes = fewer


def _pruned(nodes: Sequence[Node], used: set[str]) -> list[Node]:
    """Returns the statements without assignments to temporaries that nothing reads, and without empty branches."""
    left: list[Node] = []
    for node in nodes:
        match node:
            case Set(target) if target.startswith(PREFIX) and target not in used:
                continue
            case If(test, yes, no):
                node = If(test, _pruned(yes, used), _pruned(no, used))
                if not node.yes and not node.no:
                    continue
                if not node.yes:
                    node = If(terms.negate(test), node.no, [])
            case For(variable, first, last, body):
                node = For(variable, first, last, _pruned(body, used))
                if not node.body:
                    continue
        left.append(node)
    return left


def lines(nodes: Iterable[Node], depth: int, outcome: bool) -> list[str]:
    """Returns the statements as text lines; with `outcome`, an End sets my_outcome, else a comment names it."""
    pad, text = "    " * depth, []
    for node in nodes:
        match node:
            case Set(target, value):
                text.append(f"{pad}{target} = {value.text};")
            case If(test, yes, no):
                text += [f"{pad}if", f"{pad}:: {test.text} ->", *lines(yes, depth + 1, outcome), f"{pad}:: else"]
                if no:
                    text[-1] += " ->"
                text += [*lines(no, depth + 1, outcome), f"{pad}fi;"]
            case For(variable, first, last, body):
                text += [
                    f"{pad}for ({variable} : {first.text} .. {last.text}) {{",
                    *lines(body, depth + 1, outcome),
                    f"{pad}}}",
                ]
            case Break():
                text.append(f"{pad}break;")
            case End(value) if value.const is not None and value.const < 0:
                text.append(f"{pad}assert(false); /* {value.text}, which the guard excludes */")
            case End(value):
                text.append(f"{pad}{OUTCOME} = {value.text};" if outcome else f"{pad}/* {value.text} */")
            case Assert(number):
                text += [f"{pad}{BROKEN} = {number};", f"{pad}assert({BROKEN} != {number});"]
    return text
