"""Judge a tree for guest_memfd: every operation from every start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace

from ultrafolio.engine.load import functions
from ultrafolio.errors import InputError
from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.model.fixes import order
from ultrafolio.model.guest_memfd.policy import PRESETS

from ..build import Program
from ..cut import Tree
from .pieces import FIRST, GMEM, LAST, MEMFD
from .reasons import reasons
from .sequential import Compared, Sides

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
    rules       place of a rule -> equal, explained or differs; `why`: the names of its reasons
    shortest    name of a reason -> the first difference that has it alone, in words
    not_judged  operation -> why
    """

    version: str
    cuts: dict[str, str]
    operated: dict[str, Operated]
    not_judged: dict[str, str]
    rules: dict[int, str] = field(default_factory=dict)
    why: dict[int, set[str]] = field(default_factory=dict)
    shortest: dict[str, str] = field(default_factory=dict)

    @property
    def code(self) -> int:
        """0 where all operations are judged and agree, 1 where one differs, else 3: one is not judged."""
        return 1 if any(one.differ for one in self.operated.values()) else 3 if self.not_judged else 0


def judge(tree: Tree, *, changed: Mapping[str, str] | None = None) -> Judgement:
    """Compare the rules with a tree. Raises InputError for a tree that cannot be judged, or a version out of range.

    changed  rules broken on purpose, as engine.load.functions takes them
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
            {op.name: Operated() for op in made.operations},
            dict(made.missing),
        )
        sides = Sides(program, rules, PRESETS[POLICY][1])
        for operation in result.operated:
            for pair in sides.alone(operation):
                _enter(result, pair, sides)
    return result


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
    if why and len(why) == 1:
        result.shortest.setdefault(why[0].name, pair.diff())
    for rule in pair.in_rules.rules:
        about = [reason for reason in why or () if rule in reason.rules]
        said = word if why is None else "differs" if any(r.finding for r in about) else _RANK[len(about) > 0]
        if _RANK.index(said) >= _RANK.index(result.rules.get(rule, "equal")):
            result.rules[rule] = said
        result.why.setdefault(rule, set()).update(reason.name for reason in about)
