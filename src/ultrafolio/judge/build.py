"""Compile and run the program of a tree's pieces. Pieces that do not compile are left out; each answer has a timeout.

A run of an operation is given by its page and the answers so far; the program returns the operation's next question,
or its result. It keeps no state between two runs.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from ..errors import InputError
from .assemble import S390, Assembled, Parts, assemble
from .cut import Tree

ANSWERS = 512
MOST_SECONDS = 20.0
"""The timeout of one answer: the program only runs the kernel's code up to the next primitive."""


@dataclass(frozen=True, slots=True)
class Ask:
    """The next question of an operation: a primitive and its arguments."""

    question: str
    page: int
    more: int


@dataclass(frozen=True, slots=True)
class Returned:
    """The result of an operation: 0, or a negative error number."""

    value: int


def questions(parts: Parts = S390) -> tuple[str, ...]:
    """The names of the questions, in the order of the shim's list."""
    found = re.search(r"enum question \{(.*?)\}", parts.source("shim.h"), re.S)
    assert found
    return tuple(name[2:].lower() for name in re.findall(r"Q_\w+", found[1]))


class Program:
    """The running program of a tree's pieces. A context manager; raises InputError if no operation compiles.

    made    the assembled program, with the missing operations and the reasons
    base    the tree's version, without the point release
    start   the start of the running operation, for messages
    """

    def __init__(self, tree: Tree, parts: Parts = S390) -> None:
        self.start, self.base = "", tree.base
        self._folder = tempfile.TemporaryDirectory(prefix="ultrafolio-judge-")
        try:
            self.made, binary = _built(tree, Path(self._folder.name), parts)
        except BaseException:
            self._folder.cleanup()
            raise
        self._names = questions(parts)
        self._index = {op.name: i for i, op in enumerate(self.made.operations)}
        self._known: dict[tuple[str, int, tuple[int, ...]], Ask | Returned] = {}
        self._run = subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._run.kill()
        self._run.communicate()
        self._folder.cleanup()

    def next(self, operation: str, page: int, answers: tuple[int, ...]) -> Ask | Returned:
        """The operation's next question after these answers, or its result. Raises InputError if the code crashes."""
        key = operation, page, answers
        if key not in self._known:
            self._known[key] = self._asked(*key)
        return self._known[key]

    def _asked(self, operation: str, page: int, answers: tuple[int, ...]) -> Ask | Returned:
        """Run an operation of the tree's code with these answers. Returns its next question, or its return value."""
        if len(answers) > ANSWERS:
            raise InputError(
                f"{operation}: does not end", value=f"{len(answers)} answers", allowed=f"at most {ANSWERS}"
            )
        into, out = self._run.stdin, self._run.stdout
        assert into and out
        try:
            into.write(struct.pack(f"={3 + len(answers)}q", self._index[operation], page, len(answers), *answers))
            into.flush()
        except BrokenPipeError:
            raise self._died(operation) from None
        asks, one, where, more = struct.unpack("=4q", self._read(out, 32, operation))
        return Ask(self._names[one], where, more) if asks else Returned(one)

    def _read(self, out: IO[bytes], size: int, operation: str) -> bytes:
        ready = select.poll()  # select() takes no file descriptor above 1,023
        ready.register(out, select.POLLIN)
        if not ready.poll(MOST_SECONDS * 1000):
            self._run.kill()
            raise InputError(
                f"{operation}: the tree's code does not come back",
                value=f"from {self.start or 'plain'}",
                allowed=f"at most {MOST_SECONDS:g} s from one primitive of the shim to the next",
                cause="the tree was changed: a loop in it asks for nothing",
            )
        data = out.read(size)
        if len(data) < size:
            raise self._died(operation)
        return data

    def _died(self, operation: str) -> InputError:
        """Returns the error for code of the tree that a signal ended."""
        return InputError(
            f"{operation}: the tree's code ended with signal {-(self._run.wait())}",
            cause="the tree was changed, or is of a version that the shim does not know",
        )


def _built(tree: Tree, folder: Path, parts: Parts) -> tuple[Assembled, str]:
    """The program and its executable file. Pieces that do not compile are left out with their operations."""
    faults: dict[str, str] = {}
    while True:
        made = assemble(tree, faults, parts)
        if not made.operations:
            raise InputError(
                "nothing of this tree can be judged",
                value=str(tree.root),
                cause="; ".join(sorted(set(made.missing.values()))),
            )
        binary, errors = _compile(made.text, folder)
        if not errors:
            return made, binary
        name, why = at_fault(errors, made)
        if not name or name in faults:
            raise InputError(
                f"the functions of Linux {tree.version} do not compile over the shim",
                value=str(tree.root),
                cause="the tree was changed, or these functions use a name that the shim does not know",
                then="ultrafolio judge --tree DIR --source, to see the program",
            )
        faults[name] = why


def at_fault(errors: str, made: Assembled) -> tuple[str, str]:
    """(piece or else operation with the compiler's first error, message); ("", "") if the error is in neither.

    A use of a macro of the shim counts where it is used.
    """
    inside = False
    for line in errors.splitlines():
        found = re.match(r"(.+?):(\d+):(?:\d+:)? (fatal error|error|note|warning):", line)
        if not found:
            continue
        inside = "error" in found[3] or (inside and found[3] == "note")
        if not inside:
            continue
        path, at = found[1], int(found[2])
        for name, cut in made.cuts.items():
            if cut.path == path and cut.first <= at <= cut.last:
                return name, (
                    f"{cut.name} does not compile over the shim ({path}:{at}): it was changed, or it uses a "
                    "name that the shim does not know"
                )
        if path.startswith("operation "):
            name = path.removeprefix("operation ")
            return path, f"a function that {name} calls takes or returns something else than in the versions known"
    return "", ""


def _compile(text: str, folder: Path) -> tuple[str, str]:
    """(executable file, ""), or ("", errors of the compiler). Raises InputError without a compiler."""
    compiler = os.environ.get("CC") or next((c for c in ("cc", "gcc", "clang") if shutil.which(c)), "")
    if not compiler or not shutil.which(compiler.split()[0]):
        raise InputError("no C compiler", value=compiler or "cc, gcc, clang", then="apt-get install gcc libc6-dev")
    (folder / "judged.c").write_text(text, "utf-8")
    binary = str(folder / "judged")
    call = [*compiler.split(), "-std=gnu11", "-O1", "-Werror=implicit-function-declaration",
            "-Werror=int-conversion", "-Werror=incompatible-pointer-types", "-o", binary,
            str(folder / "judged.c")]  # fmt: skip
    try:
        plain = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(call, check=False, capture_output=True, text=True, timeout=120, env=plain)
    except subprocess.TimeoutExpired:
        raise InputError("the compiler did not end within 120 s", value=compiler) from None
    return binary, (done.stderr or "failed") if done.returncode else ""
