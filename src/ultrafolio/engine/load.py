"""Loading the rules: the same source twice, as plain Python and compiled.

`interpreted()` are the functions of model/ as they stand. `compiled()` reads the same files again, keeps their
functions, and compiles each with Numba; both get the one dispatcher, `step`, generated from the rule table.
"""

from __future__ import annotations

import ast
import errno
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from ultrafolio.model import layout
from ultrafolio.model.rule import RULES
from ultrafolio.model.rules import MODULES
from ultrafolio.version import __version__

from .tables import RULE_MODULES

_PACKAGE = Path(layout.__file__).parent.parent
_ROOM = 64 << 20
"""Bytes that must be free where compiled code is to be kept; it takes about 10 MB."""


COMPILED = {
    "model": ("bounds", "layout", "properties", "rule"),
    "model/rules": tuple(module.__name__.rpartition(".")[2] for module in MODULES),
    "engine": ("load", "tables"),
    "conformance": ("entry",),
    "waits": ("load", "rules", "tables"),
    "sim": ("load", "loop", "records"),
    "check": ("kinds",),
    "check/search": ("atomics", "bfs", "canonical", "graph", "memo", "packing", "thread_local"),
    "check/verdicts": ("liveness",),
}
"""The modules, by folder, whose functions are compiled, or that say what these contain."""


def digest(*folders: str) -> str:
    """blake2b of every source file in these folders of the package (default: model and engine) and the version."""
    text = hashlib.blake2b(__version__.encode(), digest_size=16)
    for folder in folders or ("model", "engine"):
        for file in sorted((_PACKAGE / folder).rglob("*.py")):
            text.update(str(file.relative_to(_PACKAGE)).encode() + b"\0" + file.read_bytes())
    return text.hexdigest()


def dispatcher() -> str:
    """Source of `step(s, t, op, page)`: run the rule that thread `t` is at; `op` and `page` are its choice."""
    lines = ["def step(s, t, op, page):", "    pc = s.task[t].pc"]
    for pc in sorted(RULES):
        rule = RULES[pc]
        lines.append(f"    if pc == {pc}:")
        lines.append(f"        return {rule.function.__name__}(s, t{', op, page' if rule.chooses else ''})")
    lines.append(f"    return {layout.W_IDLE}")
    return "\n".join(lines) + "\n"


def constants(module: ModuleType) -> dict[str, Any]:
    """The constants of a layout module: its upper-case names."""
    return {name: value for name, value in vars(module).items() if name.isupper()}


def functions(
    decorate: Callable[[Any], Any], changed: Mapping[str, str] | None = None, *, unsigned: bool = False
) -> dict[str, Any]:
    """All rule functions by name, each through `decorate`, plus `step`, in a namespace of their own.

    `changed` replaces source text before it is loaded, {old: new}; each `old` must stand in exactly one place.
    That is how a deliberately broken rule is made for a test, without a second copy of the rule.
    `unsigned` is for Numba: see _Unsigned.
    """
    space = constants(layout) | {"__name__": __name__}
    if unsigned:
        import numba

        space["uintp"] = numba.uintp
    left = dict(changed or {})
    for module in RULE_MODULES:
        add_functions(space, module, decorate, left)
    if left:
        raise ValueError(f"not found exactly once in the rules: {list(left)}")
    exec(compile(dispatcher(), "<dispatcher>", "exec"), space)  # nosec B102 (the rules of this package)
    space["step"] = decorate(space["step"])
    return space


class _Unsigned(ast.NodeTransformer):
    """Writes every index i as uintp(i). No rule uses a negative index, and compiled code then does not test for one
    at every access, which is 10 to 15 % of its time."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.Subscript:
        self.generic_visit(node)
        if isinstance(node.slice, ast.Tuple):
            node.slice.elts = [self._cast(index) for index in node.slice.elts]
        elif not isinstance(node.slice, ast.Constant):
            node.slice = self._cast(node.slice)
        return node

    def _cast(self, index: ast.expr) -> ast.expr:
        return ast.Call(ast.Name("uintp", ast.Load()), [index], [])


def add_functions(
    space: dict[str, Any], module: ModuleType, decorate: Callable[[Any], Any], changed: dict[str, str] | None = None
) -> None:
    """Put the decorated functions of a rule module into `space`; what was found of `changed` is taken out of it.

    ValueError for a function whose name one in `space` has already: those that call that one would call this.
    """
    file = str(module.__file__)
    source = Path(file).read_text(encoding="utf-8")
    if "uintp" in space:
        file = _shared(Path(file), source)
    for old, new in list((changed or {}).items()):
        if changed and source.count(old) == 1:
            source = source.replace(old, new)
            del changed[old]
    for node in ast.parse(source, file).body:
        if isinstance(node, ast.FunctionDef) and node.decorator_list:
            if node.name in space:
                raise ValueError(f"{file}: a second function with the name {node.name}")
            node.decorator_list = []
            if "uintp" in space:
                node = ast.fix_missing_locations(_Unsigned().visit(node))
            exec(compile(ast.Module([node], []), file, "exec"), space)  # nosec B102 (the rules of this package)
            space[node.name] = decorate(space[node.name])


def _shared(file: Path, source: str) -> str:
    """A copy of a source file in the cache. Numba keys what it keeps by the path and the time of the file, which differ
    between environments; those of the copy do not."""
    if not can_keep():
        return str(file)
    copy = cache_folder() / file.parent.name / file.name
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=copy.parent, encoding="utf-8", delete=False) as made:
            made.write(source)
        os.replace(made.name, copy)
    return str(copy)


def rules(space: Mapping[str, Any]) -> Any:
    """The namespace as an object: `.step`, `.focus`, `.broken`, and every rule function by name."""
    return SimpleNamespace(**{k: v for k, v in space.items() if not k.startswith("__")})


@functools.cache
def interpreted() -> Any:
    """The rules as plain Python functions; no Numba needed."""
    return rules(functions(lambda function: function))


def mutant(changed: Mapping[str, str]) -> Any:
    """Plain Python rules with some source text replaced (see `functions`)."""
    return rules(functions(lambda function: function, changed))


def cache_folder() -> Path:
    """Where compiled code is kept: keyed by the sources of COMPILED, since Numba itself does not notice a changed
    callee, and by the versions of what compiles, so that environments that agree in both share it."""
    base = os.environ.get("ULTRAFOLIO_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "ultrafolio"
    )
    return Path(base) / f"{_compiled_digest()}-{_versions()}"


@functools.cache
def _compiled_digest() -> str:
    text = hashlib.blake2b(__version__.encode(), digest_size=16)
    for folder, names in COMPILED.items():
        for name in names:
            text.update(name.encode() + b"\0" + (_PACKAGE / folder / f"{name}.py").read_bytes())
    return text.hexdigest()


def _versions() -> str:
    found = []
    for package in ("numba", "llvmlite", "numpy"):
        try:
            found.append(importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            found.append("none")
    return "-".join(found)


def can_compile() -> bool:
    """Whether Numba is installed and not switched off; without it the plain functions do all."""
    return os.environ.get("NUMBA_DISABLE_JIT", "0") == "0" and importlib.util.find_spec("numba") is not None


def is_kept(function: str) -> bool:
    """Whether this interpreter finds the compiled `function` (module.name) in the cache."""
    # Numba's name-line.pyXY.number.nbc: interpreters share the folder, and each compiles for itself
    tag = f"py{sys.version_info[0]}{sys.version_info[1]}{getattr(sys, 'abiflags', '')}"
    return any(cache_folder().rglob(f"{function}-*.{tag}.*.nbc"))


def say_compiling(function: str, what: str, seconds: int) -> None:
    """One line on stderr if `function` must be compiled first."""
    if not is_kept(function):
        where = f"kept in {cache_folder()}" if can_keep() else "not kept"
        print(f"ultrafolio: compiling {what}, about {seconds} s of CPU ({where})", file=sys.stderr)


@functools.cache
def can_keep() -> bool:
    """Whether compiled code can be kept; if not, one line on stderr says why. Looks once."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
        if shutil.disk_usage(folder).free < _ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        print(
            f"ultrafolio: {folder}: {error.strerror}; what is compiled is not kept "
            "(ULTRAFOLIO_CACHE=FOLDER names another place)",
            file=sys.stderr,
        )
        return False
    return True


def entry_flags() -> dict[str, Any]:
    """Flags of a function that Python calls: kept in the cache where that can be written."""
    return {**numba_flags(), "nogil": True, "cache": can_keep()}


@functools.cache
def numba_flags() -> dict[str, Any]:
    """Flags of every compiled function.

    `_nrt=False` drops reference counting of array arguments, which costs up to 30 times; it is private to Numba,
    so a version that refuses it falls back to the slow form, with equal results.
    """
    os.environ.setdefault("NUMBA_CACHE_DIR", str(cache_folder()))
    import numba

    flags = {"error_model": "numpy", "_nrt": False}
    try:
        njit: Any = numba.njit
        njit(**flags)(lambda a: a[0])
    except Exception:
        del flags["_nrt"]
    return flags


def inner_flags() -> dict[str, Any]:
    """Flags of a function that only compiled code calls: inlined, and without the wrappers Python would call."""
    return {**numba_flags(), "forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def apart_flags() -> dict[str, Any]:
    """Flags of a function that compiled code calls seldom: not inlined, which would compile it again for each call."""
    return {**numba_flags(), "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


@functools.cache
def compiled() -> Any:
    """The rules compiled by Numba, inlined into whoever calls them."""
    flags = inner_flags()
    import numba

    njit: Any = numba.njit
    return rules(functions(njit(**flags), unsigned=True))
