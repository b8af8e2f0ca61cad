"""docs/search-found.md: what `ultrafolio search` found of both designs, as Markdown.

`python -m ultrafolio.commands.search_page DIR > docs/search-found.md` writes the page; DIR keeps the verdicts and the
runs, of which a second time needs no more.
"""

from __future__ import annotations

import sys
from pathlib import Path as File
from typing import Any

from ultrafolio import api

INTRO = """\
# What the search found

Made by `python -m ultrafolio.commands.search_page DIR`; do not edit. [search.md](search.md) says what an answer means.
It is about the shipped scenarios, and about policies without bugs of kernels.
"""
QUESTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("s390", {"design": "s390", "start": "linux-7.0", "sweep": "survivors"}),
    ("s390, where references are counted per folio, as Linux does",
     {"design": "s390", "require": ("refs=folio",), "start": "linux-7.0"}),
    ("s390, references per folio, and scenario 18 set aside",
     {"design": "s390", "require": ("refs=folio",), "set_aside": ("18-iomap-two-vcpus",), "start": "linux-7.0"}),
    ("guest_memfd, each scenario on its own machine", {"design": "guest_memfd", "start": "gmem-7.4"}),
)  # fmt: skip
"""Headings, and the options of the search."""


def typed(options: dict[str, Any]) -> str:
    """The command that asks a question."""
    required = [f"--require {one}" for one in options.get("require", ())]
    aside = [f"--set-aside {one}" for one in options.get("set_aside", ())]
    return " ".join(
        [f"ultrafolio search --design {options['design']}", *required, *aside, f"--from {options['start']}"]
    )


def page(out: File) -> str:
    """The page. out: the folder of the stored verdicts and runs."""
    parts = [INTRO]
    for heading, options in QUESTIONS:
        found = api.search(**options, out=out, workers=0)
        parts.append(f"## {heading}\n\n```text\n{typed(options)}\n\n{found}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(File(sys.argv[1])), end="")
