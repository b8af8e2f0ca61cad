"""docs/judged.md: rule by rule and kernel by kernel, what the kernel's own C says of the rules."""

from __future__ import annotations

from .explained import REASONS
from .pieces import NOT_CUT, PIECES
from .stands import STANDS
from .verdict import Judgement, rule_table, why_not_judged


def page(results: list[Judgement]) -> str:
    """The page as Markdown; the same results give the same bytes."""
    names = [f"Linux {one.version}" for one in results]
    lines = [
        "# What the kernel's own C says of the rules", "",
        "Made by `ultrafolio judge --tree DIR --markdown`. The functions that the rules mirror are cut from a "
        "kernel source tree, unmodified, compiled in user space over a shim, and run from every small situation. No "
        "text of the kernel is in this repository.", "",
        "*equal*: the same events, the same end, the same final state from every start. *explained*: equal but for the "
        "reasons below. *not judged*: with the reason.", "",
        "## Kernels", "",
        "| tree | held to | fixes beyond its version | operations alone | two at once: states, ends the rules lack, "
        "ends the C cannot have |", "| --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for one in results:
        alone = sum(o.equal + o.starts_explained + len(o.differ) for o in one.operated.values())
        differ = sum(len(o.differ) for o in one.operated.values())
        lines.append(f"| Linux {one.version} | `{one.policy}` | {'; '.join(one.carried) or 'none'} | {alone}, of which "
                     f"{differ} differ | {one.nodes}, {len(one.missing)}, {one.unreached.total()} |")  # fmt: skip
    lines += ["", "## Rules", "", f"| rule | kernel function | {' | '.join(names)} |",
              f"| --- | --- |{' --- |' * len(names)}"]  # fmt: skip
    for name, kernel, *cells in rule_table(results):
        said = [f"not judged ({why_not_judged(name)})" if cell == "not judged" else cell for cell in cells]
        lines.append(f"| {name} | {kernel} | {' | '.join(said)} |")
    lines += ["", "## Reasons", "", "| reason | what differs | where | starts |", "| --- | --- | --- | --- |"]
    for reason in REASONS:
        where = "; ".join(one.cuts[reason.piece] for one in results if reason.piece in one.cuts)
        count = ", ".join(str(sum(o.explained[reason.name] for o in one.operated.values())) for one in results)
        lines.append(f"| {reason.name} | {reason.about} | {where} | {count} |")
    lines += ["", "## Ends of the rules that the C cannot have", "",
              "The rules take one step where the kernel holds a lock over several, so they reach more ends. None of "
              "these is an end of the C.", "", f"| at once | {' | '.join(names)} |",
              f"| --- |{' --- |' * len(names)}"]  # fmt: skip
    for group in sorted({g for one in results for g in one.unreached}):
        lines.append(f"| {group} | {' | '.join(str(one.unreached[group]) for one in results)} |")
    lines += [
        "",
        "## Pieces",
        "",
        f"| piece | what it is | {' | '.join(names)} |",
        f"| --- | --- |{' --- |' * len(names)}",
    ]
    for piece in PIECES:
        cells = [one.cuts.get(piece.name, "none") for one in results]
        lines.append(f"| {piece.name} | {piece.about} | {' | '.join(cells)} |")
    lines += ["", "Not cut, and what stands for it:", ""]
    lines += [f"- `{name}`: {why}" for name, why in NOT_CUT.items()]
    lines += ["", "## Where the functions stand, by version", "", "| what | versions | file | functions |",
              "| --- | --- | --- | --- |"]  # fmt: skip
    lines += [f"| {what} | {versions} | {file} | {functions} |" for what, versions, file, functions in STANDS]
    return "\n".join(lines) + "\n"
