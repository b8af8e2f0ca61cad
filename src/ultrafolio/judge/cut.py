"""Read a kernel source tree: its version, and functions and blocks of it as unmodified text, with their lines.

A piece is found by the name of its function. Nothing is parsed: a function begins at the line in column 1 that has its
name before a bracket, and ends at the next closing brace in column 1, as the kernel's coding style requires.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError

MOST_BYTES = 4_000_000


@dataclass(frozen=True, slots=True)
class Cut:
    """A piece of a source file: its text, and its first and last line, counted from 1."""

    path: str
    name: str
    text: str
    first: int
    last: int

    @property
    def where(self) -> str:
        return f"{self.path}:{self.first}-{self.last}"


class Tree:
    """A kernel source tree. Raises InputError if the folder is no tree, or its Makefile has no version."""

    def __init__(self, folder: str) -> None:
        self.root = Path(folder)
        self._texts: dict[str, str] = {}
        make = self.text("Makefile")
        found = dict(re.findall(r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION)[ \t]*=[ \t]*(\S*)", make or "", re.M))
        if not found.get("VERSION", "").isdigit() or not found.get("PATCHLEVEL", "").isdigit():
            raise InputError(
                "no kernel source tree",
                value=folder,
                allowed="a folder whose Makefile has VERSION and PATCHLEVEL",
                cause="the source package is still packed, or this is another folder",
                then="tar -xf /usr/src/linux-source-6.12.tar.xz && ultrafolio judge --tree linux-source-6.12",
            )
        point = found.get("SUBLEVEL", "") or "0"
        self.base = f"{found['VERSION']}.{found['PATCHLEVEL']}"
        self.release = self.base + (f".{point}" if point.isdigit() and point != "0" else "")
        self.version = self.base + (f".{point}" if point != "0" else "") + found.get("EXTRAVERSION", "")

    def text(self, path: str) -> str | None:
        """A file's text, or None if it is missing. Raises InputError for a file that cannot be one of the kernel."""
        if path not in self._texts:
            file = self.root / path
            try:
                if not file.is_file():
                    return None
                if file.stat().st_size > MOST_BYTES:
                    raise InputError(
                        f"{path}: too large for a source file",
                        value=file.stat().st_size,
                        allowed=f"at most {MOST_BYTES} bytes",
                    )
                self._texts[path] = file.read_text("utf-8", "replace")
            except OSError as e:
                raise InputError(
                    f"{path}: cannot be read",
                    value=e.strerror,
                    allowed="a file of the kernel's source",
                    cause="its rights, or the disk",
                    then=f"ls -l {file}",
                ) from None
        return self._texts[path]

    def function(self, path: str, name: str) -> Cut | None:
        """The longest definition of a function in a file, or None.

        A shorter one is for configurations without the feature, and empty.
        """
        text = self.text(path)
        if text is None:
            return None
        lines = text.split("\n")
        best: Cut | None = None
        for at, line in enumerate(lines):
            if not re.match(rf"[A-Za-z_].*\b{re.escape(name)}\(", line) or line.rstrip().endswith(";"):
                continue
            end = _closing(lines, at)
            if end is None:
                continue
            first = at - 1 if at and re.fullmatch(r"(static |inline |noinline |[a-z_]+ ?)+\*?", lines[at - 1]) else at
            cut = Cut(path, name, "\n".join(lines[first : end + 1]), first + 1, end + 1)
            if best is None or len(cut.text) > len(best.text):
                best = cut
        return best

    def block(self, function: Cut, start: str, occurrence: int = 0) -> Cut | None:
        """A statement within a function: from the line that matches `start` to the end of its braces, or of the
        statement that follows it. None where there is no such line."""
        lines = function.text.split("\n")
        found = [i for i, line in enumerate(lines) if re.search(start, line)]
        if len(found) <= occurrence:
            return None
        at = found[occurrence]
        end = _statement(lines, at)
        return Cut(
            function.path, function.name, "\n".join(lines[at : end + 1]), function.first + at, function.first + end
        )


def bare(text: str) -> str:
    """C without its comments and the contents of its strings, with the same lines."""
    unread = r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\""
    return re.sub(unread, lambda found: "\n" * found[0].count("\n"), text, flags=re.S)


def _closing(lines: list[str], at: int) -> int | None:
    """The line of the brace that closes the function whose head starts at `at`; None for a declaration."""
    for i in range(at, min(len(lines), at + 8)):
        if lines[i].rstrip().endswith(";"):
            return None
        if lines[i].startswith("{") or lines[i].rstrip().endswith("{"):
            for j in range(i, len(lines)):
                if lines[j].startswith("}"):
                    return j
            return None
    return None


def _statement(lines: list[str], at: int) -> int:
    """The last line of the statement that begins at `at`: to its closing brace, or one semicolon without braces."""
    depth = 0
    for i in range(at, len(lines)):
        bare = re.sub(r"/\*.*?\*/|\"[^\"]*\"", "", lines[i])
        depth += bare.count("{") - bare.count("}")
        if depth <= 0 and bare.rstrip().endswith((";", "}")):
            return i
    return len(lines) - 1
