"""Small systems are explored by the plain functions; the result equals that of the compiled ones, byte by byte."""

import ast
import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from checking import PATHS, ROOT, system
from test_check_explore import used
from ultrafolio.check.search import first
from ultrafolio.check.search import graph as exploring
from ultrafolio.check.verdicts import liveness
from ultrafolio.engine import load
from ultrafolio.errors import InputError
from ultrafolio.model.designs import GUEST_MEMFD, S390
from ultrafolio.model.policies import PRESETS

SOURCES = Path(load.__file__).parent.parent
BLOCKED = ("numba", "llvmlite", "pyarrow", "grpc", "celery", "redis")
POLICIES = ("whole-folio", "per-page", "split-writeback")


def same(made, **limits):
    """Assert that the plain and the compiled functions make the same graph; the compiled one."""
    fast, plain = (
        exploring.explore(made, functions=functions, **limits)
        for functions in (exploring.compiled(), exploring.over_arrays())
    )
    assert used(fast) == used(plain) and fast.reason == plain.reason and plain.interpreted
    if fast.complete and fast.edged:
        both = [[(c.waiter, c.entry, c.members.tolist()) for c in liveness.components_of(g)] for g in (fast, plain)]
        assert both[0] == both[1]
    return fast


@pytest.mark.skipif(not load.can_compile(), reason="nothing is compiled here")
@pytest.mark.parametrize("name", PATHS)
def test_plain_and_compiled_exploration_are_the_same_bytes(name):
    for policy in POLICIES:
        made = system(name, policy)
        if not same(made, max_states=400).complete:
            same(made, max_states=1_500)


@pytest.mark.slow
@pytest.mark.skipif(not load.can_compile(), reason="nothing is compiled here")
@pytest.mark.parametrize("name", PATHS)
def test_both_are_the_same_bytes_under_every_policy_up_to_the_largest_plain_graph(name):
    for policy in PRESETS:
        made = system(name, policy)
        same(made, max_states=first.LARGE)
        same(made, max_states=first.LARGE, edges=False)
        with contextlib.suppress(InputError):  # nothing in it is alike
            same(made, max_states=first.LARGE, edges=False, fold=True)


def chosen(monkeypatch, *, kept, name, policy, most=20_000_000):
    """Returns for each exploration of a system whether it was by the plain functions."""
    asked = []

    def explored(made, *, functions=None, **limits):
        asked.append(functions is not None)
        return exploring.explore(made, functions=exploring.over_arrays(), **limits)

    monkeypatch.setattr(first.rules, "can_compile", lambda: True)
    monkeypatch.setattr(first.rules, "is_kept", lambda function, design: kept)
    stand_in = SimpleNamespace(explore=explored, is_loaded=lambda design: False, over_arrays=exploring.over_arrays)
    monkeypatch.setattr(first, "exploring", stand_in)
    first.explore(system(name, policy), max_states=most)
    return asked


def test_a_count_of_states_decides_which_functions_explore(monkeypatch):
    assert chosen(monkeypatch, kept=False, name="03-virtio", policy="whole-folio") == [True]
    large = {"name": "39-busy-folio", "policy": "whole-folio"}
    assert chosen(monkeypatch, kept=True, **large) == [True, False]
    assert chosen(monkeypatch, kept=True, most=500, **large) == [True], "the user's limit came first"


def test_check_needs_no_package_that_compiles():
    code = f"""import sys
for name in {BLOCKED}:
    sys.modules[name] = None
from ultrafolio.cli import main
main(["check", "scenarios/03-virtio.toml", "--policy", "whole-folio", "--json"])"""
    outputs = []
    for text in (code, code.replace("sys.modules[name] = None", "pass")):
        done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, env=os.environ, check=False)
        assert done.returncode == 1 and done.stderr == b"", done.stderr.decode()
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1] and outputs[0]


def test_a_cache_that_cannot_be_written_is_reported_in_one_line(monkeypatch, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ULTRAFOLIO_CACHE", str(tmp_path / "file" / "cache"))
    load.can_keep.cache_clear()
    try:
        assert not load.can_keep() and not load.can_keep()
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "ULTRAFOLIO_CACHE=FOLDER" in said
    finally:
        load.can_keep.cache_clear()


def test_the_cache_of_another_path_and_time_is_the_same(monkeypatch, tmp_path):
    monkeypatch.setenv("ULTRAFOLIO_CACHE", str(tmp_path))
    load.can_keep.cache_clear()
    try:
        made = []
        for folder in ("one", "two"):
            file = tmp_path / folder / "model" / "rules.py"
            file.parent.mkdir(parents=True)
            file.write_text("x = 1\n")
            made.append(load._shared(file, file.read_text(), S390.name))
        assert made[0] == made[1] and os.path.exists(made[0])
    finally:
        load.can_keep.cache_clear()


def test_each_design_has_its_compiled_functions(monkeypatch, tmp_path):
    """As Numba names them: the folder of the source and a digest of it, then the function."""
    monkeypatch.setenv("ULTRAFOLIO_CACHE", str(tmp_path))
    load.can_keep.cache_clear()
    try:
        for design in (S390, GUEST_MEMFD):
            source = Path(load._shared(Path("sim/loop.py"), "x = 1\n", design.name))
            assert not load.is_kept("loop.simulate", design)
            made = load.cache_folder() / f"{source.parent.name}_0123"
            made.mkdir()
            version = "".join(map(str, sys.version_info[:2]))
            (made / f"loop.simulate-231.py{version}.1.nbc").touch()
            assert load.is_kept("loop.simulate", design)
    finally:
        load.can_keep.cache_clear()


def imported(file):
    """The modules of the package that a file imports at its top, as paths."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ImportFrom):
            base = file.parents[node.level - 1] if node.level else SOURCES.parent
            module = base.joinpath(*(node.module or "").split("."))
            yield from (
                path
                for path in (module.with_suffix(".py"), *(module / f"{a.name}.py" for a in node.names))
                if path.exists() and path.is_relative_to(SOURCES)
            )


LOADERS = ("engine/tables.py", "engine/load.py", "check/search/graph.py", "check/verdicts/liveness.py")
"""What these import is in no compiled code, but for the modules that they load by name."""


def test_the_key_of_the_cache_has_every_source_of_compiled_code():
    """Every file with a function that is compiled, and all that these import."""
    todo = [file for file in SOURCES.rglob("*.py") if re.search(r"^@(fn|rule)\b", file.read_text(), re.MULTILINE)]
    assert len(todo) >= 9
    wanted = {SOURCES / name for name in LOADERS}
    while todo:
        file = todo.pop()
        if file not in wanted:
            wanted.add(file)
            todo += imported(file)
    named = {SOURCES / folder / f"{name}.py" for folder, names in load.COMPILED.items() for name in names}
    assert all(file.exists() for file in named)
    assert not {str(file.relative_to(SOURCES)) for file in wanted - named}
