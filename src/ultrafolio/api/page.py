"""docs/api.md: the calls and classes of the library, generated from their signatures and docstrings."""

from __future__ import annotations

import inspect
import re
from typing import Any

HEAD = """# The library

Printed by `python -m ultrafolio.api.page` from the docstrings; the tests run every example. `import ultrafolio as uf`
brings all of it.

A call takes a name or an object; misuse is `InputError`, with what was wrong, what is allowed and what to type. A
result shows itself as a table in a notebook; `table()` gives it as a `pyarrow.Table`, `to_pandas()` as a `DataFrame`.

    >>> import ultrafolio as uf
    >>> result = uf.check("03-virtio", policy="whole-folio")
    >>> result.verdict
    'violated'
    >>> print(result.worst.wait.held_by)
    virtio 1's long-term pin on page 0, another page of the folio
    >>> uf.check("03-virtio", policy="per-page").verdict
    'holds'
    >>> own = uf.Policy.of("whole-folio", accessible="page", track="page", refs="page", name="own")
    >>> uf.check("03-virtio", policy=own).verdict
    'holds'
"""


def page() -> str:
    """The page as Markdown."""
    import ultrafolio as uf

    calls: list[tuple[str, Any]] = []
    classes: list[tuple[str, type]] = []
    for name in sorted(uf.CALLS):
        what = getattr(uf, name)
        (classes if inspect.isclass(what) else calls).append((name, what))
    lines = [HEAD, "## Calls", ""]
    for name, call in calls:
        lines += [f"### uf.{name}", "", *_signature(f"uf.{name}", call), "", *_doc(call), ""]
    lines += ["## Classes", ""]
    for name, kind in classes:
        lines += [f"### uf.{name}", "", *_doc(kind), "", *_members(kind)]
    return "\n".join(lines).rstrip() + "\n"


def _signature(name: str, call: Any) -> list[str]:
    """The signature on a line of its own; annotations as they are written."""
    written = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(inspect.signature(call)))
    return [f"`{name}{written}`"]


def _doc(what: Any) -> list[str]:
    """The docstring as Markdown; columns and examples are kept as code blocks."""
    lines = (inspect.getdoc(what) or "").splitlines()
    made: list[str] = []
    prose = True
    for number, line in enumerate(lines):
        goes_on = bool(made) and not prose and line.strip() != "" and made[-1].startswith("    ")
        example = line.startswith((">>>", "...")) or goes_on
        columns = "  " in line.strip() or line.startswith(" ")
        prose = not (example or columns) or not line.strip()
        if not prose and number and not made[-1].startswith("    ") and made[-1]:
            made.append("")
        made.append(line if prose else f"    {line}")
    return made


def _members(kind: type) -> list[str]:
    """Returns the table of a class's public members that have a docstring; [] without any."""
    rows = []
    for name, member in sorted(vars(kind).items()):
        plain = member.__func__ if isinstance(member, (classmethod, staticmethod)) else member
        text = inspect.getdoc(plain.fget if isinstance(plain, property) else plain)
        if name.startswith("_") or not text or not (callable(plain) or isinstance(plain, property)):
            continue
        shown = f"`{name}`" if isinstance(plain, property) else f"`{name}()`"
        rows.append(f"| {shown} | {text.splitlines()[0]} |")
    return ["| member | what it is |", "| --- | --- |", *rows, ""] if rows else []


if __name__ == "__main__":
    print(page(), end="")
