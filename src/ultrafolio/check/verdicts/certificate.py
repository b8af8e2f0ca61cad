"""What bears out the class of a wait, asked of the plain interpreter before a verdict is printed, and again of a file.

permanent   what is named is there in every state, and no fair step that is enabled removes it;
livelock    the way around removes the obstacle, or could by a fair step, and takes it again, or takes that step away;
            or it imports the page and takes it away;
fatal       the waiter or its guest is dead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ultrafolio.check.verdicts import told
from ultrafolio.check.verdicts.claim import Claim
from ultrafolio.check.verdicts.components import Judged, Lookup
from ultrafolio.check.verdicts.replay import NotCertified, Step, copied, enabled_fair, replay, take
from ultrafolio.check.verdicts.told import turn
from ultrafolio.model.layout import State
from ultrafolio.model.rule import RULES
from ultrafolio.model.scenario import System
from ultrafolio.waits import words
from ultrafolio.waits.load import interpreted
from ultrafolio.waits.tables import OB_REFS, OBSTACLE_OF, OBSTACLES, PAGE
from ultrafolio.waits.words import Wait

MOST = 2_000
"""States of a component that are asked one by one; of a larger one so many, spread evenly."""
MANY = 64
"""States of a component that are asked who holds the obstacle of a livelock."""


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
    pins = []
    for number in members[:: max(1, len(members) // MOST)].tolist():
        state = lookup.state(number)
        if claim.kind != "fatal":
            certify_page(state, claim)
        pins.append(interpreted().unshares(state, claim.waiter) and pinned(state, claim.page))
    if claim.kind != "fatal" and judged.expected != all(pins):
        raise NotCertified("the mark of an expected wait is not what its states show")


def pinned(state: State, page: int) -> bool:
    """Whether a pin stands on the page."""
    return bool(state.mm[page].pins + state.mm[page].longs > 0)


def certify_words(lookup: Lookup, judged: Judged, wait: Wait) -> None:
    """The words name who holds what is waited for, and no one else. Else NotCertified.

    The holders that the words come from are held against what each actor contributes, state by state; the takers and
    releasing steps of a livelock against the edges that they take.
    """
    claim, entry = claim_of(judged), lookup.state(judged.component.entry)
    if wait.expected != judged.expected or wait.waiter != words.waiter_words(entry, claim.waiter, claim.page):
        raise NotCertified("the wait is not the component's")
    if claim.kind == "permanent":
        certify_holders(entry, claim)
        found = words.named_holders(entry, claim.waiter, claim.bits, claim.page, claim.whole, staying=True)
        if (wait.held_by, wait.released_by) != words.held_and_released(found):
            raise NotCertified(f"the words are not those of the holders: {wait.line()}")
    elif claim.kind == "livelock":
        _marked(lookup, judged)
        _certify_turns(lookup, judged, wait)


def certify_holders(state: State, claim: Claim) -> None:
    """The actors that the words say hold an obstacle are those that contribute to it, each by name; and an LRU batch is
    said to hold one where one does. Else NotCertified."""
    run, t, page, whole = interpreted(), claim.waiter, claim.page, claim.whole
    for bit in words.bits(claim.bits & run.stands(state, t, page, whole)):
        said = words.holders(state, t, bit, page, whole)
        actors = {h.actor for h in said if h.actor is not None}
        right = {a for a in range(len(state.task)) if a != t and run.contributes(state, a, t, page, whole) & bit}
        unnamed = [h.held for h in said if h.actor is not None and words.name(state, h.actor) not in h.held]
        batches = sum("LRU batch" in h.held for h in said)
        if actors != right or unnamed or (bit == OB_REFS and batches != run.batches(state, page, whole)):
            raise NotCertified(
                f"{' and '.join(h.held for h in said) or 'nobody'} is not who holds it: actors {sorted(right)}"
            )


def _certify_turns(lookup: Lookup, judged: Judged, wait: Wait) -> None:
    """The words of a livelock name every taker but the waiter, every releasing step, and a holder where there is one.
    Else NotCertified."""
    claim, entry, members = claim_of(judged), lookup.state(judged.component.entry), judged.component.members
    for number in members[:: max(1, len(members) // MANY)].tolist():
        certify_holders(lookup.state(number), claim)
    others = [step for step in judged.takers if step[0] != claim.waiter] or judged.takers
    missing = [
        f"{rule} of {words.name(entry, a)}"
        for a, rule in others
        if f"{rule} of {words.name(entry, a)}" not in wait.taken_by
    ]
    missing += [
        f"{rule} of {words.name(entry, a)}"
        for a, rule in judged.releases
        if f"{rule} of {words.name(entry, a)}" not in wait.released_by
    ]
    if missing or (judged.takers and wait.held_by.startswith("nobody")):
        raise NotCertified(f"{', '.join(missing) or 'a holder'} is not told: {wait.line()}")


def _marked(lookup: Lookup, judged: Judged) -> None:
    """Each taker and each releasing step takes an edge of the component that the interpreter sees do so."""
    graph, claim = lookup.graph, claim_of(judged)
    for steps, edges, which in ((judged.takers, judged.taking, 0), (judged.releases, judged.releasing, 1)):
        seen = set()
        for edge in edges.tolist():
            source = int(np.searchsorted(graph.space.first[: graph.states + 1], edge, "right")) - 1
            before = lookup.state(source)
            a = int(graph.space.via[edge]) >> 16
            step = a, RULES[before.task[a].pc].name
            if step in seen:
                continue
            after = copied(before)
            take(graph.system, after, int(graph.space.via[edge]))
            if (
                claim.bits
                and not any(told.turn(before, after, a, claim))
                and not (_removable(graph.system, before, claim) or _removable(graph.system, after, claim))
            ):
                raise NotCertified(f"{step[1]} of actor {a} does not change what is waited for")
            if claim.named == (PAGE,) and not told.turn(before, after, a, claim)[which]:
                raise NotCertified(f"{step[1]} of actor {a} neither takes the page away nor imports it")
            seen.add(step)
        if seen != set(steps):
            raise NotCertified(f"the steps {sorted(set(steps) ^ seen)} are named and not taken, or the other way")


def certify_story(system: System, stem: Sequence[int], cycle: Sequence[int], claim: Claim) -> None:
    """The same of a story alone: the states that its way around passes. NotCertified where they do not bear it out."""
    _, state = replay(system, stem)
    if claim.kind != "permanent":
        certify_cycle(system, state, cycle, claim)
    if claim.kind == "fatal":
        return
    for by in [*cycle, None]:
        certify_page(state, claim)
        if claim.kind == "permanent":
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
    run, t = interpreted(), claim.waiter
    if claim.kind == "fatal":
        if not run.is_dead(state, t):
            raise NotCertified(f"neither actor {t} nor its guest is dead")
        return
    if not claim.named:
        _unobstructed(system, state, cycle, t)
        return
    freed = taken = could = could_not = False
    here = copied(state)
    for by in cycle:
        before = copied(here)
        take(system, here, by)
        more, less = turn(before, here, by >> 16, claim)
        freed, taken = freed or less, taken or more
        if claim.named == (PAGE,):
            continue
        now = _removable(system, before, claim)
        could, could_not = could or now, could_not or not now
    if not (freed or could):
        raise NotCertified(f"nothing on the way around removes {' or '.join(claim.named)}")
    if not (taken or (could and could_not)):
        raise NotCertified(f"nothing on the way around takes {' or '.join(claim.named)} again")


def _unobstructed(system: System, state: State, cycle: Sequence[int], t: int) -> None:
    """Actor `t` meets no obstacle on the way around, so that the wait can be named after none. Else NotCertified."""
    here = copied(state)
    for by in cycle:
        outcome = interpreted().step(copied(here), t, 0, 0)
        if OBSTACLE_OF.get(outcome, 0):
            raise NotCertified(f"actor {t} meets an obstacle, and none is named")
        take(system, here, by)


def certify_page(state: State, claim: Claim) -> None:
    """The waiter waits for this page, in words of the right unit. Else NotCertified."""
    run = interpreted()
    page = int(run.waited_page(state, claim.waiter))
    if page != claim.page:
        raise NotCertified(f"actor {claim.waiter} waits for page {page}, and not for page {claim.page}")
    if claim.whole and not run.to_split(state, page):
        raise NotCertified(f"page {page} is not in a folio that an import splits")


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
