"""What judging trees for guest_memfd found: as text, as a JSON object, and as docs/judged-guest-memfd.md."""

from __future__ import annotations

import re
from typing import Any

from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.model.fixes import order
from ultrafolio.model.rule import Rule
from ultrafolio.nouns import plural

from .at_once import OTHER_KIND, UNALLOCATED
from .at_once import REASONS as AT_ONCE
from .pieces import FIRST, LAST, NO_RULE, NOT_CUT, PIECES
from .reasons import REASONS
from .verdict import POLICY, Judgement


def text(result: Judgement) -> str:
    """The result in words."""
    lines = [f"Linux {result.version}, held to {POLICY}"]
    for name, one in result.operated.items():
        lines.append(f"  {name:13} equal {one.equal}, explained {one.explained}, differ {one.differ}")
    lines += [f"  {name:13} not judged: {why}" for name, why in result.not_judged.items()]
    if result.systems:
        lines.append(f"at once: {plural(result.systems, 'system')}, {plural(result.nodes, 'state')} of the C")
        lines.append(f"  ends that the rules lack: {len(result.missing)}, and {result.ends.total()} with a reason")
        lines.append(f"  ends of the rules that the C cannot have: {result.unreached.total()}")
        lines += [f"  {said}" for said in properties(result)]
    lines += result.unnamed[:20]
    lines += [
        f"{'differs' if reason.finding else 'explained'} ({reason.name}): {reason.about}; "
        f"{result.cuts.get(reason.piece, '')}"
        for reason in REASONS
        if reason.name in result.shortest
    ]
    lines += [
        result.shortest[reason.name][1] for reason in REASONS if reason.finding and reason.name in result.shortest
    ]
    return "\n".join([*lines, _last(result)]) + "\n"


def properties(result: Judgement) -> list[str]:
    """What the states of the C say of the properties that each is asked for, in words."""
    return [
        f"{GUEST_MEMFD.properties[number]}: "
        + (
            f"broken in {plural(result.broken[number], 'system')}"
            if result.broken[number]
            else "in every state of the C"
        )
        for number in (OTHER_KIND, UNALLOCATED)
    ]


def _last(result: Judgement) -> str:
    """The verdict in one line."""
    said = "no unexplained difference"
    if result.code == 1:
        named = "" if result.unnamed else f": {', '.join(found(result))}"
        said = f"the rules differ from the kernel's C{named}"
    return said + (f"; not judged: {', '.join(result.not_judged)}" if result.not_judged else "")


def found(result: Judgement) -> list[str]:
    """The names of the reasons for which rules differ."""
    return [reason.name for reason in REASONS if reason.finding and reason.name in result.shortest]


def as_record(result: Judgement) -> dict[str, Any]:
    """The result as a JSON object of version 1."""
    return {
        "version": 1,
        "design": GUEST_MEMFD.name,
        "kernel": result.version,
        "policy": POLICY,
        "pieces": result.cuts,
        "not_judged": result.not_judged,
        "agrees": result.code != 1,
        "complete": not result.not_judged,
        "rules": {GUEST_MEMFD.rules[pc].name: word for pc, word in sorted(result.rules.items())},
        "operations": {
            name: {
                "equal": one.equal,
                "explained": one.explained,
                "differ": one.differ,
                "reasons": dict(sorted(one.reasons.items())),
                "unnamed": one.unnamed,
            }
            for name, one in result.operated.items()
        },
        "at_once": {
            "systems": result.systems,
            "states": result.nodes,
            "missing": result.missing,
            "reasons": dict(sorted(result.ends.items())),
            "unreached": dict(sorted(result.unreached.items())),
            "broken": {GUEST_MEMFD.properties[number]: count for number, count in sorted(result.broken.items())},
        },
    }


def page(results: list[Judgement], command: str) -> str:
    """The page as Markdown, with the command that made it; the same results give the same bytes."""
    lines = [
        "# What the kernel's own C says of the rules of guest_memfd", "",
        f"Made by `{command}`. As on [judged.md](judged.md), functions are cut from a kernel source tree, unmodified, "
        "and compiled in user space over a shim; here they are KVM's, and the rules are those of the preset "
        f"`{POLICY}` on the machines `software` and, one operation alone, `snp`. No text of the kernel is in this "
        "repository.", "",
        f"Linux {FIRST} to {LAST} is accepted; what a version lacks is said. *equal*: the same events, the same end, "
        "the same final state from every start. *explained*: equal but for reasons that the rules mean to have. "
        "*differs*: for a reason that they do not mean, with the shortest start below. *not judged*: with the reason.",
    ]  # fmt: skip
    lines += _kernels(results) + _rules(results) + _reasons(results) + _found(results) + _unreached(results)
    return "\n".join([*lines, *_pieces(results)]) + "\n"


def _table(*heads: str) -> list[str]:
    """Returns the two lines that head a table."""
    return [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]


def _kernels(results: list[Judgement]) -> list[str]:
    """Returns the lines of the table of trees."""
    lines = ["", "## Kernels", "", *_table("tree", "operation", "equal", "explained", "differ", "without a reason")]
    for result in results:
        for name, one in result.operated.items():
            numbers = f"{one.equal} | {one.explained} | {one.differ} | {len(one.unnamed)}"
            lines.append(f"| Linux {result.version} | {name} | {numbers} |")
        lines += [f"| Linux {result.version} | {name} | not judged: {why} | | | |"
                  for name, why in result.not_judged.items()]  # fmt: skip
    lines += ["", "At once, from one page and from two in every situation, and three at once from one page:", ""]
    heads = ("tree", "systems", "states of the C", "ends that the rules lack, with a reason", "without one",
             "ends that the C cannot have")  # fmt: skip
    lines += _table(*heads)
    lines += [
        f"| Linux {one.version} | {one.systems} | {one.nodes} | {one.ends.total()} | {len(one.missing)} | "
        f"{one.unreached.total()} |"
        for one in results
    ]
    lines += ["", "Two properties of the design are asked of each of these states of the C, the second of private "
              "pages, since a shared page is another frame:", ""]  # fmt: skip
    return lines + [f"- Linux {one.version}: {said}" for one in results for said in properties(one)]


def _rules(results: list[Judgement]) -> list[str]:
    """Returns the lines of the table of rules, a column for each tree."""
    lines = ["", "## Rules", "", *_table("rule", "held to", *(f"Linux {one.version}" for one in results))]
    for pc in sorted(GUEST_MEMFD.rules):
        rule = GUEST_MEMFD.rules[pc]
        by = sorted({name for one in results for name in one.by.get(pc, ())})
        cells = [_cell(result, pc, rule) for result in results]
        lines.append(f"| {rule.name} | {', '.join(by) or '-'} | {' | '.join(cells)} |")
    return lines


def _cell(result: Judgement, pc: int, rule: Rule) -> str:
    """Returns what a tree says of a rule."""
    word = result.rules.get(pc, "")
    if not word:
        return f"not judged ({why_not_judged(rule, result.version)})"
    why = sorted(result.why[pc])
    return f"{word} ({', '.join(why)})" if why else word


def why_not_judged(rule: Rule, version: str) -> str:
    """Why no operation took a rule, from what the rule itself says."""
    if rule.actor != "host":
        return "a step of the guest, of its VMM, or of a device: no function of KVM decides it"
    if rule.chooses:
        return "it only picks the page; an operation begins after it"
    if re.search(r"queued for 7\.4|RFC", rule.kernel):
        return f"no tree has it: {rule.kernel}"
    since = [one for one in re.findall(r"v(\d+\.\d+)", rule.kernel) if order(one) > order(version)]
    if since:
        return f"a process maps a guest_memfd from Linux {since[0]} on: {rule.kernel}"
    return "no judged operation takes this rule"


def _reasons(results: list[Judgement]) -> list[str]:
    """The reasons of differences: of operations alone, then of operations at once."""
    lines = ["", "## Reasons", "", *_table("reason", "what differs", "where", "runs")]
    for reason in REASONS:
        count = ", ".join(str(sum(o.reasons[reason.name] for o in one.operated.values())) for one in results)
        lines.append(f"| {reason.name} | {reason.about} | {_where(results, reason.piece)} | {count} |")
    lines += ["", "Where operations run at once, for ends of the C that the rules lack:", ""]
    lines += _table("reason", "what differs", "where", "ends")
    for about in AT_ONCE:
        count = ", ".join(str(one.ends[about.name]) for one in results)
        lines.append(f"| {about.name} | {about.about} | {_where(results, about.piece)} | {count} |")
    return lines


def _where(results: list[Judgement], piece: str) -> str:
    return "; ".join(one.cuts[piece] for one in results if piece in one.cuts)


def _found(results: list[Judgement]) -> list[str]:
    """The shortest start of each difference that the rules do not mean."""
    lines = ["", "## Where the rules differ", "",
             "From the shortest start: lines of the C with -, lines of the rules with +."]  # fmt: skip
    for result in results:
        for name in found(result):
            lines += ["", f"Linux {result.version}, {name}:", "", "```text", result.shortest[name][1], "```"]
    return lines


def _unreached(results: list[Judgement]) -> list[str]:
    """The ends of the rules that the C lacks."""
    names = [f"Linux {one.version}" for one in results]
    lines = ["", "## Ends of the rules that the C cannot have", "", *_table("at once", *names)]
    for said in sorted({said for one in results for said in one.unreached}):
        lines.append(f"| {said} | {' | '.join(str(one.unreached[said]) for one in results)} |")
    return lines


def _pieces(results: list[Judgement]) -> list[str]:
    """What was cut from each tree, what was not cut, and functions that no rule mirrors."""
    lines = ["", "## Pieces", "", *_table("piece", "what it is", *(f"Linux {one.version}" for one in results))]
    for piece in PIECES:
        cells = [one.cuts.get(piece.name, "none, or no operation needs it") for one in results]
        lines.append(f"| {piece.name} | {piece.about} | {' | '.join(cells)} |")
    lines += ["", "Not cut, and what stands for it:", ""]
    lines += [f"- `{name}`: {why}" for name, why in NOT_CUT.items()]
    lines += ["", "Functions of guest_memfd that no rule mirrors:", ""]
    return lines + [f"- `{name}`: {why}" for name, why in NO_RULE.items()]
