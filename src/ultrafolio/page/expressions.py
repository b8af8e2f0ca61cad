"""Expressions of Python as JavaScript: the rules' subset, and what the words of waits and stories use besides.

A record of the state, `s.task[t]`, is the number of its first field in the array `s`; a name that is given a record
stands for that number. Where a function is not `plain`, that is one of the rules' subset, truth is Python's: an empty
list or text is false.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from ultrafolio.model.design import Design

from .names import CONSTANT_SECTIONS, COUNTED, Names, Untranslatable, literal, name_of

_BINARY = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.LShift: "<<",
    ast.RShift: ">>",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
}
_COMPARE = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Is: "===",
    ast.IsNot: "!==",
}
_BUILTINS = {
    "len": "len", "min": "min", "max": "max", "sum": "sum", "any": "anyOf", "all": "allOf", "sorted": "sorted",
    "list": "list", "tuple": "list", "set": "set", "str": "String", "int": "Number", "bool": "truth", "range": "range",
    "enumerate": "enumerate", "zip": "zip", "dict": "dict", "map": "map", "slice": "range",
}  # fmt: skip
_METHODS = {
    "ljust": "padEnd",
    "startswith": "startsWith",
    "append": "push",
    "items": "entries",
    "values": "values",
    "intersection": "intersection",
    "index": "indexOf",
}
NAMESPACES = ("run", "words", "layout", "told")
"""Names that stand for a module, or for the loaded rules: what is taken from them is global in JavaScript."""


class Expressions:
    """Translates the expressions of one function.

    known    the constants of its module;  local: its parameters and variables
    aliases  variables that hold a record: name -> (array, section);  lists: those that hold a list of records
    columns  the state is that of numpy: a section is an object with its columns
    """

    def __init__(
        self, names: Names, known: Mapping[str, Any], where: str, *, plain: bool, columns: bool = False
    ) -> None:
        self.names, self.known, self.where, self.plain, self.columns = names, known, where, plain, columns
        self.local: set[str] = set()
        self.aliases: dict[str, tuple[str, str]] = {}
        self.lists: dict[str, tuple[str, str]] = {}

    def refuse(self, node: ast.AST) -> Untranslatable:
        return Untranslatable(node, self.where)

    # ------------------------------------------------------------------------------------------- records
    def record(self, node: ast.expr) -> tuple[str, str, str] | None:
        """(array, place of the first field, section) of a record of the state; None for anything else."""
        match node:
            case ast.Name(id=name) if name in self.aliases:
                array, section = self.aliases[name]
                return array, name_of(name), section
            case ast.Subscript(value=ast.Attribute(value=ast.Name(id=state), attr=section)) if self.has(section):
                size, at = len(self.names.fields[section]), self.of(node.slice)
                place = "0" if at == "0" else at if size == 1 else f"{at} * {size}"
                if section in CONSTANT_SECTIONS:
                    return CONSTANT_SECTIONS[section], place, section
                return name_of(state), f"o_{section} + {place}", section
        return None

    def section(self, value: ast.expr | None) -> tuple[str, str] | None:
        """Returns (array, section) if a value is a record of a section, else None."""
        match value:
            case ast.Subscript(value=ast.Attribute(value=ast.Name(id=state), attr=section)) if self.has(section):
                return CONSTANT_SECTIONS.get(section, name_of(state)), section
        return None

    def value(self, node: ast.expr) -> str:
        """A value that is given to a name: of a record, its place."""
        found = self.record(node)
        return found[1] if found else self.of(node)

    def has(self, section: str) -> bool:
        """Whether records of the state are asked for by the name of this section."""
        return section in self.names.fields and not self.columns

    def _attribute(self, node: ast.Attribute) -> str:
        """Returns a field of a record, a name of a module, or a property of an object."""
        if found := self.record(node.value):
            array, place, section = found
            if node.attr not in self.names.fields[section]:
                raise self.refuse(node)
            at = self.names.fields[section][node.attr]
            if at == 0:
                return f"{array}[{place}]"
            return f"{array}[{at if place == '0' else f'{place} + {at}'}]"
        if isinstance(node.value, ast.Name) and node.value.id not in self.local:
            owner = self.known.get(node.value.id)
            if isinstance(owner, Design):
                return literal(getattr(owner, node.attr))
            if node.value.id in NAMESPACES and isinstance(owner, ModuleType):
                return self._constant(node.attr, vars(owner)[node.attr])
        return f"{self.of(node.value)}.{node.attr}"

    # --------------------------------------------------------------------------------------------- names
    def _name(self, node: ast.Name) -> str:
        """Returns a name, or its value if it is a constant. Raises Untranslatable for an unknown one."""
        name = node.id
        if name in self.local or name in self.names.functions:
            return name_of(name)
        if name in _BUILTINS and name not in self.known:
            return _BUILTINS[name]
        if name not in self.known:
            raise self.refuse(node)
        return self._constant(name, self.known[name])

    def _constant(self, name: str, value: Any) -> str:
        """Returns a number, or the name of another constant, which is noted."""
        if isinstance(value, int):
            return literal(value)
        self.names.use(name, value)
        return name

    def of(self, node: ast.expr) -> str:
        """The expression as JavaScript; in parentheses where another may stand around it."""
        match node:
            case ast.Constant(value=value):
                return literal(value)
            case ast.Name():
                return self._name(node)
            case ast.Attribute():
                return self._attribute(node)
            case ast.Subscript():
                return self._subscript(node)
            case ast.BinOp(op=ast.Add()) if not self.plain:
                return f"plus({self.of(node.left)}, {self.of(node.right)})"
            case ast.BinOp(op=ast.Mult() | ast.BitOr() as op) if self.columns:
                return (
                    f"{'times' if isinstance(op, ast.Mult) else 'union'}({self.of(node.left)}, {self.of(node.right)})"
                )
            case ast.BinOp(op=op) if type(op) in _BINARY:
                return f"({self.of(node.left)} {_BINARY[type(op)]} {self.of(node.right)})"
            case ast.BinOp(op=ast.FloorDiv()):
                return f"Math.floor({self.of(node.left)} / {self.of(node.right)})"
            case ast.UnaryOp(op=ast.USub()):
                return f"(-{self.of(node.operand)})"
            case ast.UnaryOp(op=ast.Invert()):
                return f"(~{self.of(node.operand)})"
            case ast.UnaryOp(op=ast.Not()):
                return f"!{self.truth(node.operand)}"
            case ast.BoolOp():
                return self._choice(node)
            case ast.Compare():
                return self._compare(node)
            case ast.IfExp():
                return f"({self.truth(node.test)} ? {self.of(node.body)} : {self.of(node.orelse)})"
            case ast.Call():
                return self._call(node)
            case ast.Tuple() | ast.List():
                return "[" + ", ".join(self._items(node.elts)) + "]"
            case ast.JoinedStr():
                return self._text(node)
            case ast.ListComp() | ast.GeneratorExp() | ast.SetComp():
                made = self._comprehension(node.generators, node.elt)
                return f"new Set({made})" if isinstance(node, ast.SetComp) else made
            case ast.Dict():
                pairs = zip(node.keys, node.values, strict=True)
                return "new Map([" + ", ".join(f"[{self.of(k)}, {self.of(v)}]" for k, v in pairs if k) + "])"
            case ast.NamedExpr():
                return f"({self.of(node.target)} = {self.of(node.value)})"
            case ast.Lambda():
                return self._lambda(node)
        raise self.refuse(node)

    def _items(self, nodes: list[ast.expr]) -> list[str]:
        """Returns the elements of a list or tuple."""
        return [f"...{self.of(n.value)}" if isinstance(n, ast.Starred) else self.of(n) for n in nodes]

    def truth(self, node: ast.expr) -> str:
        """The expression as a condition."""
        if self.plain or isinstance(node, ast.Compare | ast.UnaryOp):
            return self.of(node)
        return f"truth({self.of(node)})"

    def _choice(self, node: ast.BoolOp) -> str:
        """Returns `and` or `or`; in rules as an operator, elsewhere with Python's truth."""
        word = "&&" if isinstance(node.op, ast.And) else "||"
        if self.plain:
            return "(" + f" {word} ".join(map(self.of, node.values)) + ")"
        made = self.of(node.values[-1])
        for value in reversed(node.values[:-1]):
            made = f"{'both' if word == '&&' else 'either'}({self.of(value)}, () => {made})"
        return made

    def _subscript(self, node: ast.Subscript) -> str:
        """Returns an element or a slice. Raises Untranslatable for a slice with a step."""
        if self.record(node):
            raise self.refuse(node)
        if isinstance(node.slice, ast.Slice):
            if node.slice.step:
                raise self.refuse(node)
            ends = [self.of(end) if end else "undefined" for end in (node.slice.lower, node.slice.upper)]
            return f"{self.of(node.value)}.slice({', '.join(ends)})"
        if self.plain:
            return f"{self.of(node.value)}[{self.of(node.slice)}]"
        return f"item({self.of(node.value)}, {self.of(node.slice)})"

    # --------------------------------------------------------------------------------------- comparisons
    def _compare(self, node: ast.Compare) -> str:
        """Returns a comparison, also a chain. Raises Untranslatable where a chain would call a function twice."""
        parts, left = [], node.left
        for op, right in zip(node.ops, node.comparators, strict=True):
            parts.append(self._pair(left, op, right))
            left = right
        if any(isinstance(n, ast.Call | ast.NamedExpr) for side in node.comparators[:-1] for n in ast.walk(side)):
            raise self.refuse(node)
        return "(" + " && ".join(parts) + ")"

    def _pair(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> str:
        """Returns the comparison of two sides, by value as in Python."""
        a = self.of(left)
        if isinstance(op, ast.In | ast.NotIn):
            no = "!" if isinstance(op, ast.NotIn) else ""
            if isinstance(right, ast.Tuple) and isinstance(left, ast.Name | ast.Attribute):
                return f"{no}(" + " || ".join(f"{a} == {self.of(n)}" for n in right.elts) + ")"
            return f"{no}has({self.of(right)}, {a})"
        b = self.of(right)
        if isinstance(left, ast.Tuple) or isinstance(right, ast.Tuple):
            return f"order({a}, {b}) {_COMPARE[type(op)]} 0"
        if isinstance(op, ast.Eq | ast.NotEq) and self.columns and not isinstance(right, ast.Constant):
            return f"{'un' if isinstance(op, ast.NotEq) else ''}equal({a}, {b})"
        if isinstance(op, ast.Eq | ast.NotEq) and not self.plain and not isinstance(right, ast.Constant):
            return f"{'!' if isinstance(op, ast.NotEq) else ''}same({a}, {b})"
        return f"{a} {_COMPARE[type(op)]} {b}"

    # --------------------------------------------------------------------------------------------- calls
    def _call(self, node: ast.Call) -> str:
        """Returns a call of a translated function, of a method or of a builtin."""
        match node.func:
            case ast.Name(id="len") if node.args and (counted := self._counted(node.args[0])):
                return counted
            case ast.Name(id=name) if name in self.names.functions and name not in self.local:
                return self._known_call(name, node)
            case ast.Attribute(value=ast.Name(id=space), attr=name) if space in NAMESPACES and space not in self.local:
                if name not in self.names.functions:
                    raise self.refuse(node)
                return self._known_call(name, node)
            case ast.Attribute(value=ast.Call(func=ast.Name(id="interpreted")), attr=name):
                return self._known_call(name, node)
            case ast.Name(id="isinstance") if ast.unparse(node.args[1]) == "int":
                return f"Number.isInteger({self.of(node.args[0])})"
            case ast.Name(id="int") if self.plain and len(node.args) == 1:
                return self.of(node.args[0])
            case ast.Name(id="min" | "max" as name) if self.plain and len(node.args) > 1 and not node.keywords:
                return f"Math.{name}({', '.join(map(self.of, node.args))})"
            case ast.Name(id=name) if name in _BUILTINS and not self.plain:
                return f"{_BUILTINS[name]}({', '.join([*self._items(node.args), *self._key(node)])})"
            case ast.Attribute(value=ast.Name(id="dict"), attr="fromkeys"):
                return f"new Set({self.of(node.args[0])})"
            case ast.Attribute(value=text, attr="join"):
                return f"[...{self.of(node.args[0])}].join({self.of(text)})"
            case ast.Attribute(attr="get" | "setdefault" as attr):
                return f"{attr}({', '.join([self.of(node.func.value), *map(self.of, node.args)])})"
            case ast.Attribute(value=value, attr="any" | "sum" as attr) if self.columns:
                return f"{_BUILTINS[attr]}({self.of(value)})"
            case ast.Attribute(attr="bit_length"):
                return f"bitLength({self.of(node.func.value)})"
            case ast.Attribute(value=value, attr=attr):
                return f"{self.of(value)}.{_METHODS.get(attr, attr)}({', '.join(self._items(node.args))})"
            case ast.Name(id=name) if name in self.local:
                return f"{name_of(name)}({', '.join(self._items(node.args))})"
        raise self.refuse(node)

    def _counted(self, node: ast.expr) -> str:
        """The number of records of a section, where that is what is counted."""
        match node:
            case ast.Attribute(value=ast.Name(), attr=section) if section in COUNTED:
                return COUNTED[section]
        return ""

    def _key(self, node: ast.Call) -> list[str]:
        """The key function of min or sorted; `strict` of zip says nothing here."""
        keys = [word.value for word in node.keywords if word.arg == "key"]
        if any(word.arg not in ("key", "strict") for word in node.keywords):
            raise self.refuse(node)
        return [self.of(key) for key in keys]

    def _known_call(self, name: str, node: ast.Call) -> str:
        """A call of a translated function: keyword arguments in their places."""
        parameters, given = self.names.functions[name], self._items(node.args)
        later = {word.arg: self.of(word.value) for word in node.keywords}
        if set(later) - set(parameters):
            raise self.refuse(node)
        last = max((parameters.index(str(word)) for word in later), default=-1)
        given += [later.get(parameter, "undefined") for parameter in parameters[len(given) : last + 1]]
        return f"{'new ' if name in self.names.classes else ''}{name_of(name)}({', '.join(given)})"

    def _text(self, node: ast.JoinedStr) -> str:
        """An f-string as a template."""
        made = ""
        for part in node.values:
            if isinstance(part, ast.Constant):
                made += literal(part.value)[1:-1].replace('\\"', '"').replace("`", "\\`").replace("${", "\\${")
            else:
                made += "${" + self._part(part) + "}"
        return f"`{made}`"

    def _part(self, node: ast.expr) -> str:
        """A part of an f-string."""
        match node:
            case ast.FormattedValue(format_spec=None, conversion=-1):
                return self.of(node.value)
            case ast.FormattedValue(format_spec=ast.JoinedStr(values=[ast.Constant(value=spec)]), conversion=-1):
                return f"formatted({self.of(node.value)}, {literal(spec)})"
        raise self.refuse(node)

    def _comprehension(self, generators: list[ast.comprehension], elt: ast.expr) -> str:
        """A comprehension as an array."""
        first, *rest = generators
        was, aliases = set(self.local), self.aliases
        source = f"list({self.of(first.iter)})"
        own = {n.id for n in ast.walk(first.target) if isinstance(n, ast.Name)}
        self.local |= own
        target = self.of(first.target)
        self.aliases = {name: kind for name, kind in aliases.items() if name not in own}
        if isinstance(first.iter, ast.Name) and first.iter.id in self.lists:
            self.aliases[ast.unparse(first.target)] = self.lists[first.iter.id]
        for test in first.ifs:
            source += f".filter(({target}) => {self.truth(test)})"
        inner = self._comprehension(rest, elt) if rest else self.value(elt)
        self.local, self.aliases = was, aliases
        return f"{source}.{'flatMap' if rest else 'map'}(({target}) => {inner})"

    def _lambda(self, node: ast.Lambda) -> str:
        """Returns a lambda as an arrow function."""
        was, given = set(self.local), [a.arg for a in node.args.args]
        self.local |= set(given)
        made = f"({', '.join(map(name_of, given))}) => {self.of(node.body)}"
        self.local = was
        return made
