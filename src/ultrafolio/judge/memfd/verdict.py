"""Judge a tree for guest_memfd: every operation from every start, and two or three of them at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

from ultrafolio.engine.load import functions
from ultrafolio.errors import InputError
from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.model.fixes import order
from ultrafolio.model.guest_memfd.policy import PRESETS

from ..build import Program
from ..cut import Tree
from .at_once import Ruled, explain, together
from .pieces import FIRST, GMEM, LAST, MEMFD
from .reasons import reasons
from .sequential import Compared, Sides
from .starts import pairs, plain, threes
from .ways import WAYS

POLICY = "gmem-two-backings"
"""What the judged versions have."""
_RANK = ("equal", "explained", "differs")


@dataclass
class Operated:
    """The result of one operation: the numbers of starts that are equal, explained, or differ, by reason. unnamed: the
    differences without a reason, in words."""

    equal: int = 0
    explained: int = 0
    differ: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    unnamed: list[str] = field(default_factory=list)


@dataclass
class Judgement:
    """What judging a tree found.

    cuts        piece -> where it stands
    operated    by operation
    rules       place of a rule -> equal, explained or differs; why: the names of its reasons; by: its operations
    missing     ends of the C that the rules lack without a reason, in words
    ends        by reason: the number of ends of the C that the rules lack
    unreached   ends of the rules that the C lacks, in words, with the number of starts of each
    broken      property -> in how many systems a state of the C breaks it
    systems     the number of systems of operations at once;  nodes: of the C's states in them
    shortest    name of a reason -> how many reasons the first difference with the fewest has, and that difference
    not_judged  operation -> why
    """

    version: str
    cuts: dict[str, str]
    operated: dict[str, Operated]
    not_judged: dict[str, str]
    rules: dict[int, str] = field(default_factory=dict)
    why: dict[int, set[str]] = field(default_factory=dict)
    by: dict[int, set[str]] = field(default_factory=dict)
    shortest: dict[str, tuple[int, str]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    unreached: Counter[str] = field(default_factory=Counter)
    broken: Counter[int] = field(default_factory=Counter)
    systems: int = 0
    nodes: int = 0

    @property
    def unnamed(self) -> list[str]:
        """The differences without a reason, in words."""
        return [text for one in self.operated.values() for text in one.unnamed] + self.missing

    @property
    def code(self) -> int:
        """0 where all operations are judged and agree, 1 where one differs or a state of the C breaks a property,
        else 3: one is not judged."""
        differs = self.missing or self.broken or any(one.differ for one in self.operated.values())
        return 1 if differs else 3 if self.not_judged else 0


def judge(
    tree: Tree,
    *,
    together_too: bool = True,
    every: bool = False,
    able: Sequence[str] = tuple(WAYS),
    changed: Mapping[str, str] | None = None,
) -> Judgement:
    """Compare the rules with a tree. Raises InputError for a tree that cannot be judged, or a version out of range.

    together_too  also two operations at once from one page in every situation; with `every` from two pages, too, and
                  three operations at once
    able          the operations that are judged
    changed       rules broken on purpose, as engine.load.functions takes them
    """
    if not order(FIRST) <= order(tree.base) <= order(LAST) or tree.text(GMEM) is None:
        raise InputError(
            "a kernel whose guest_memfd the judge has no pieces of",
            value=tree.version,
            allowed=f"Linux {FIRST} to {LAST}, with {GMEM}",
            cause="guest_memfd came with Linux 6.8, and in 6.13 the fault's functions changed",
            then="ultrafolio judge --tree DIR, for the design s390",
        )
    rules = SimpleNamespace(**functions(lambda function: function, changed, design=GUEST_MEMFD))
    with Program(tree, MEMFD) as program:
        made = program.made
        result = Judgement(
            tree.version,
            {name: cut.where for name, cut in made.cuts.items()},
            {op.name: Operated() for op in made.operations if op.name in able},
            {name: why for name, why in made.missing.items() if name in able},
        )
        sides = Sides(program, rules, PRESETS[POLICY][1])
        for operation in result.operated:
            for pair in sides.alone(operation):
                _enter(result, pair, sides)
        if together_too:
            _at_once(result, sides, every)
    return result


def _at_once(result: Judgement, sides: Sides, every: bool) -> None:
    """Judge the operations that the tree has, at once."""
    ruled = Ruled(sides)
    runs = [(start, pair) for start in plain(every) for pair in pairs(start)]
    for start, doing in [*runs, *(threes() if every else ())]:
        if not all(one.operation in result.operated for one in doing):
            continue
        found = together(sides, ruled, start, doing)
        result.systems, result.nodes = result.systems + 1, result.nodes + found.in_c.nodes
        result.broken.update(found.broken)
        for end in found.missing:
            if reason := explain(found, end, ruled):
                result.ends[reason.name] += 1
            else:
                result.missing.append(f"{found}: only the C ends with {found.told(end)}")
        for end in found.unreached:
            result.unreached[f"{' and '.join(one.operation for one in doing)}: {found.told(end)}"] += 1


def _enter(result: Judgement, pair: Compared, sides: Sides) -> None:
    """Add a comparison to the result."""
    one, why = result.operated[pair.doing.operation], reasons(pair, sides.again)
    if why is None:
        one.unnamed.append(pair.diff())
    word = "differs" if why is None or any(r.finding for r in why) else "explained" if why else "equal"
    one.equal += word == "equal"
    one.explained += word == "explained"
    one.differ += word == "differs"
    one.reasons.update(reason.name for reason in why or ())
    for reason in why or ():
        if reason.name not in result.shortest or len(why or ()) < result.shortest[reason.name][0]:
            result.shortest[reason.name] = len(why or ()), pair.diff()
    for rule in pair.in_rules.rules:
        about = [reason for reason in why or () if rule in reason.rules]
        said = word if why is None else "differs" if any(r.finding for r in about) else _RANK[len(about) > 0]
        if _RANK.index(said) >= _RANK.index(result.rules.get(rule, "equal")):
            result.rules[rule] = said
        result.by.setdefault(rule, set()).add(pair.doing.operation)
        result.why.setdefault(rule, set()).update(reason.name for reason in about)
