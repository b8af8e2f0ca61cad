"""Verdicts as KTAP, version 1, as the kernel writes it (Documentation/dev-tools/ktap.rst): a scenario is a test, its
policies are its subtests.

A result that the scenario's [expect] wants is `ok`: with XFAIL where it is a failure. What is not wanted is `not ok`;
so is a failure of which [expect] says nothing. What was not explored to its end is SKIP: it has not passed, nor failed.
Diagnostics are `# ` lines before the result that they belong to.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ultrafolio.check.verdicts.verdict import Result


@dataclass(frozen=True, slots=True)
class Reported:
    """A result to be told.

    name     the scenario's
    line     the line that decides, export/observation.py
    differs  where it is not as [expect] says, a line each; None where [expect] has no entry for its policy
    """

    result: Result
    name: str
    line: str
    differs: Sequence[str] | None


def ktap(results: Sequence[Reported]) -> str:
    """The document. Results of one scenario must follow each other."""
    groups = [(name, list(group)) for name, group in itertools.groupby(results, lambda one: one.name)]
    lines = ["KTAP version 1", f"1..{len(groups)}"]
    for number, (name, group) in enumerate(groups, 1):
        lines += [f"  {line}" for line in _subtests(name, group)]
        skipped = all(one.result.verdict == "unknown" for one in group)
        passed = all(_is_ok(one) for one in group)
        lines.append(f"{'ok' if passed else 'not ok'} {number} {plain(name)}{' # SKIP' if skipped and passed else ''}")
    return "\n".join(lines)


def _subtests(name: str, group: Sequence[Reported]) -> Iterator[str]:
    yield "KTAP version 1"
    yield f"# Subtest: {plain(name)}"
    yield f"1..{len(group)}"
    for number, one in enumerate(group, 1):
        yield from _diagnostics(one)
        yield f"{'ok' if _is_ok(one) else 'not ok'} {number} {plain(one.result.policy)}{_directive(one)}"


def _is_ok(one: Reported) -> bool:
    """Whether the verdict is the expected one; without expectations, whether nothing is violated."""
    if one.differs is not None:
        return not one.differs
    return one.result.verdict != "violated"


def _directive(one: Reported) -> str:
    """What stands behind a name that is `ok` though it did not pass."""
    if not _is_ok(one):
        return ""
    if one.result.verdict == "unknown":
        return f" # SKIP {one.result.reason}"
    return f" # XFAIL {one.result.worst.kind}, as [expect] has it" if one.result.verdict == "violated" else ""


def _diagnostics(one: Reported) -> Iterator[str]:
    """Lines of diagnosis: who waits for what, what is not as expected, and what to type."""
    yield f"# {one.line}"
    worst = one.result.worst
    if worst.kind and worst.wait:
        yield f"# {worst.wait.line()}"
    elif worst.kind:
        yield f"# {worst.verdict}: {worst.name}"
    yield from (f"# {line}" for line in one.differs or ())
    if one.result.verdict != "holds" and one.result.command:
        yield f"# reproduce: {one.result.command}"


def plain(name: str) -> str:
    """A name as KTAP has it: a # in it would begin a directive."""
    return name.replace("#", ":")
