"""Judging a tree: every operation from every start, and every pair of operations at once, in one result."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace

from ..engine.load import functions
from ..model.layout import ANON, EXPORTED, PINNED_SHARED, SECURE, SHARED
from ..model.policies import find
from ..model.rule import RULES
from .build import Program
from .carries import preset
from .concurrent import together
from .cut import Tree
from .explained import explain
from .sequential import compare
from .starts import Start

AT_ONCE = ("import", "unshare", "pin", "pin-fast", "writeback", "reclaim")
PAIR_STARTS = (
    Start(), Start(uv=SECURE, arch=1), Start(uv=SHARED, arch=1), Start(uv=PINNED_SHARED), Start(uv=EXPORTED),
    Start(uv=SECURE, arch=1, references="pin"), Start(uv=SECURE, arch=1, backing=ANON),
    Start(uv=SHARED, arch=1, backing=ANON),
)  # fmt: skip
TRIPLE = ("import", "pin", "writeback")


@dataclass
class Operated:
    """What came of one operation: how many starts were equal, explained by which reasons, or differ."""

    equal: int = 0
    explained: Counter[str] = field(default_factory=Counter)
    starts_explained: int = 0
    differ: list[str] = field(default_factory=list)


@dataclass
class Judgement:
    """What judging a tree found.

    policy     the preset that it was held to; `carried` says which fixes it has beyond its version
    operated   by operation
    rules      by rule, how it fares: equal, explained, or differs
    missing    an end of the C that the rules lack, in words; none where the rules are right
    unreached  how many ends of the rules the C cannot have, by operations
    """

    version: str
    policy: str
    carried: list[str]
    cuts: dict[str, str]
    operated: dict[str, Operated]
    rules: dict[int, str]
    not_judged: dict[str, str]
    missing: list[str] = field(default_factory=list)
    unreached: Counter[str] = field(default_factory=Counter)
    nodes: int = 0

    @property
    def agrees(self) -> bool:
        """Whether nothing is left without an explanation."""
        return not self.missing and not any(one.differ for one in self.operated.values())


def judge(
    tree: Tree, name: str = "", *, together_too: bool = True, three: bool = False, whole: bool = True,
    changed: Mapping[str, str] | None = None,
) -> Judgement:  # fmt: skip
    """Judge the rules by a tree. `name`: a preset other than the tree's; `changed`: rules broken on purpose, as
    engine.load.functions takes them. InputError for a tree that cannot be judged."""
    rules = SimpleNamespace(**functions(lambda function: function, changed))
    with Program(tree) as program:
        made = program.made
        own, carried = preset(tree.base, made.cuts)
        policy = find(name or own)
        result = Judgement(tree.version, name or own, carried, {k: c.where for k, c in made.cuts.items()},
                           {op.name: Operated() for op in made.operations}, {}, dict(made.missing))  # fmt: skip
        for pair in compare(program, rules, policy, list(result.operated), whole):
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
        if together_too:
            _at_once(result, program, rules, name or own, three)
    return result


_RANK = ("equal", "explained", "differs")


def _worse(rules: dict[int, str], rule: int, word: str) -> None:
    if _RANK.index(word) >= _RANK.index(rules.get(rule, "equal")):
        rules[rule] = word


def _at_once(result: Judgement, program: Program, rules: SimpleNamespace, name: str, three: bool) -> None:
    able = [name for name in AT_ONCE if name in result.operated]
    groups: list[tuple[str, ...]] = list(itertools.combinations_with_replacement(able, 2))
    if three and set(TRIPLE) <= set(able):
        groups.append(TRIPLE)
    policy = find(name)
    for group, start in itertools.product(groups, PAIR_STARTS):
        found = together(program, rules, policy, start, group)
        result.nodes += found.in_c.nodes
        said = " and ".join(group)
        for threads, _ in sorted(found.missing):
            result.missing.append(f"{said} from {start}: only the C ends with {', '.join(threads)}")
        result.unreached[said] += len(found.unreached)


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
