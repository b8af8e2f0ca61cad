"""Functions and classes of Python as JavaScript."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import Any

from .expressions import Expressions
from .names import Names, name_of

PLAIN_OPERATIONS = {ast.Add: "+=", ast.Sub: "-=", ast.BitOr: "|=", ast.BitAnd: "&="}


def parameters(node: ast.FunctionDef) -> list[str]:
    """The parameters in order, those that can only be named at the end."""
    return [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]


def fields(node: ast.ClassDef) -> list[ast.AnnAssign]:
    """The fields of a dataclass."""
    return [line for line in node.body if isinstance(line, ast.AnnAssign)]


class Function(Expressions):
    """One function, written line by line."""

    def __init__(
        self, names: Names, known: Mapping[str, Any], where: str, *, plain: bool, columns: bool = False
    ) -> None:
        super().__init__(names, known, where, plain=plain, columns=columns)
        self.lines: list[str] = []
        self.temporary = 0
        self.node: ast.FunctionDef | None = None

    def written(self, node: ast.FunctionDef, head: str = "function ", outer: Iterable[str] = ()) -> str:
        """The whole function. head: what stands before its name. outer: variables of a function around it."""
        self.node, given = node, parameters(node)
        own = {n.id for n in _within(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        inner = {n.name for n in node.body if isinstance(n, ast.FunctionDef)}
        self.local = {*outer, *given, *own, *inner}
        self._find_aliases(node)
        said = [self._parameter(node, name) for name in given if name != "self"]
        self.lines = [f"{head}{name_of(node.name)}({', '.join(said)}) {{"]
        counters = {
            n.target.id
            for n in _within(node)
            if isinstance(n, ast.For) and isinstance(n.target, ast.Name) and _is_range(n.iter)
        }
        if variables := sorted(own - inner - counters - {*given, "run"}):
            self.lines.append(f"  let {', '.join(map(name_of, variables))};")
        self._body(node.body, "  ")
        return "\n".join([*self.lines, "}"])

    def _parameter(self, node: ast.FunctionDef, name: str) -> str:
        """Returns a parameter, with its default."""
        pairs = [
            *zip(reversed(node.args.args), reversed(node.args.defaults), strict=False),
            *zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True),
        ]
        default = {a.arg: value for a, value in pairs if value is not None}.get(name)
        return name_of(name) if default is None else f"{name_of(name)} = {self.of(default)}"

    def _find_aliases(self, node: ast.FunctionDef) -> None:
        """Note the variables that are given a record. Each must be given records of one section only."""
        given: dict[str, set[tuple[str, str] | None]] = {}
        for line in _within(node):
            if isinstance(line, ast.Assign):
                for target in line.targets:
                    for name, value in _assigned(target, line.value):
                        given.setdefault(name, set()).add(self.section(value))
                        if isinstance(value, ast.ListComp) and (kind := self.section(value.elt)):
                            self.lists[name] = kind
        for name, kinds in given.items():
            (kind, *more) = kinds
            if kind and more:
                raise self.refuse(node)
            if kind:
                self.aliases[name] = kind

    # ---------------------------------------------------------------------------------------- statements
    def _body(self, body: list[ast.stmt], indent: str) -> None:
        """Write statements."""
        for line in body:
            self._statement(line, indent)

    def _statement(self, node: ast.stmt, indent: str) -> None:
        """Write one statement. Raises Untranslatable for one of another kind."""
        match node:
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                return
            case ast.Expr():
                self.lines.append(f"{indent}{self.of(node.value)};")
            case ast.Return():
                self.lines.append(f"{indent}return{' ' + bare(self.of(node.value)) if node.value else ''};")
            case ast.Assign():
                self._assign(node, indent)
            case ast.AnnAssign() if node.value:
                if not self._is_run(node.target, node.value):
                    self.lines.append(f"{indent}{self.of(node.target)} = {self.of(node.value)};")
            case ast.Raise(exc=ast.Call() as error):
                self.lines.append(f"{indent}throw {self.of(error)};")
            case ast.AnnAssign():
                return
            case ast.AugAssign():
                self._augmented(node, indent)
            case ast.If():
                self._if(node, indent)
            case ast.For(orelse=[]):
                self._for(node, indent)
            case ast.While(orelse=[]):
                self._block(f"while ({bare(self.truth(node.test))})", node.body, indent)
            case ast.Break() | ast.Continue():
                self.lines.append(f"{indent}{'break' if isinstance(node, ast.Break) else 'continue'};")
            case ast.FunctionDef():
                inner = Function(self.names, self.known, self.where, plain=self.plain, columns=self.columns)
                self.lines += [indent + line for line in inner.written(node, outer=self.local).split("\n")]
            case ast.Assert():
                return
            case _:
                raise self.refuse(node)

    def _block(self, head: str, body: list[ast.stmt], indent: str) -> None:
        """Write a block with its head."""
        self.lines.append(f"{indent}{head} {{")
        self._body(body, indent + "  ")
        self.lines.append(f"{indent}}}")

    def _if(self, node: ast.If, indent: str) -> None:
        """Write an `if` with its `else`."""
        self._block(f"if ({bare(self.truth(node.test))})", node.body, indent)
        if node.orelse:
            self.lines[-1] += " else {"
            self._body(node.orelse, indent + "  ")
            self.lines.append(f"{indent}}}")

    def _for(self, node: ast.For, indent: str) -> None:
        """Write a loop over a range or over elements."""
        match node:
            case ast.For(target=ast.Name(id=name), iter=ast.Call(args=args)) if _is_range(node.iter):
                if not self._is_own(node, name):
                    raise self.refuse(node)
                first, end = ["0", *map(self.of, args)][-2:]
                self.temporary += 1
                at, limit = name_of(name), f"e{self.temporary}"
                head = f"for (let {at} = {bare(first)}, {limit} = {bare(end)}; {at} < {limit}; {at}++)"
                self._block(head, node.body, indent)
            case _:
                self._block(f"for ({self.of(node.target)} of {self.of(node.iter)})", node.body, indent)

    def _is_own(self, node: ast.For, name: str) -> bool:
        """Whether a loop's variable is used within loops over it only, and changed by them only.

        What Python leaves in it after the loop is then never seen.
        """
        assert self.node
        loops = [n for n in ast.walk(self.node) if isinstance(n, ast.For) and ast.unparse(n.target) == name]
        inside = {n for loop in loops for line in loop.body for n in ast.walk(line)}
        for n in ast.walk(self.node):
            if isinstance(n, ast.Name) and n.id == name:
                is_target = any(n is loop.target for loop in loops)
                if not is_target and (n not in inside or isinstance(n.ctx, ast.Store)):
                    return False
        return True

    # --------------------------------------------------------------------------------------- assignments
    def _assign(self, node: ast.Assign, indent: str) -> None:
        """Write an assignment; one to several targets computes all values first."""
        target, *more = node.targets
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple) and not more:
            self._each(list(zip(target.elts, node.value.elts, strict=True)), indent)
            return
        if isinstance(target, ast.Tuple):
            self.lines.append(f"{indent}{self.of(target)} = {self.of(node.value)};")
        elif isinstance(target, ast.Subscript) and not self.plain:
            for one in node.targets:
                self._put(one, self.of(node.value), indent)
        elif not self._is_run(target, node.value):
            place = bare(self.value(node.value))
            self.lines.append(f"{indent}{' = '.join(self._target(t) for t in node.targets)} = {place};")

    def _put(self, target: ast.expr, value: str, indent: str) -> None:
        """Write that an element, or what else is assigned to, is given a value."""
        if isinstance(target, ast.Subscript) and not self.plain:
            self.lines.append(f"{indent}put({self.of(target.value)}, {self.of(target.slice)}, {value});")
        else:
            self.lines.append(f"{indent}{self._target(target)} = {value};")

    def _each(self, pairs: list[tuple[ast.expr, ast.expr]], indent: str) -> None:
        """Several at once: every value is computed before the first is given."""
        pairs = [(target, value) for target, value in pairs if not self._is_run(target, value)]
        simple = not any(_depends(value, target) for n, (target, _) in enumerate(pairs) for _, value in pairs[n + 1 :])
        said = [bare(self.value(value)) for _, value in pairs]
        if simple:
            for (target, _), value in zip(pairs, said, strict=True):
                self._put(target, value, indent)
            return
        self.temporary += 1
        names = [f"new{self.temporary}_{n}" for n in range(len(said))]
        held = ", ".join(f"{name} = {value}" for name, value in zip(names, said, strict=True))
        self.lines.append(f"{indent}const {held};")
        for (target, _), name in zip(pairs, names, strict=True):
            self._put(target, name, indent)

    def _is_run(self, target: ast.expr, value: ast.expr) -> bool:
        """Whether the loaded rules are given a name: in JavaScript they are global."""
        match target, value:
            case ast.Name(id="run"), ast.Call(func=ast.Name(id="interpreted")):
                self.local.discard("run")
                return True
        return False

    def _target(self, node: ast.expr) -> str:
        """Returns what is assigned to."""
        if isinstance(node, ast.Name):
            return name_of(node.id)
        return self.of(node)

    def _augmented(self, node: ast.AugAssign, indent: str) -> None:
        """Write an assignment such as `+=`."""
        value = ast.BinOp(node.target, node.op, node.value)
        if isinstance(node.op, ast.Add) and not self.plain:
            self.lines.append(f"{indent}{self.of(node.target)} = plus({self.of(node.target)}, {self.of(node.value)});")
            return
        if type(node.op) in PLAIN_OPERATIONS:
            sign = PLAIN_OPERATIONS[type(node.op)]
            self.lines.append(f"{indent}{self.of(node.target)} {sign} {bare(self.of(node.value))};")
            return
        self.lines.append(f"{indent}{self.of(node.target)} = {self.of(value)};")


def class_written(names: Names, known: Mapping[str, Any], node: ast.ClassDef, left_out: Iterable[str]) -> str:
    """A dataclass: a constructor with its fields, and its methods and properties but for those left out."""
    made = [f"class {node.name} {{"]
    function = Function(names, known, node.name, plain=False)
    given, kept = [], []
    for line in fields(node):
        name = ast.unparse(line.target)
        given.append(name if line.value is None else f"{name} = {_default(function, line.value)}")
        kept.append(f"this.{name} = {name};")
    made.append(f"  constructor({', '.join(given)}) {{ {' '.join(kept)} }}")
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name not in left_out:
            head = "get " if any(ast.unparse(d) == "property" for d in method.decorator_list) else ""
            text = Function(names, known, f"{node.name}.{method.name}", plain=False).written(method, head)
            made += ["  " + line.replace("self.", "this.") for line in text.split("\n")]
    return "\n".join([*made, "}"])


def _is_range(node: ast.expr) -> bool:
    """Whether an expression is a call of range() with one or two arguments."""
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "range" and len(node.args) < 3


def _default(function: Function, node: ast.expr) -> str:
    """The default of a field of a dataclass."""
    match node:
        case ast.Call(func=ast.Name("field"), keywords=[ast.keyword("default_factory", ast.Name(id=kind)), *_]):
            return {"list": "[]", "dict": "new Map()"}[kind]
        case ast.Call(func=ast.Name("field"), keywords=[ast.keyword("default", value), *_]):
            return function.of(value)
    return function.of(node)


def _depends(value: ast.expr, target: ast.expr) -> bool:
    """Whether a value may be another once `target` was given one: it names that variable; or, where a field is given,
    it reads a field of that name or calls a function."""
    for n in ast.walk(value):
        if isinstance(target, ast.Name) and isinstance(n, ast.Name) and n.id == target.id:
            return True
        if isinstance(target, ast.Attribute) and (
            isinstance(n, ast.Call) or (isinstance(n, ast.Attribute) and n.attr == target.attr)
        ):
            return True
    return isinstance(target, ast.Subscript)


def bare(text: str) -> str:
    """JavaScript without parentheses around all of it."""
    depth = 0
    for n, letter in enumerate(text):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if depth == 0 and (n == 0 or n < len(text) - 1):
            return text
    return text[1:-1] if text.startswith("(") and not set(text) & set("'\"`") else text


def _within(node: ast.FunctionDef) -> Iterable[ast.AST]:
    """Everything in a function but what is in functions and comprehensions within it, whose variables are theirs."""
    left: list[ast.AST] = list(node.body)
    while left:
        here = left.pop()
        yield here
        if not isinstance(here, ast.FunctionDef | ast.ListComp | ast.GeneratorExp | ast.SetComp | ast.Lambda):
            left += ast.iter_child_nodes(here)


def _assigned(target: ast.expr, value: ast.expr) -> list[tuple[str, ast.expr | None]]:
    """The names that an assignment gives a value, and the values where they can be told apart."""
    match target, value:
        case ast.Name(id=name), _:
            return [(name, value)]
        case ast.Tuple(elts=names), ast.Tuple(elts=values):
            return [pair for t, v in zip(names, values, strict=True) for pair in _assigned(t, v)]
        case ast.Tuple(elts=names), _:
            return [(n.id, None) for n in names if isinstance(n, ast.Name)]
    return []
