"""Certifies the class of a wait with the plain interpreter: before a verdict is printed, and for a trace file.

permanent, vmm-bound   the named obstacles are present in every state, and no enabled fair step removes one;
livelock    the cycle removes the obstacle, or enables a fair step that would, and then takes it again, or disables that
            step; or it imports the page and takes it away;
fatal       the waiter or its guest is dead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ultrafolio.check.verdicts import told_in
from ultrafolio.check.verdicts.claim import Claim
from ultrafolio.check.verdicts.components import Judged, Lookup, is_the_vmms
from ultrafolio.check.verdicts.replay import NotCertified, Step, copied, enabled_fair, replay, take
from ultrafolio.model import designs
from ultrafolio.model.layout import DEAD, State
from ultrafolio.model.scenario import System
from ultrafolio.waits import load as waits
from ultrafolio.waits import telling
from ultrafolio.waits.tables import OB_REFS, OBSTACLE_OF, OBSTACLES, PAGE
from ultrafolio.waits.words import Wait

LASTING = ("permanent", "vmm-bound")
"""Classes of a wait of which no fair step removes the obstacle."""
MAX_CERTIFIED = 2_000
"""States of a component that are certified; of a larger component an even sample."""
MAX_ASKED = 64
"""States of a component that are searched for the holders of a livelock's obstacle."""


def claim_of(judged: Judged) -> Claim:
    """Returns the claim of a component."""
    named = tuple(name for n, name in enumerate(OBSTACLES) if judged.named >> n & 1)
    return Claim(judged.component.waiter, judged.kind, judged.page, judged.whole, (PAGE,) if judged.taken else named)


def certify_component(lookup: Lookup, judged: Judged, cycle: Sequence[Step]) -> None:
    """Raises NotCertified if a state of the component, or the cycle, contradicts its class."""
    claim, members, system = claim_of(judged), judged.component.members, lookup.graph.system
    entry = lookup.state(judged.component.entry)
    if claim.kind in LASTING:
        for number in members[:: max(1, len(members) // MAX_CERTIFIED)].tolist():
            state = lookup.state(number)
            certify_permanent(system, state, claim)
            _certify_holding(state, claim, judged.holding)
    else:
        certify_cycle(system, entry, [step.by for step in cycle], claim)
    pins = []
    for number in members[:: max(1, len(members) // MAX_CERTIFIED)].tolist():
        state = lookup.state(number)
        if claim.kind != "fatal":
            certify_page(state, claim)
        pins.append(waits.of(state).unshares(state, claim.waiter) and pinned(state, claim.page))
    if claim.kind != "fatal" and judged.expected != all(pins):
        raise NotCertified("the states of the wait contradict its mark expected")


def pinned(state: State, page: int) -> bool:
    """Whether the page is pinned."""
    return bool(state.mm[page].pins + state.mm[page].longs > 0)


def certify_words(lookup: Lookup, judged: Judged, wait: Wait) -> None:
    """Raises NotCertified unless the words name what is waited for and exactly the holders.

    The holders are compared with rules.contributes() of each actor, state by state; the takers and releasing steps of a
    livelock with the edges that they take; the refused import of a fatal wait with the actors that are dead.
    """
    claim, entry = claim_of(judged), lookup.state(judged.component.entry)
    if wait.expected != judged.expected or wait.waiter != telling.of(entry).waiter_words(
        entry, claim.waiter, claim.page
    ):
        raise NotCertified("the wait is not the component's")
    if claim.kind == "fatal":
        _certify_death(entry, claim.waiter, wait)
        return
    words = telling.of(entry)
    what = " and ".join(
        words.what_for(entry, claim.waiter, bit, claim.page, claim.whole) for bit in words.bits(claim.bits)
    )
    if wait.waits_for != what if what else f"page {claim.page}" not in wait.waits_for:
        raise NotCertified(f"this is not what is waited for: {wait.line()}")
    if claim.kind in LASTING:
        certify_holders(entry, claim)
        found = words.named_holders(entry, claim.waiter, claim.bits, claim.page, claim.whole, staying=True)
        if (wait.held_by, wait.released_by) != words.held_and_released(found):
            raise NotCertified(f"the words are not those of the holders: {wait.line()}")
    else:
        _certify_marked_edges(lookup, judged)
        _certify_livelock_words(lookup, judged, wait)


def _certify_death(state: State, waiter: int, wait: Wait) -> None:
    """Raises NotCertified unless the actors that the words name are the dead ones of the waiter's machine."""
    words = telling.of(state)
    right = {words.name(state, a) for a, task in enumerate(state.task)
             if task.pc == DEAD and state.who[a].vm == state.who[waiter].vm}  # fmt: skip
    named = {part.rpartition(" of ")[2] for part in wait.held_by.split("; ") if " of " in part}
    if named != right:
        raise NotCertified(f"the dead are {sorted(right)}: {wait.line()}")


def certify_holders(state: State, claim: Claim) -> None:
    """Raises NotCertified unless the words name exactly the actors that contribute to an obstacle, and exactly the LRU
    batches that hold one."""
    run, t, page, whole = waits.of(state), claim.waiter, claim.page, claim.whole
    words = telling.of(state)
    for bit in words.bits(claim.bits & run.present(state, t, page, whole)):
        said = words.holders(state, t, bit, page, whole)
        actors = {h.actor for h in said if h.actor is not None}
        right = {a for a in range(len(state.task)) if a != t and run.contributes(state, a, t, page, whole) & bit}
        unnamed = [h.held for h in said if h.actor is not None and words.name(state, h.actor) not in h.held]
        batches = sum("LRU batch" in h.held for h in said)
        if actors != right or unnamed or (bit == OB_REFS and batches != run.batches_of(state, t, page, whole)):
            words_say = " and ".join(h.held for h in said) or "no holder"
            raise NotCertified(f"the words name {words_say}; the holders are actors {sorted(right)}")


def _certify_livelock_words(lookup: Lookup, judged: Judged, wait: Wait) -> None:
    """Raises NotCertified unless the words of a livelock name exactly every taker but the waiter and every releasing
    step, and a holder if there is one."""
    claim, entry, members = claim_of(judged), lookup.state(judged.component.entry), judged.component.members
    for number in members[:: max(1, len(members) // MAX_ASKED)].tolist():
        certify_holders(lookup.state(number), claim)
    takers = [step for step in judged.takers if step[0] != claim.waiter] or judged.takers
    wrong = _not_named(entry, takers, wait.taken_by) | _not_named(entry, judged.releases, wait.released_by)
    if wrong or (judged.takers and wait.held_by.startswith("nobody")):
        raise NotCertified(f"{', '.join(sorted(wrong)) or 'a holder'} is named wrongly: {wait.line()}")


def _not_named(entry: State, steps: Sequence[tuple[int, str]], said: str) -> set[str]:
    """Those of the steps (actor, rule) that `said` does not name, and what it names that is none of them."""
    right = {f"{rule} of {telling.of(entry).name(entry, a)}" for a, rule in steps}
    return right ^ {part.partition(",")[0] for part in said.split("; ")} if right else set()


def _certify_marked_edges(lookup: Lookup, judged: Judged) -> None:
    """Raises NotCertified unless the interpreter confirms, on an edge of the component, each taker and each releasing
    step."""
    graph, claim = lookup.graph, claim_of(judged)
    for steps, edges, which in ((judged.takers, judged.taking, 0), (judged.releases, judged.releasing, 1)):
        seen = set()
        for edge in edges.tolist():
            source = int(np.searchsorted(graph.space.first[: graph.states + 1], edge, "right")) - 1
            before = lookup.state(source)
            a = int(graph.space.via[edge]) >> 16
            step = a, designs.of(before).rules[before.task[a].pc].name
            if step in seen:
                continue
            after = copied(before)
            take(graph.system, after, int(graph.space.via[edge]))
            if (
                claim.bits
                and not any(told_in.of(before).obstacle_change(before, after, a, claim))
                and not (_removable(graph.system, before, claim) or _removable(graph.system, after, claim))
            ):
                raise NotCertified(f"{step[1]} of actor {a} does not change what is waited for")
            if claim.named == (PAGE,) and not told_in.of(before).obstacle_change(before, after, a, claim)[which]:
                raise NotCertified(f"{step[1]} of actor {a} neither takes the page away nor imports it")
            seen.add(step)
        if seen != set(steps):
            raise NotCertified(f"the steps {sorted(set(steps) ^ seen)} are named but not taken, or taken but not named")


def certify_story(system: System, stem: Sequence[int], cycle: Sequence[int], claim: Claim) -> None:
    """Raises NotCertified if a state of a story's cycle contradicts the claim. Needs no graph."""
    _, state = replay(system, stem)
    if claim.kind not in LASTING:
        certify_cycle(system, state, cycle, claim)
    if claim.kind == "fatal":
        return
    for by in [*cycle, None]:
        certify_page(state, claim)
        if claim.kind in LASTING:
            certify_permanent(system, state, claim)
        if by is not None:
            take(system, state, by)


def certify_permanent(system: System, state: State, claim: Claim) -> None:
    """Raises NotCertified unless the named obstacles are present in this state (as lists) and no enabled fair step
    removes one."""
    run, bits = waits.of(state), claim.bits
    if claim.kind == "vmm-bound":
        _certify_vmm_bound(state, claim)
    if not bits or run.present(state, claim.waiter, claim.page, claim.whole) & bits != bits:
        raise NotCertified(f"{' and '.join(claim.named) or 'an obstacle'} is absent in a state")
    for t in sorted(enabled_fair(system, state)):
        after = copied(state)
        run.step(after, t, 0, 0)
        if run.present(after, claim.waiter, claim.page, claim.whole) & bits != bits:
            raise NotCertified(f"a fair step of actor {t} removes {' or '.join(claim.named)}")


def _certify_vmm_bound(state: State, claim: Claim) -> None:
    """Raises NotCertified unless a named obstacle has a holder that stands at a step which the VMM may take."""
    run = waits.of(state)
    for a in range(len(state.task)):
        held = run.contributes(state, a, claim.waiter, claim.page, claim.whole) & claim.bits
        if a != claim.waiter and held and is_the_vmms(state, a):
            return
    raise NotCertified(f"no step that the VMM may take removes {' or '.join(claim.named)}")


def _certify_holding(state: State, claim: Claim, holding: Sequence[int]) -> None:
    """Raises NotCertified unless each actor or LRU batch of `holding` holds a named obstacle in this state."""
    run, bits = waits.of(state), claim.bits
    for a in holding:
        if a >= 0:
            held = run.contributes(state, a, claim.waiter, claim.page, claim.whole) & bits
        else:
            held = run.batch_has(state, claim.waiter, claim.page, claim.whole, -1 - a)
        if not held:
            raise NotCertified(f"actor {a} does not hold {' or '.join(claim.named)} in a state")
        if claim.kind == "vmm-bound" and not (is_the_vmms(state, a) if a >= 0 else run.drains(state)):
            raise NotCertified(f"the VMM cannot end what actor {a} holds")


def certify_cycle(system: System, state: State, cycle: Sequence[int], claim: Claim) -> None:
    """Raises NotCertified unless the cycle from this state (as lists) shows that the wait is fatal, or a livelock."""
    run, t = waits.of(state), claim.waiter
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
        more, less = told_in.of(before).obstacle_change(before, here, by >> 16, claim)
        freed, taken = freed or less, taken or more
        if claim.named == (PAGE,):
            continue
        now = _removable(system, before, claim)
        could, could_not = could or now, could_not or not now
    if not (freed or could):
        raise NotCertified(f"no step of the cycle removes {' or '.join(claim.named)}")
    if not (taken or (could and could_not)):
        raise NotCertified(f"no step of the cycle takes {' or '.join(claim.named)} again")


def _unobstructed(system: System, state: State, cycle: Sequence[int], t: int) -> None:
    """Raises NotCertified if actor `t` meets an obstacle in the cycle: then the wait must name one."""
    here = copied(state)
    for by in cycle:
        outcome = waits.of(state).step(copied(here), t, 0, 0)
        if OBSTACLE_OF.get(outcome, 0):
            raise NotCertified(f"actor {t} meets an obstacle, and none is named")
        take(system, here, by)


def certify_page(state: State, claim: Claim) -> None:
    """Raises NotCertified unless the waiter waits for the claim's page, and `whole` is right."""
    run = waits.of(state)
    page = int(run.waited_page(state, claim.waiter))
    if page != claim.page:
        raise NotCertified(f"actor {claim.waiter} waits for page {page}, and not for page {claim.page}")
    if claim.whole and not run.to_split(state, page):
        raise NotCertified(f"page {page} is not in a folio that an import splits")


def _removable(system: System, state: State, claim: Claim) -> bool:
    """Whether an enabled fair step removes the obstacle."""
    run, bits = waits.of(state), claim.bits
    if run.present(state, claim.waiter, claim.page, claim.whole) & bits == 0:
        return False
    for t in enabled_fair(system, state):
        after: Any = copied(state)
        run.step(after, t, 0, 0)
        if run.present(after, claim.waiter, claim.page, claim.whole) & bits == 0:
            return True
    return False
