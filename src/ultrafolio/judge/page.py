"""docs/judged.md: for each rule and each kernel, whether the kernel's C agrees with the rule."""

from __future__ import annotations

from collections import Counter

from ..model.fixes import FIXES
from .at_once import REASONS as AT_ONCE
from .carries import SIGNS, UNTOLD
from .explained import REASONS
from .pieces import MOVES_OWNERSHIP, NOT_CUT, PIECES
from .stands import STANDS
from .verdict import Judgement, rule_table, why_not_judged


def page(results: list[Judgement], command: str) -> str:
    """The page as Markdown, with the command that made it; the same results give the same bytes."""
    names = [f"Linux {one.version}" for one in results]
    lines = [
        "# What the kernel's own C says of the rules", "",
        f"Made by `{command}`. The functions that the rules mirror are cut from a "
        "kernel source tree, unmodified, compiled in user space over a shim, and run from every small situation. No "
        "text of the kernel is in this repository.", "",
        "*equal*: the same events, the same end, the same final state from every start. *explained*: equal but for the "
        "reasons below. *not judged*: with the reason.",
    ]  # fmt: skip
    lines += _kernels(results) + _rules(results, names) + _reasons(results) + _unreached(results, names)
    lines += _pieces(results, names) + _not_judged(results) + _fixes() + _functions()
    return "\n".join(lines) + "\n"


def _kernels(results: list[Judgement]) -> list[str]:
    """Returns the lines of the table of trees."""
    lines = [
        "", "## Kernels", "",
        "| tree | held to | fixes beyond its version | operations alone | at once: systems, starts, states, ends the "
        "rules lack without a reason, ends the C cannot have |", "| --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for one in results:
        alone = sum(o.equal + o.starts_explained + len(o.differ) for o in one.operated.values())
        differ = sum(len(o.differ) for o in one.operated.values())
        lines.append(
            f"| Linux {one.version} | `{one.policy}` | {'; '.join(one.carried) or 'none'} | {alone}, of which "
            f"{differ} differ | {one.at_once[0]}, {one.at_once[1]}, {one.nodes}, {len(one.missing)}, "
            f"{one.ends_unreached} |"
        )
    return lines


def _rules(results: list[Judgement], names: list[str]) -> list[str]:
    """Returns the lines of the table of rules, a column for each tree."""
    lines = ["", "## Rules", "", f"| rule | kernel function | {' | '.join(names)} |", _rule_line(2 + len(names))]
    for name, kernel, *cells in rule_table(results):
        said = [f"not judged ({why_not_judged(name)})" if cell == "not judged" else cell for cell in cells]
        lines.append(f"| {name} | {kernel} | {' | '.join(said)} |")
    return lines


def _reasons(results: list[Judgement]) -> list[str]:
    """The reasons of explained differences: of operations alone, then of concurrent ones."""
    lines = ["", "## Reasons", "", "| reason | what differs | where | starts |", _rule_line(4)]
    for reason in REASONS:
        where = "; ".join(one.cuts[reason.piece] for one in results if reason.piece in one.cuts)
        count = ", ".join(str(sum(o.explained[reason.name] for o in one.operated.values())) for one in results)
        lines.append(f"| {reason.name} | {reason.about} | {where} | {count} |")
    if any(one.explained for one in results):
        lines += ["", "Where operations run at once, for ends of the C that the rules lack:", ""]
        lines += ["| reason | what differs | where | ends |", _rule_line(4)]
        for about in AT_ONCE:
            where = "; ".join(one.cuts[about.piece] for one in results if about.piece in one.cuts)
            count = ", ".join(str(one.explained[about.name]) for one in results)
            lines.append(f"| {about.name} | {about.about} | {where} | {count} |")
    return lines


def _pieces(results: list[Judgement], names: list[str]) -> list[str]:
    """Returns the lines of the table of what was cut from each tree, and of what was not cut."""
    lines = ["", "## Pieces", "", f"| piece | what it is | {' | '.join(names)} |", _rule_line(2 + len(names))]
    for piece in PIECES:
        cells = [one.cuts.get(piece.name, "none, or no operation needs it") for one in results]
        lines.append(f"| {piece.name} | {piece.about} | {' | '.join(cells)} |")
    lines += ["", "Not cut, and what stands for it:", ""]
    return lines + [f"- `{name}`: {why}" for name, why in NOT_CUT.items()]


def _functions() -> list[str]:
    """The files and functions by version."""
    lines = [
        "",
        "## Where the functions stand, by version",
        "",
        "| what | versions | file | functions |",
        _rule_line(4),
    ]
    return lines + [f"| {what} | {versions} | {file} | {functions} |" for what, versions, file, functions in STANDS]


def _rule_line(columns: int) -> str:
    """The line below the heading of a table."""
    return "|" + " --- |" * columns


def _not_judged(results: list[Judgement]) -> list[str]:
    """Returns the lines that say what was not judged, and why."""
    said = [f"- Linux {one.version}, `{name}`: {why}" for one in results for name, why in one.not_judged.items()]
    return [
        "",
        "## Not judged",
        "",
        *(said or ["Every operation was judged."]),
        "- A busy ultravisor: only alone, in an import and an unshare; an export of a busy page repeats its call "
        "within `uv_call()`, which is not cut.",
        f"- A machine that moves a shared page's ownership: only from Linux {MOVES_OWNERSHIP} on.",
    ]


def _fixes() -> list[str]:
    """The fixes that are detected from a tree's text, and those that are not."""
    lines = ["", "## Fixes that the text of a tree tells", "",
             "A fix that the version has is expected in any case; its text is looked at for those that stable kernels "
             "carry beyond.", "", "| fix | subject | function that shows it, or why none does |",
             "| --- | --- | --- |"]  # fmt: skip
    shown = {sign.commit: " or ".join(f"{p.function} ({p.path})" for p in sign.places) for sign in SIGNS}
    return lines + [
        f"| {row.commit} | {row.subject} | {shown.get(row.commit) or f'not told: {UNTOLD[row.commit]}'} |"
        for row in FIXES
    ]


def _unreached(results: list[Judgement], names: list[str]) -> list[str]:
    """Returns the lines of the table of ends of the rules that the C cannot have."""
    lines = [
        "", "## Ends of the rules that the C cannot have", "",
        "The kernel holds the page-table lock over several steps of the rules, so the rules reach more ends. Each is "
        "named: how the operations end, and where the state differs from the nearest end of the C. The number says "
        "from how many starts.", "", f"| at once | end of the rules | {' | '.join(names)} |",
        f"| --- | --- |{' --- |' * len(names)}",
    ]  # fmt: skip
    none: Counter[str] = Counter()
    groups = {group for one in results for group in one.unreached}
    for group in sorted(groups):
        ends = [one.unreached.get(group, none) for one in results]
        for said in sorted({said for found in ends for said in found}):
            lines.append(f"| {group} | {said} | {' | '.join(str(found[said]) for found in ends)} |")
    equal = sorted(group for group in groups if not any(one.unreached.get(group) for one in results))
    return [*lines, "", f"The same ends on both sides: {'; '.join(equal) or 'none'}."]
