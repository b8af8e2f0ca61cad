"""Judge a tree: every operation from every start, and every pair of concurrent operations, in one result."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

from ..engine.load import functions
from ..errors import InputError
from ..model.fixes import order
from ..model.layout import ANON, EXPORTED, PINNED_SHARED, SECURE, SHARED
from ..model.policies import find
from ..model.policy import Policy
from ..model.rule import RULES
from .at_once import explain as explain_end
from .build import Program
from .carries import preset
from .concurrent import MOST_NODES, Ruled, TooMany, together
from .cut import Tree
from .explained import explain
from .pieces import FIRST, LAST
from .sequential import BUSY, FOR_EVER, compare, fits, fitting
from .starts import Start, starts

SKIPPED_PAGE = "d16a74f0f266"
AT_ONCE = ("import", "unshare", "pin", "pin-fast", "writeback", "reclaim")
NAMED = {
    "plain": Start(),
    "secure": Start(uv=SECURE, arch=1),
    "shared": Start(uv=SHARED, arch=1),
    "pinned": Start(uv=PINNED_SHARED),
    "exported": Start(uv=EXPORTED),
    "secure-and-pin": Start(uv=SECURE, arch=1, references="pin"),
    "secure-anon": Start(uv=SECURE, arch=1, backing=ANON),
    "shared-anon": Start(uv=SHARED, arch=1, backing=ANON),
}
"""The starts from which operations run at once unless every start is asked for; --three takes these names."""


@dataclass
class Operated:
    """The result of one operation: the numbers of starts that are equal, explained (by reason), or differ."""

    equal: int = 0
    explained: Counter[str] = field(default_factory=Counter)
    starts_explained: int = 0
    differ: list[str] = field(default_factory=list)


@dataclass
class Judgement:
    """What judging a tree found.

    policy     the preset of the comparison; `carried`: lines about the tree's fixes
    operated   by operation
    rules      by rule: equal, explained, or differs
    missing    ends of the C that the rules lack without a reason, in words
    explained  by reason: the number of ends of the C that the rules lack
    unreached  by operations: ends of the rules that the C lacks, in words, with the number of starts of each
    at_once    the numbers of judged systems of concurrent operations, and of their starts
    """

    version: str
    policy: str
    carried: list[str]
    cuts: dict[str, str]
    operated: dict[str, Operated]
    rules: dict[int, str]
    not_judged: dict[str, str]
    missing: list[str] = field(default_factory=list)
    explained: Counter[str] = field(default_factory=Counter)
    unreached: dict[str, Counter[str]] = field(default_factory=dict)
    at_once: tuple[int, int] = (0, 0)
    nodes: int = 0
    every: bool = False

    @property
    def ends_unreached(self) -> int:
        """The number of ends of the rules that the C lacks, over all concurrent operations and all starts."""
        return sum(found.total() for found in self.unreached.values())

    @property
    def agrees(self) -> bool:
        """Whether every difference has an explanation."""
        return not self.missing and not any(one.differ for one in self.operated.values())

    @property
    def code(self) -> int:
        """0 where all operations are judged and agree, 1 where one differs, else 3: one is not judged."""
        return 1 if not self.agrees else 3 if self.not_judged else 0


def judge(
    tree: Tree,
    name: str = "",
    *,
    together_too: bool = True,
    every: bool = False,
    three: Sequence[str] = (),
    able: Sequence[str] = AT_ONCE,
    whole: bool = True,
    changed: Mapping[str, str] | None = None,
) -> Judgement:
    """Compare the rules with a tree. Raises InputError for a tree that cannot be judged, or a version out of range.

    name           a preset other than the tree's
    together_too   also two concurrent operations, from the starts of NAMED; with `every` from all starts
    able           the operations that run concurrently
    three          names of starts from which three operations run concurrently, too
    whole          all starts for operations alone; else those of one page with one other reference at most
    changed        rules broken on purpose, as engine.load.functions takes them
    """
    if not order(FIRST) <= order(tree.base) <= order(LAST):
        raise InputError(
            "a kernel that the judge has no pieces of",
            value=tree.version,
            allowed=f"Linux {FIRST} to {LAST}",
            cause="secure guests came with Linux 5.7, and from 6.14 on an import stands in other functions",
            then="ultrafolio judge --tree DIR --citations",
        )
    rules, busy = (
        SimpleNamespace(**functions(lambda function: function, {**(changed or {}), **more})) for more in ({}, BUSY)
    )
    with Program(tree) as program:
        made = program.made
        own, carried = preset(tree)
        policy = find(name or own)
        result = Judgement(
            tree.version,
            name or own,
            carried,
            {k: c.where for k, c in made.cuts.items()},
            {op.name: Operated() for op in made.operations},
            {},
            dict(made.missing),
        )
        result.every = every
        endless = _alone(result, program, rules, busy, policy, whole=whole)
        if together_too:
            able = [name for name in able if name not in endless]
            runs = list(itertools.product(_groups(able, result, 2), starts() if every else NAMED.values()))
            runs += itertools.product(_groups(able, result, 3), [NAMED[one] for one in three])
            known = set(fitting(tree.base, (start for _, start in runs)))
            runs = [
                (group, start)
                for group, start in runs
                if start in known and all(fits(operation, start) for operation in group)
            ]
            _at_once(result, program, Ruled(rules, policy), _fixed(rules, result.policy), runs)
    return result


def _alone(
    result: Judgement,
    program: Program,
    rules: SimpleNamespace,
    busy: SimpleNamespace,
    policy: Policy,
    *,
    whole: bool,
) -> set[str]:
    """Add the comparisons of operations alone to `result`. Returns the operations that did not end in C."""
    endless = set()
    for pair in compare(program, rules, policy, list(result.operated), whole, busy):
        if pair.in_c.end == FOR_EVER:
            endless.add(pair.operation)
        one, reasons = result.operated[pair.operation], explain(pair)
        if reasons is None:
            one.differ.append(pair.diff())
        elif reasons:
            one.starts_explained += 1
            one.explained.update(reasons)
        else:
            one.equal += 1
        word = "differs" if reasons is None else "explained" if reasons else "equal"
        for rule in pair.in_rules.rules:
            _worse(result.rules, rule, word)
    return endless


_RANK = ("equal", "explained", "differs")


def _worse(rules: dict[int, str], rule: int, word: str) -> None:
    """Record the word for a rule, unless a worse one is recorded."""
    if _RANK.index(word) >= _RANK.index(rules.get(rule, "equal")):
        rules[rule] = word


def _groups(able: Sequence[str], result: Judgement, threads: int) -> list[tuple[str, ...]]:
    """Returns the combinations of so many judged operations."""
    known = [name for name in able if name in result.operated]
    return list(itertools.combinations_with_replacement(known, threads))


def _fixed(rules: SimpleNamespace, name: str) -> Ruled:
    """The rules under a policy, with the fix for the page that a fast pin skips."""
    try:
        return Ruled(rules, find(f"{name}+{SKIPPED_PAGE}"))
    except InputError:
        return Ruled(rules, find(name))


def _at_once(
    result: Judgement, program: Program, ruled: Ruled, fixed: Ruled, runs: list[tuple[tuple[str, ...], Start]]
) -> None:
    """Judge groups of operations that run at once; record what differs, and what was too large."""
    result.at_once = len(runs), len({start for _, start in runs})
    for group, start in runs:
        said = " and ".join(group)
        try:
            found = together(program, ruled, start, group)
        except TooMany:
            result.not_judged[f"{said} from {start}"] = f"more than {MOST_NODES} states"
            continue
        result.nodes += found.in_c.nodes
        for end in sorted(found.missing):
            if reason := explain_end(found, end, ruled, fixed):
                result.explained[reason] += 1
            else:
                result.missing.append(f"{said} from {start}: only the C ends with {', '.join(end[0])}")
        result.unreached.setdefault(said, Counter()).update(found.named())


def rule_table(results: list[Judgement]) -> list[list[str]]:
    """A row a rule: its name, its kernel function, and for each tree equal, differs (reason), or not judged."""
    rows = []
    for pc in sorted(RULES):
        rule = RULES[pc]
        cells = [one.rules.get(pc, "not judged") for one in results]
        rows.append([rule.name, rule.kernel, *cells])
    return rows


def why_not_judged(name: str) -> str:
    """Why no operation took a rule, from what the rule itself says."""
    rule = next(rule for rule in RULES.values() if rule.name == name)
    if rule.kernel.startswith("none"):
        return "no kernel does this"
    if rule.actor != "host":
        return "a step of the guest or of a device"
    if rule.chooses:
        return "it only picks the page; an operation begins after it"
    return "no judged operation takes this rule under these kernels"
