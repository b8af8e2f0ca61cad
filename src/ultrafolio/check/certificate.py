"""What bears out the class of a wait, asked of the plain interpreter before a verdict is printed, and again of a file.

permanent   what is named is there in every state, and no fair step that is enabled removes it;
livelock    the way around removes the obstacle, or could by a fair step, and takes it again, or takes that step away;
            or it imports the page and takes it away;
fatal       the waiter or its guest is dead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ultrafolio.model.layout import ALLOWED, IMPORT_CALL, IMPORT_END, State
from ultrafolio.model.scenario import System
from ultrafolio.waits.load import interpreted
from ultrafolio.waits.tables import OB_REFS, OBSTACLES, PAGE

from .components import Judged, Lookup
from .replay import NotCertified, Step, copied, enabled_fair, replay, take

MOST = 2_000
"""States of a component that are asked one by one; of a larger one so many, spread evenly."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What is said of a wait: who waits, for which page, of which class, named after which obstacles.

    whole  references are counted over the folio;  named: names of waits.tables.OBSTACLES, or `page`
    """

    waiter: int
    kind: str
    page: int
    whole: bool
    named: tuple[str, ...]

    @property
    def bits(self) -> int:
        """The named obstacles, a bit each."""
        return sum(1 << OBSTACLES.index(name) for name in self.named if name != PAGE)


def claim_of(judged: Judged) -> Claim:
    """What the class of a component says."""
    named = tuple(name for n, name in enumerate(OBSTACLES) if judged.named >> n & 1)
    return Claim(judged.component.waiter, judged.kind, judged.page, judged.whole, (PAGE,) if judged.taken else named)


def certify_component(lookup: Lookup, judged: Judged, cycle: Sequence[Step]) -> None:
    """NotCertified where a state of the component, or the way around, does not bear the class out."""
    claim, members, system = claim_of(judged), judged.component.members, lookup.graph.system
    entry = lookup.state(judged.component.entry)
    if claim.kind == "permanent":
        for number in members[:: max(1, len(members) // MOST)].tolist():
            state = lookup.state(number)
            certify_permanent(system, state, claim)
            _held_by(state, claim, judged.holding)
    else:
        certify_cycle(system, entry, [step.by for step in cycle], claim)


def certify_story(system: System, stem: Sequence[int], cycle: Sequence[int], claim: Claim) -> None:
    """The same of a story alone: the states that its way around passes. NotCertified where they do not bear it out."""
    _, state = replay(system, stem)
    if claim.kind != "permanent":
        certify_cycle(system, state, cycle, claim)
        return
    for by in [*cycle, None]:
        certify_permanent(system, state, claim)
        if by is not None:
            take(system, state, by)


def certify_permanent(system: System, state: State, claim: Claim) -> None:
    """What is named is there in this state (as lists), and no enabled fair step removes it. Else NotCertified."""
    run, bits = interpreted(), claim.bits
    if not bits or run.stands(state, claim.waiter, claim.page, claim.whole) & bits != bits:
        raise NotCertified(f"{' and '.join(claim.named) or 'an obstacle'} is not there all along")
    for t in sorted(enabled_fair(system, state)):
        after = copied(state)
        run.step(after, t, 0, 0)
        if run.stands(after, claim.waiter, claim.page, claim.whole) & bits != bits:
            raise NotCertified(f"a fair step of actor {t} removes {' or '.join(claim.named)}")


def _held_by(state: State, claim: Claim, holding: Sequence[int]) -> None:
    """Those that are said to hold it in every state do in this one."""
    run, bits = interpreted(), claim.bits
    for a in holding:
        if a >= 0:
            held = run.contributes(state, a, claim.waiter, claim.page, claim.whole) & bits
        else:
            held = run.batched(state, claim.page, claim.whole, -1 - a)
        if not held:
            raise NotCertified(f"actor {a} does not hold {' or '.join(claim.named)} all along")


def certify_cycle(system: System, state: State, cycle: Sequence[int], claim: Claim) -> None:
    """The way around from this state bears out that the wait is fatal, or a livelock. Else NotCertified."""
    run, t, page = interpreted(), claim.waiter, claim.page
    if claim.kind == "fatal":
        if not run.is_dead(state, t):
            raise NotCertified(f"neither actor {t} nor its guest is dead")
        return
    if not claim.named:
        return
    freed = taken = could = could_not = False
    here = copied(state)
    for by in cycle:
        before = copied(here)
        take(system, here, by)
        if claim.named == (PAGE,):
            freed |= _imports(before, here, by >> 16, page)
            taken |= _allowed(before, t, page) and not _allowed(here, t, page)
            continue
        more, less = _change(before, here, by >> 16, claim)
        freed, taken = freed or less, taken or more
        now = _removable(system, before, claim)
        could, could_not = could or now, could_not or not now
    if not (freed or could):
        raise NotCertified(f"nothing on the way around removes {' or '.join(claim.named)}")
    if not (taken or (could and could_not)):
        raise NotCertified(f"nothing on the way around takes {' or '.join(claim.named)} again")


def _imports(before: State, after: State, a: int, page: int) -> bool:
    """Whether the step of actor `a` is an import of the page that succeeds."""
    k = before.task[a]
    return bool(k.pc == IMPORT_CALL and k.page == page and after.task[a].pc == IMPORT_END)


def _allowed(state: State, t: int, page: int) -> bool:
    return bool(interpreted().hw_guest(state, state.who[t].vm, page) == ALLOWED)


def _change(before: State, after: State, a: int, claim: Claim) -> tuple[bool, bool]:
    """Whether the step of actor `a` adds to the obstacle, and whether it takes from it."""
    run, t, page, whole, bits = interpreted(), claim.waiter, claim.page, claim.whole, claim.bits
    counts = []
    for state in (before, after):
        mine = run.contributes(state, a, t, page, whole) & bits if a != t else 0
        batches = run.batches(state, page, whole) if bits & OB_REFS else 0
        counts.append((run.stands(state, t, page, whole) & bits > 0, mine > 0, batches))
    pairs = list(zip(*counts, strict=True))
    return any(now > was for was, now in pairs), any(now < was for was, now in pairs)


def _removable(system: System, state: State, claim: Claim) -> bool:
    """Whether a fair step that is enabled removes the obstacle."""
    run, bits = interpreted(), claim.bits
    if run.stands(state, claim.waiter, claim.page, claim.whole) & bits == 0:
        return False
    for t in enabled_fair(system, state):
        after: Any = copied(state)
        run.step(after, t, 0, 0)
        if run.stands(after, claim.waiter, claim.page, claim.whole) & bits == 0:
            return True
    return False
