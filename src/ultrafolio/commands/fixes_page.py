"""docs/kernel-fixes.md: the table of kernel fixes and of complaints as Markdown, generated from model/fixes.py.

`python -m ultrafolio.commands.fixes_page > docs/kernel-fixes.md` writes the page.
"""

from __future__ import annotations

from collections.abc import Sequence

from ultrafolio.markdown import table
from ultrafolio.model.complaints import COMPLAINTS, Complaint
from ultrafolio.model.fixes import FIXES, Choice, Fix

INTRO = """\
# Fixes of the kernel

Made from `src/ultrafolio/model/fixes.py` and `complaints.py` by `python -m ultrafolio.commands.fixes_page`; do not
edit.

What the kernel's code for secure guests had to mend since 2020, and whether this model shows it. A row is shown by a
scenario: under the choices named there, which are those of a kernel without the fix, it is violated; under those of a
kernel with the fix it holds. Else the row says why the model cannot show it. `--policy linux-7.1~42546fc642e9` is Linux
7.1 without a fix, `--policy linux-6.14+3ec8a8330a1a` is Linux 6.14 with one that it got later.

Read: for most rows the commit's message and its change, in the archives of the mailing lists; for fb491d5500a7 and
90a7592da149 the title and what others wrote of them; Debian's sources of 6.1.192 and 6.12.117; published records of
vulnerabilities, for the releases of stable kernels. Not run: any of these kernels, on any machine.

"First bad" and "first good" are versions of the mainline kernel; "every" means every version that has this code, and a
release candidate that no release had the bug. "Stable" names kernels that were seen to carry the fix, a release from
which on or a series; an empty field means that none was seen, not that there is none. A version says little of
a stable kernel: 6.1.103 and 6.6.44 refuse large folios as 6.10 does, and Debian's 6.12.117 has 98c6d259319e but not
d16a74f0f266.
"""


def document() -> str:
    """The page docs/kernel-fixes.md."""
    shown = sum(bool(row.shown_by) for row in FIXES)
    heading = ["commit", "what was wrong", "first bad", "first good", "stable", "shown by, or why not"]
    complaints = ["complaint", "by", "mail", "shown by, or why not"]
    return "\n".join(
        [
            INTRO,
            f"{shown} of {len(FIXES)} fixes are shown.",
            "",
            *table(heading, [_fix_cells(row) for row in FIXES]),
            "",
            "## Complaints without a fix",
            "",
            "What kernel people wrote about the same code, and no commit has answered.",
            "",
            *table(complaints, [_complaint_cells(row) for row in COMPLAINTS]),
            "",
        ]
    )


def _fix_cells(row: Fix) -> list[str]:
    """Returns the cells of a fix's row."""
    commits = " ".join(f"`{commit}`" for commit in (row.commit, *row.also))
    words = f"{row.shows}; with the fix it holds" if row.shown_by else ""
    return [
        f"{commits} {row.subject}",
        row.bug,
        row.first_bad or "every",
        row.first_good,
        ", ".join(row.stable),
        _shown(row.shown_by, _choices(row.without), words) or row.why_not,
    ]


def _complaint_cells(row: Complaint) -> list[str]:
    """Returns the cells of a complaint's row."""
    mail = f"`{row.mail}`" if row.mail else ""
    return [row.what, row.who, mail, _shown(row.shown_by, "", row.shows) or row.why_not]


def _shown(stem: str, choices: str, words: str) -> str:
    """The cell of a scenario: its name, the choices that it needs, and its result; "" if there is no scenario."""
    return f"`scenarios/{stem}.toml`{f' with {choices}' if choices else ''}: {words}" if stem else ""


def _choices(choices: Sequence[Choice]) -> str:
    named = ((field.removesuffix("s") if field == "variants" else field, value) for field, value in choices)
    return ", ".join(f"`{field} = {value}`" for field, value in named)


if __name__ == "__main__":
    print(document(), end="")
