"""scenarios/textbook: forty scenarios by name in the short form, each with its results under the kernels, and a README.

`python -m ultrafolio.commands.textbook_page scenarios/textbook` writes the folder.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ultrafolio.check.verdicts.verdict import check
from ultrafolio.commands.map_page import EXTENT, LETTERS, fixed, letter_of
from ultrafolio.markdown import table
from ultrafolio.model import kernels, policies
from ultrafolio.names import grammar, short, text

TESTS = (
    "IMP+large", "IMP.early+large", "IMP.early+large+2vcpu", "IMP+self+vcpu.apart", "DIRTY+large", "DIRTY+large+2vcpu",
    "OWNER+self", "DIO+neigh", "DIO.early+neigh", "DIO.stuck+neigh", "DIO.endless+neigh", "DIO.in+self", "DIO.out+self",
    "DIO+self+both", "DIO+self+unshare+2vcpu", "DIO+self+RECL", "LPIN+large", "LPIN+neigh", "LPIN.early+neigh",
    "LPIN.out+neigh", "LPIN.buf.out+self", "LPIN.out+self", "LPIN+self+unshare", "LPIN+neigh+unshare", "LPIN+neigh+WB",
    "LPIN+neigh+RECL", "LPIN+neigh+BOOT", "LPIN+neigh+RECL.after", "LPIN.shmem+neigh+RECL.after",
    "LPIN.shmem+self+RECL.after", "WB+neigh", "WB.out+self+vcpu.apart", "WB.iomap.twice.early+large", "RECL+self",
    "RECL.twice.out+self", "LRU.own+self", "LRU.other+self", "MAP+self", "SPEC.twice+self", "TAMP+self",
)  # fmt: skip
"""The names, in the order of the table of obstacles."""
RESULT = ("verdict", "kind")
"""What each file expects of a kernel."""
INTRO = """\
# Forty textbook scenarios

Made by `python -m ultrafolio.commands.textbook_page scenarios/textbook`; do not edit.

Each file is one scenario in the short form of `ultrafolio scenario NAME --short`, small enough for a mail: memory, who
acts, and the result under each kernel. Its name says what it is ([docs/map.md](../../docs/map.md)).

    ultrafolio check scenarios/textbook/LPIN+neigh.uf --policy linux-6.4
    ultrafolio check scenarios/textbook/*.uf --expect {policies}
"""


def results(name: str) -> tuple[dict[str, dict[str, Any]], str]:
    """What each kernel does with a scenario: the entries of [expect], and the letters of its words."""
    story, told, letters = grammar.scenario(grammar.read(name)), {}, ""
    for kernel in kernels.names():
        result = check(story, name, policies.find(kernel), kernel, EXTENT)
        told[kernel] = {"verdict": result.verdict, "kind": result.worst.kind or "null"}
        letters += letter_of(result)
    return told, letters


def file_text(name: str, expect: Mapping[str, Any]) -> str:
    """The file of a scenario: its words by their meaning as a comment, then the short form."""
    made = grammar.read(name)
    comment = textwrap.wrap(text.sentence(made), 100, initial_indent="# ", subsequent_indent="# ")
    return "\n".join(comment) + "\n" + short.write(replace(grammar.scenario(made), expect=dict(expect)))


def readme(letters: Mapping[str, str]) -> str:
    """The README: each name with its letters by kernel, and the pairs of kernels that break and fix it."""
    chosen = kernels.names()
    rows = [(f"[`{name}`]({name}{short.SUFFIX})", *told) for name, told in letters.items()]
    pairs = [
        (f"`{name}`", f"{chosen[at]} `{letters[name][at]}`", f"{chosen[at + 1]} `{letters[name][at + 1]}`")
        for name, at in fixed(letters)
    ]
    said = " ".join(f"--policy {kernel}" for kernel in chosen)
    return "\n".join(
        [
            INTRO.format(policies=said),
            f"Letters: {', '.join(f'`{letter}` {word}' for word, letter in LETTERS.items())}.",
            "",
            *table(["scenario", *(kernel.removeprefix("linux-") for kernel in chosen)], rows),
            "",
            "## Broken, and fixed",
            "",
            *table(["scenario", "broken in", "fixed in"], pairs),
            "",
        ]
    )


def main(folder: Path) -> None:
    """Write the folder."""
    letters = {}
    for name in TESTS:
        told, letters[name] = results(name)
        (folder / f"{name}{short.SUFFIX}").write_text(file_text(name, told), encoding="utf-8")
    (folder / "README.md").write_text(readme(letters), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
