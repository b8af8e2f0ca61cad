"""The facts that a proof kept, as Markdown: of every page, what counts add up to, then rule by rule.

    python -m ultrafolio.prove.facts_page > docs/facts.md

proves each policy of PAGE, which takes a minute or two.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ultrafolio.model import policies
from ultrafolio.model.designs import DESIGNS, GUEST_MEMFD

from . import WITHOUT, judge
from . import without as without_of
from .before import Fact, Problem
from .judge import Proof
from .paths import Place
from .rules import unchanged
from .systems import Systems
from .words import ANY_SIZE, assumed

PAGE = ("per-page", "import-lock")
PAGE_MEMFD = ("gmem-7.4", "software")
"""The policies of docs/facts.md; of guest_memfd with the machine."""
HEADING = f"""# Facts

What `ultrafolio prove` found to be true in every reachable state, {ANY_SIZE["s390"]}.
Printed by `python -m ultrafolio.prove.facts_page`; `ultrafolio prove --facts` prints the same for any policy.
How to read a proof: [read-a-proof.md](read-a-proof.md).

"It" is the thread that runs the rule next.
A rule that is not listed is never run under the policy, or nothing that was tried is known there.
"""


def page(policy: str, proof: Proof, without: Collection[int]) -> str:
    """The facts of one proof."""
    p = proof.problem
    lines = [
        f"## {policy}",
        "",
        f"Assumed: {'; '.join(assumed(without, p.rules.design))}.",
        "",
        "### Of every page",
        "",
    ]
    lines += [f"- {name}" for name in _of(p, "page")]
    lines += ["", "### Numbers", ""]
    lines += [f"- {name}: the number of a page is {_sum(p, name)} what threads have of it" for name in _of(p, "count")]
    lines += [f"- {name}" for name in _of(p, "sum")]
    for pc in sorted({place.pc for place in p.places}):
        places = [place for place in p.places if place.pc == pc]
        said = list(_of_rule(p, places))
        if said:
            lines += ["", f"### {places[0].rule}", "", *said]
    return "\n".join(lines) + "\n"


def _sum(p: Problem, name: str) -> str:
    return "the sum of" if p.subject.by_name[name].exact else "at least the sum of"


def _of(p: Problem, kind: str) -> list[str]:
    return sorted(name for of, place, name in p.kept if of == kind and place is None)


def _of_rule(p: Problem, places: list[Place]) -> Iterator[str]:
    """What is true at all places of a rule; then, per kind of actor and purpose, what is true there beside."""
    known = {place: {_said(p, fact) for fact in p.kept if fact[1] == place} for place in places}
    for said in known.values():
        said -= {weaker for stronger, weaker in p.subject.implied if stronger in said}
    everywhere = set.intersection(*known.values())
    yield from (f"- {said}" for said in sorted(everywhere))
    more: dict[frozenset[str], list[Place]] = {}
    for place in places:
        more.setdefault(frozenset(known[place] - everywhere), []).append(place)
    for facts, at in more.items():
        if facts:
            yield f"- {_whose(at)}:"
            yield from (f"  - {said}" for said in sorted(facts))


def _said(p: Problem, fact: Fact) -> str:
    kind, _, name = fact
    return p.subject.of_range.format(name) if kind == "range" else name


def _whose(places: list[Place]) -> str:
    """The threads at these places: of a vcpu; of a disk, for pin-get."""
    purposes: dict[tuple[int, int], list[str]] = {}
    design = DESIGNS[places[0].design]
    for place in places:
        purposes.setdefault((place.then, place.back), []).append(design.kinds[place.kind])
    made = []
    for (then, back), kinds in purposes.items():
        goes_on = [f"then {design.rules[pc].name}" for pc in (then, back) if pc in design.rules and pc]
        made.append(" ".join([f"of {', '.join(dict.fromkeys(kinds))}", *goes_on]))
    return "; ".join(made)


def _of_memfd() -> str:
    """The part about guest_memfd."""
    name, machine = PAGE_MEMFD
    systems = Systems(name, policies.find_any(name), without_of(GUEST_MEMFD), machine)
    proof = judge.prove_under(systems.cfg, without=systems.without, rules=unchanged(GUEST_MEMFD), numbers=())
    return page(systems.label, proof, systems.without)


def document() -> str:
    """docs/facts.md."""
    parts = [HEADING]
    for name in PAGE:
        parts.append(page(name, judge.prove(policies.find(name), without=WITHOUT, numbers=()), WITHOUT))
    parts.append(_of_memfd())
    return "\n".join(parts)


if __name__ == "__main__":
    print(document(), end="")
