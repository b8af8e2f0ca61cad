"""Expressions over a state, such as `uv[1].state == EXPORTED and mm[0].pins > 0`: parsed with `ast`, few nodes allowed.

Sections are those of the design's layout, indexed by page, actor or virtual machine; names in capitals are its
constants.
There are no calls, and no other names.
"""

from __future__ import annotations

import ast
import difflib
import operator
from collections.abc import Callable
from typing import Any

from ultrafolio.errors import InputError
from ultrafolio.model import designs
from ultrafolio.model.design import Design
from ultrafolio.model.layout import OWNERS, State

MAX_LENGTH = 300
ALLOWED = (
    f"section[number].field (sections {', '.join(OWNERS)}), constants in capitals, whole numbers, "
    "== != < <= > >=, and, or, not, + - *, brackets"
)
Value = Callable[[State], int]
_COMPARE: dict[type, Callable[[int, int], bool]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}  # fmt: skip
_ARITHMETIC: dict[type, Callable[[int, int], int]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
}  # fmt: skip


def constants(design: Design) -> dict[str, int]:
    """Returns the constants that expressions over states of a design may name."""
    return {name: value for name, value in design.constants.items() if isinstance(value, int)}


def compiled(text: str, state: State) -> Value:
    """The expression as a function of a state (arrays or lists) with the shape of `state`.

    Raises InputError with the column, from 1, the text there, and what is allowed.
    """
    if len(text) > MAX_LENGTH:
        raise InputError("the expression is too long", value=text, allowed=f"at most {MAX_LENGTH} characters")
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        at = error.offset - 1 if error.offset else len(text)  # 0: something is missing at the end
        raise _wrong(text, at, "this cannot be read", ALLOWED) from None
    except (ValueError, MemoryError, RecursionError):
        raise _wrong(text, 0, "this cannot be read", ALLOWED) from None
    return _Reader(text, state).value(tree)


def _wrong(text: str, column: int, what: str, allowed: str, cause: str = "") -> InputError:
    return InputError(
        f"expression, column {column + 1}: {what}",
        value=text,
        allowed=allowed,
        cause=cause,
        then="ultrafolio explore --help",
    )


class _Reader:
    def __init__(self, text: str, state: State) -> None:
        self.text, self.state = text, state
        self.sections = designs.of(state).constants["SECTIONS"]
        self.constants = constants(designs.of(state))

    def wrong(self, at: ast.expr, what: str, allowed: str = ALLOWED, cause: str = "") -> InputError:
        return _wrong(self.text, at.col_offset, what, allowed, cause)

    def value(self, at: ast.expr) -> Value:
        """Returns the function of a state that computes an expression. Raises InputError for what is not in the
        language."""
        match at:
            case ast.BoolOp(op=op, values=values):
                parts, every = [self.value(part) for part in values], isinstance(op, ast.And)
                return lambda s: int((all if every else any)(part(s) for part in parts))
            case ast.UnaryOp(op=ast.Not(), operand=inner):
                negated = self.value(inner)
                return lambda s: int(not negated(s))
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                positive = self.value(inner)
                return lambda s: -positive(s)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                a, b, calculate = self.value(left), self.value(right), _ARITHMETIC[type(op)]
                return lambda s: calculate(a(s), b(s))
            case ast.Compare() if all(type(op) in _COMPARE for op in at.ops):
                return self.compare(at)
            case ast.Constant(value=number) if type(number) is int:
                return lambda s: number
            case ast.Name(id=name):
                return self.constant(at, name)
            case ast.Attribute(value=ast.Subscript(value=ast.Name(id=section), slice=index), attr=field):
                return self.field(at, section, index, field)
        raise self.wrong(at, f"{ast.unparse(at)[:40]!r} is not allowed")

    def compare(self, at: ast.Compare) -> Value:
        """Returns the function of a state that computes a comparison, 1 or 0."""
        sides = [self.value(side) for side in (at.left, *at.comparators)]
        tests = [_COMPARE[type(op)] for op in at.ops]

        def holds(s: State) -> int:
            values = [side(s) for side in sides]
            return int(all(test(a, b) for test, a, b in zip(tests, values, values[1:], strict=False)))

        return holds

    def constant(self, at: ast.expr, name: str) -> Value:
        """Returns the function that gives a constant of the design's layout. Raises InputError for an unknown name."""
        if name not in self.constants:
            section = f"{name}[0].{self.sections[name].names[0]}" if name in OWNERS else ""
            raise self.wrong(at, f"{name!r} is no constant", *_near(name, self.constants, section))
        number = self.constants[name]
        return lambda s: number

    def field(self, at: ast.expr, section: str, index: ast.expr, field: str) -> Value:
        """Returns the function that reads SECTION[INDEX].FIELD of a state. Raises InputError if there is none."""
        if section not in OWNERS:
            raise self.wrong(at, f"no section {section!r}", *_near(section, OWNERS))
        size = len(getattr(self.state, section))
        if not (isinstance(index, ast.Constant) and type(index.value) is int and index.value < size):
            known = f"{section}[0] to {section}[{size - 1}]"
            raise self.wrong(index, f"no {section}[{ast.unparse(index)[:20]}]", known)
        fields, row = self.sections[section].names or (), index.value
        if field not in fields:
            column = (at.end_col_offset or 0) - len(field)
            raise _wrong(self.text, column, f"no field {field!r} in {section}", *_near(field, fields))

        def read(s: State) -> int:
            section_ = getattr(s, section)
            return int(getattr(section_[row], field) if isinstance(section_, list) else section_[field][row])

        return read


def _near(name: str, known: Any, instead: str = "") -> tuple[str, str]:
    """(allowed names, in full if they are few; a question with the nearest name, or "")."""
    near = [instead] if instead else difflib.get_close_matches(name, known, n=1)
    listed = ", ".join(known) if len(known) < 20 else "constants of the layout, such as SECURE, EXPORTED, IMPORT_FREEZE"
    return listed, f"did you mean {near[0]}?" if near else ""
