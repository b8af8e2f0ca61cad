"""Loads the rules: the same source twice, as plain Python and compiled.

`interpreted()` executes the functions of model/ as they are. `compiled()` reads the same files and compiles each
function with Numba. Both have one dispatcher, `step`, generated from the rule table.
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

from ultrafolio.model import designs, layout
from ultrafolio.model.design import Design
from ultrafolio.model.designs import S390, PerDesign
from ultrafolio.model.rules import MODULES
from ultrafolio.version import __version__

from . import tables  # noqa: F401  (it checks the tables of the model)

_PACKAGE = Path(layout.__file__).parent.parent
_FREE_BYTES = 64 << 20
"""Bytes that must be free in the cache's file system; compiled code takes about 10 MB."""


COMPILED = {
    "model": ("bounds", "design", "designs", "layout", "properties", "rule"),
    "model/rules": tuple(module.__name__.rpartition(".")[2] for module in MODULES),
    "model/guest_memfd/machines": ("__init__", "cca", "content", "pkvm", "snp", "software", "tdx", "verbs"),
    "model/guest_memfd": (
        "layout",
        "table",
        "blocks",
        "convert",
        "fault",
        "guest",
        "hole",
        "properties",
        "restructure",
        "user",
        "vmm",
    ),
    "engine": ("load", "tables"),
    "conformance": ("entry",),
    "waits": ("load", "memfd", "rules", "tables"),
    "sim": (
        "counting",
        "designs",
        "load",
        "loop",
        "measures",
        "memfd_measures",
        "memfd_pages",
        "memfd_records",
        "records",
    ),
    "check": ("kinds",),
    "check/search": (
        "atomics",
        "bfs",
        "canonical",
        "folding",
        "graph",
        "judging",
        "memo",
        "packing",
        "sharing",
        "thread_local",
    ),
    "check/verdicts": ("liveness",),
}
"""The modules, by folder, whose functions are compiled, or that decide what is compiled."""


def digest(*folders: str) -> str:
    """Returns blake2b of every source file in these folders of the package (default: model and engine) and the
    version."""
    text = hashlib.blake2b(__version__.encode(), digest_size=16)
    for folder in folders or ("model", "engine"):
        for file in sorted((_PACKAGE / folder).rglob("*.py")):
            text.update(str(file.relative_to(_PACKAGE)).encode() + b"\0" + file.read_bytes())
    return text.hexdigest()


def dispatcher(design: Design = S390) -> str:
    """Returns the source of `step(s, t, op, page)`, which runs the rule that thread `t` is at; (op, page) is its
    choice."""
    lines = ["def step(s, t, op, page):", "    pc = s.task[t].pc"]
    for pc in sorted(design.rules):
        rule = design.rules[pc]
        lines.append(f"    if pc == {pc}:")
        lines.append(f"        return {rule.function.__name__}(s, t{', op, page' if rule.chooses else ''})")
    lines.append(f"    return {layout.W_IDLE}")
    return "\n".join(lines) + "\n"


def constants(module: ModuleType) -> dict[str, Any]:
    """Returns the constants of a module: its upper-case names."""
    return {name: value for name, value in vars(module).items() if name.isupper()}


def functions(
    decorate: Callable[[Any], Any],
    changed: Mapping[str, str] | None = None,
    *,
    unsigned: bool = False,
    one_type: bool = False,
    design: Design = S390,
) -> dict[str, Any]:
    """Returns all rule functions of a design by name, each through `decorate`, plus `step`.

    changed   source text to replace before loading, {old: new}: a test breaks a rule without a second copy of it
    unsigned  for Numba: see _Unsigned
    one_type  for Numba, with `unsigned`: see _OneType

    Raises ValueError unless each `old` occurs exactly once.
    """
    space = {**design.constants, "__name__": __name__, "__design__": design.name}
    if unsigned:
        import numba

        space["uintp"] = numba.uintp
        if one_type:
            space["int64"] = numba.int64
    left = dict(changed or {})
    for module in design.modules:
        add_functions(space, module, decorate, left)
    for verb in design.verbs:
        before = set(space)
        exec(compile(verb, "<machines>", "exec"), space)  # nosec B102 (the rules of this package)
        for name in set(space) - before:
            space[name] = decorate(space[name])
    if left:
        raise ValueError(f"not found exactly once in the rules: {list(left)}")
    exec(compile(dispatcher(design), "<dispatcher>", "exec"), space)  # nosec B102 (the rules of this package)
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
        """Returns the index as an unsigned number, with which no negative index is tested for."""
        return ast.Call(ast.Name("uintp", ast.Load()), [index], [])


class _OneType(ast.NodeTransformer):
    """Writes every number that a function is called with as int64(number). Numba compiles a function once more for each
    type of a number, of which each literal is one."""

    _ARRAYS = frozenset({"s", "x", "words", "rows", "found"})
    _OTHERS = frozenset({"len", "range", "int", "min", "max", "uintp", "int64", "prefetch", "add", "peek", "give_way"})

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id not in self._OTHERS:
            node.args = [argument if self._is_array(argument) else self._cast(argument) for argument in node.args]
        return node

    def _is_array(self, argument: ast.expr) -> bool:
        """Whether an argument is a state, arrays of the search, or one of these arrays."""
        named = argument.value if isinstance(argument, ast.Attribute) else argument
        return isinstance(named, ast.Name) and named.id in self._ARRAYS

    def _cast(self, number: ast.expr) -> ast.expr:
        """Returns the number as an int64."""
        return ast.Call(ast.Name("int64", ast.Load()), [number], [])


def add_functions(
    space: dict[str, Any], module: ModuleType, decorate: Callable[[Any], Any], changed: dict[str, str] | None = None
) -> None:
    """Add the decorated functions of a rule module to `space`; apply `changed`, and remove from it what was found.

    Raises ValueError for a function whose name is already in `space`: callers of the first would call the second.
    """
    file = str(module.__file__)
    source = Path(file).read_text(encoding="utf-8")
    if "uintp" in space:
        file = _shared(Path(file), source, space.get("__design__", S390.name))
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
                node = _OneType().visit(node) if "int64" in space else node
                node = ast.fix_missing_locations(_Unsigned().visit(node))
            exec(compile(ast.Module([node], []), file, "exec"), space)  # nosec B102 (the rules of this package)
            space[node.name] = decorate(space[node.name])


def _shared(file: Path, source: str, design: str) -> str:
    """Returns the path of a copy of a source file in the cache. Numba's cache key has the file's path and time, which
    differ between environments; those of the copy do not. It has not what a function calls, so each design has its own
    copy."""
    if not can_keep():
        return str(file)
    # Numba's own folder begins with the name of the file's folder, by which is_kept() knows the design
    folder = file.parent.name if design == S390.name else f"{design}-{file.parent.name}"
    copy = cache_folder() / folder / file.name
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=copy.parent, encoding="utf-8", delete=False) as made:
            made.write(source)
        os.replace(made.name, copy)
    return str(copy)


def rules(space: Mapping[str, Any]) -> Any:
    """Returns the namespace as an object: `.step`, `.focus`, `.broken`, and every rule function by name."""
    return SimpleNamespace(**{k: v for k, v in space.items() if not k.startswith("__")})


@PerDesign
def interpreted(design: Design) -> Any:
    """Returns the rules of a design as plain Python functions; needs no Numba."""
    return rules(functions(lambda function: function, design=design))


def interpreted_of(state: Any) -> Any:
    """Returns interpreted() of the state's design."""
    return interpreted(designs.of(state))


def mutant(changed: Mapping[str, str], design: Design = S390) -> Any:
    """Returns the rules of a design as plain Python with some source text replaced (see `functions`)."""
    return rules(functions(lambda function: function, changed, design=design))


def cache_folder() -> Path:
    """Returns the folder of compiled code. Its name has a digest of the sources in COMPILED, since Numba does not
    detect a changed callee, and the versions of numba, llvmlite and numpy; environments equal in both share it."""
    base = os.environ.get("ULTRAFOLIO_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "ultrafolio"
    )
    return Path(base) / f"{_compiled_digest()}-{_versions()}"


@functools.cache
def _compiled_digest() -> str:
    """Returns the digest of the sources in COMPILED."""
    text = hashlib.blake2b(__version__.encode(), digest_size=16)
    for folder, names in COMPILED.items():
        for name in names:
            text.update(name.encode() + b"\0" + (_PACKAGE / folder / f"{name}.py").read_bytes())
    return text.hexdigest()


def _versions() -> str:
    """Returns the versions of numba, llvmlite and numpy."""
    found = []
    for package in ("numba", "llvmlite", "numpy"):
        try:
            found.append(importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            found.append("none")
    return "-".join(found)


def can_compile() -> bool:
    """Whether Numba is installed and enabled; otherwise the plain functions run."""
    return os.environ.get("NUMBA_DISABLE_JIT", "0") == "0" and importlib.util.find_spec("numba") is not None


def is_kept(function: str, design: Design = S390) -> bool:
    """Whether this interpreter finds the compiled `function` (module.name) of a design in the cache."""
    # Numba's name-line.pyXY.number.nbc: interpreters share the folder, and each compiles for itself
    tag = f"py{sys.version_info[0]}{sys.version_info[1]}{getattr(sys, 'abiflags', '')}"
    kept = [file.relative_to(cache_folder()) for file in cache_folder().rglob(f"{function}-*.{tag}.*.nbc")]
    others = [name for name in designs.DESIGNS if name != S390.name]
    owners = {next((name for name in others if file.parts[0].startswith(f"{name}-")), S390.name) for file in kept}
    return design.name in owners


def say_compiling(function: str, what: str, seconds: int, design: Design = S390) -> None:
    """Print one line on stderr if `function` is not in the cache. what: its name for the user; seconds: CPU time."""
    if not is_kept(function, design):
        where = f"kept in {cache_folder()}" if can_keep() else "not kept"
        print(f"ultrafolio: compiling {what}, about {seconds} s of CPU ({where})", file=sys.stderr)


@functools.cache
def can_keep() -> bool:
    """Whether the cache folder is writable and has space; if not, print one line on stderr. Tests once per process."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"0")
        if shutil.disk_usage(folder).free < _FREE_BYTES:
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
    """Returns the Numba flags of a function that Python calls: cached if can_keep()."""
    return {**numba_flags(), "nogil": True, "cache": can_keep()}


@functools.cache
def numba_flags() -> dict[str, Any]:
    """Returns the Numba flags of every compiled function.

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
    """Returns the Numba flags of a function that only compiled code calls: inlined, without Python wrappers."""
    return {**numba_flags(), "forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def apart_flags() -> dict[str, Any]:
    """Returns the Numba flags of a function that compiled code calls seldom: not inlined, so compiled once."""
    return {**numba_flags(), "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


@functools.cache
def compiled() -> Any:
    """Returns the rules compiled by Numba, to be inlined into their callers."""
    flags = inner_flags()
    import numba

    njit: Any = numba.njit
    return rules(functions(njit(**flags), unsigned=True))
