"""From the pieces of a tree to a program that runs them: assembling, compiling, and asking it.

A run of an operation is its page and the answers given so far; the program says what the operation asks next, or what
it returns. It keeps nothing between two runs.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import IO

from ..errors import InputError
from .cut import Cut, Tree
from .pieces import OPERATIONS, PIECES, Operation, Piece

ANSWERS = 512

_MAIN = """
static long (*const operations[])(int) = { %s };

int main(void)
{
	long run[3]; /* operation, page, number of answers */
	int i;

	for (i = 0; i < PAGES; i++) {
		all_pages[i].nr = i;
		folios[i].nr = i;
		folios[i].mapping = &a_file;
	}
	a_sie.sidad = (u64)&a_request;
	while (fread(run, sizeof(run), 1, stdin) == 1) {
		given = run[2];
		used = 0;
		subject = run[1];
		if (given > ANSWERS || fread(answers, sizeof(long), given, stdin) != (size_t)given)
			return 1;
		if (!setjmp(out)) {
			asked[1] = operations[run[0]](subject);
			asked[0] = 0;
		} else {
			asked[0] = 1;
		}
		fwrite(asked, sizeof(long), 4, stdout);
		fflush(stdout);
	}
	return 0;
}
"""


@dataclass(frozen=True, slots=True)
class Ask:
    """What an operation asks next."""

    question: str
    page: int
    more: int


@dataclass(frozen=True, slots=True)
class Returned:
    """What an operation returned: 0, or a negative error number."""

    value: int


def questions() -> tuple[str, ...]:
    """The names of the questions, in the order of the shim's list."""
    found = re.search(r"enum question \{(.*?)\}", _source("shim.h"), re.S)
    assert found
    return tuple(name[2:].lower() for name in re.findall(r"Q_\w+", found[1]))


def _source(name: str) -> str:
    return (resources.files(__package__) / name).read_text("utf-8")


@dataclass(frozen=True, slots=True)
class Assembled:
    """A C program, the pieces it holds, the operations it can run, and those it cannot, each with the reason."""

    text: str
    cuts: dict[str, Cut]
    operations: tuple[Operation, ...]
    missing: dict[str, str]


def find(tree: Tree, piece: Piece) -> Cut | None:
    """A piece of the tree; None where it has none of the alternatives."""
    for place in piece.places:
        cut = tree.function(place.path, place.function)
        if cut and place.block:
            cut = tree.block(cut, place.block, place.occurrence)
        if cut:
            return cut
    return None


def assemble(tree: Tree) -> Assembled:
    """The program of all operations for which the tree has the pieces."""
    cuts = {piece.name: cut for piece in PIECES if (cut := find(tree, piece))}
    if "accessible" in cuts and cuts["accessible"].name == "arch_make_folio_accessible":
        cuts.pop("accessible-folio", None)  # the empty one of other architectures
    blocks = {piece.name for piece in PIECES if any(place.block for place in piece.places)}
    missing: dict[str, str] = {}
    able = []
    for op in OPERATIONS:
        lacks = [name for name in op.needs if name not in cuts]
        if lacks:
            piece = next(p for p in PIECES if p.name == lacks[0])
            missing[op.name] = f"this tree has no {' or '.join(place.function for place in piece.places)}"
        else:
            able.append(op)
    text = [_source("shim.h"), _grabs(cuts)]
    if "split-able" in cuts:
        text.append(cuts["split-able"].text)
    drivers = _sections()
    if {"split-writeback", "split-count"} <= set(cuts):
        text.append(_filled(drivers["split"], cuts))
    text += [cut.text for name, cut in cuts.items() if name not in blocks and name != "split-able"]
    text += [_filled(drivers[op.name], cuts) for op in able]
    text.append(_MAIN % ", ".join("op_" + op.name.replace("-", "_") for op in able))
    return Assembled("\n".join(text), cuts, tuple(able), missing)


def _sections() -> dict[str, str]:
    parts = re.split(r"^//section ([a-z-]+) needs .*$", _source("drivers.c"), flags=re.M)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _filled(section: str, cuts: dict[str, Cut]) -> str:
    return re.sub(r"@([a-z-]+)@", lambda found: cuts[found[1]].text if found[1] in cuts else "", section)


def _grabs(cuts: dict[str, Cut]) -> str:
    """The names for taking a pin, whose results changed their sense between versions: read off the callers."""
    text = "".join(cuts[name].text for name in ("pin", "pin-fast") if name in cuts)
    lines = []
    if re.search(r"!try_grab_page\(", text):
        lines.append("#define try_grab_page(page, flags) ask(Q_PIN, (page)->nr, 0)")
    else:
        lines.append("#define try_grab_page(page, flags) (ask(Q_PIN, (page)->nr, 0) ? 0 : -ENOMEM)")
    if re.search(r"folio = try_grab_folio\(", text):
        lines.append("#define try_grab_folio(page, refs, flags) grab_fast(page)")
    else:
        lines.append("#define try_grab_folio(folio, refs, flags) (ask(Q_PIN, subject, 0) ? 0 : -ENOMEM)")
    if "pin-fast" in cuts:
        lines.append(f"#define GUP_FAST {re.findall(r'[a-z_]*gup[a-z_]*pte_range', cuts['pin-fast'].text)[0]}")
    return "\n".join(lines) + "\n"


class Program:
    """The compiled pieces of a tree, running. A context manager; InputError where they do not compile."""

    def __init__(self, tree: Tree) -> None:
        self.made = assemble(tree)
        if not self.made.operations:
            raise InputError("nothing of this tree can be judged", value=str(tree.root),
                             cause="; ".join(sorted(set(self.made.missing.values()))))  # fmt: skip
        self._names = questions()
        self._index = {op.name: i for i, op in enumerate(self.made.operations)}
        self._known: dict[tuple[str, int, tuple[int, ...]], Ask | Returned] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="ultrafolio-judge-")
        binary = _compile(self.made.text, Path(self._folder.name), tree)
        self._run = subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Program:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._run.kill()
        self._run.communicate()
        self._folder.cleanup()

    def next(self, operation: str, page: int, answers: tuple[int, ...]) -> Ask | Returned:
        """What the operation asks after these answers, or returns. InputError where the tree's code fails."""
        key = operation, page, answers
        if key not in self._known:
            self._known[key] = self._asked(*key)
        return self._known[key]

    def _asked(self, operation: str, page: int, answers: tuple[int, ...]) -> Ask | Returned:
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
        data = out.read(size)
        if len(data) < size:
            raise self._died(operation)
        return data

    def _died(self, operation: str) -> InputError:
        return InputError(f"{operation}: the tree's code ended with signal {-(self._run.wait())}",
                          cause="the tree was changed, or is of a version that the shim does not know")  # fmt: skip


def _compile(text: str, folder: Path, tree: Tree) -> str:
    """The program as a file that runs. InputError that names what the shim lacks."""
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
    if done.returncode:
        errors = re.findall(r"error: (.*)", done.stderr)
        raise InputError(
            f"the functions of Linux {tree.version} do not compile over the shim",
            value="; ".join(errors[:3]) or f"{compiler} ended with {done.returncode}", allowed="Linux 6.1 and 6.12",
            cause="the tree was changed, or these functions use a name that the shim does not know",
            then="ultrafolio judge --tree DIR --source, to see the program",
        )  # fmt: skip
    return binary
