"""A wait in words, from its story alone (no graph), by the plain interpreter. Trace files use it; verdicts share its
parts.

The story of a livelock is one cycle. Its holders are the holders in the states of the cycle. Its takers are the steps
that add to the obstacle, its releases the steps that reduce it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ultrafolio.check.verdicts.claim import Claim
from ultrafolio.check.verdicts.replay import copied, replay, take
from ultrafolio.model import designs
from ultrafolio.model.layout import ALLOWED, IMPORT_CALL, IMPORT_END, State
from ultrafolio.model.scenario import System
from ultrafolio.waits import words
from ultrafolio.waits.load import interpreted
from ultrafolio.waits.tables import OB_DIRTY, OB_MAPPED, OB_REFS, PAGE
from ultrafolio.waits.words import Wait, joined

Steps = list[tuple[int, str]]


def wait_from_story(system: System, stem: Sequence[int], cycle: Sequence[int], claim: Claim) -> Wait:
    """Returns the wait of a story in words. Raises NotCertified if a step of it is not enabled."""
    _, entry = replay(system, stem)
    t, page, whole = claim.waiter, claim.page, claim.whole
    if claim.kind == "fatal":
        return words.dead(entry, t, page)
    if claim.kind in ("permanent", "vmm-bound"):
        return words.in_words(entry, t, claim.bits, page, whole, staying=True)
    held, takers, releases = _cycle_steps(system, entry, cycle, claim)
    return livelock(entry, claim, held, takers, releases)


def livelock(entry: State, claim: Claim, held: Sequence[str], takers: Steps, releases: Steps) -> Wait:
    """Returns a livelock in words. held: the holders in words; takers, releases: steps as (actor, rule). The waiter's
    own steps are named only if no other actor takes the obstacle."""
    t, page = claim.waiter, claim.page
    takers = [step for step in takers if step[0] != t] or takers
    taken = claim.named == (PAGE,)
    bits = claim.bits
    what = (
        f"page {page} to stay accessible"
        if taken
        else words.what_for(entry, t, bits, page, claim.whole)
        if bits
        else f"a turn on page {page}"
    )
    if taken:
        held = [f"{actor_words(entry, a)}, which takes it away by {rule}" for a, rule in takers]
    if bits and not held:
        held = [f"{actor_words(entry, a)}, by {rule}" for a, rule in takers]
    said = joined(held) or joined(actor_words(entry, a) for a, _ in takers) or "nobody for good"
    released = joined(f"{rule} of {words.name(entry, a)}" for a, rule in releases) or "the waiter's next try"
    return Wait(
        words.waiter_words(entry, t, page),
        what,
        said,
        released,
        taken_by=joined(f"{rule} of {actor_words(entry, a)}" for a, rule in takers),
        brief="+".join(
            f"{'+'.join(claim.named) or 'turn'}:{words.short(entry, a)}" for a in dict.fromkeys(a for a, _ in takers)
        ),
    )


def actor_words(entry: State, a: int) -> str:
    """Returns an actor's name, with a note if its own wait is expected (the purpose of pin shared)."""
    run = interpreted()
    excused = run.unshares(entry, a) and run.is_expected(entry, a)
    return words.name(entry, a) + (", whose own wait for the pin is expected," if excused else "")


def holders_of(states: Sequence[State], claim: Claim) -> list[str]:
    """Returns every holder of the obstacle in one of the states, each once, in its shortest words."""
    run, bits = interpreted(), claim.bits
    found: dict[object, str] = {}
    if bits in (OB_DIRTY, OB_MAPPED):
        return []
    for state in states:
        if not bits or not run.present(state, claim.waiter, claim.page, claim.whole) & bits:
            continue
        for holder in words.holders(state, claim.waiter, bits, claim.page, claim.whole):
            key = holder.held if holder.actor is None else holder.actor
            if key not in found or (len(holder.held), holder.held) < (len(found[key]), found[key]):
                found[key] = holder.held
    return list(found.values())


def _cycle_steps(system: System, entry: State, cycle: Sequence[int], claim: Claim) -> tuple[list[str], Steps, Steps]:
    """Returns the holders, takers and releases of a cycle."""
    here, states = copied(entry), [copied(entry)]
    takers: Steps = []
    releases: Steps = []
    for by in cycle:
        before, a = copied(here), by >> 16
        rule = designs.of(before).rules[before.task[a].pc].name
        take(system, here, by)
        states.append(copied(here))
        more, less = obstacle_change(before, here, a, claim)
        takers += [(a, rule)] if more else []
        releases += [(a, rule)] if less else []
    return holders_of(states, claim), sorted(set(takers)), sorted(set(releases))


def obstacle_change(before: State, after: State, a: int, claim: Claim) -> tuple[bool, bool]:
    """Returns whether a step of actor `a` takes the obstacle (or the page away), and whether it removes it (or imports
    the page)."""
    run, t, page, whole, bits = interpreted(), claim.waiter, claim.page, claim.whole, claim.bits
    if claim.named == (PAGE,):
        return allowed(before, t, page) and not allowed(after, t, page), imports(before, after, a, page)
    counts = []
    for state in (before, after):
        mine = run.contributes(state, a, t, page, whole) & bits if a != t else 0
        batches = run.batches_of(state, t, page, whole) if bits & OB_REFS else 0
        counts.append((run.present(state, t, page, whole) & bits > 0, mine > 0, batches))
    pairs = list(zip(*counts, strict=True))
    return any(now > was for was, now in pairs), any(now < was for was, now in pairs)


def imports(before: State, after: State, a: int, page: int) -> bool:
    """Whether the step of actor `a` is a successful import of the page."""
    k = before.task[a]
    return bool(k.pc == IMPORT_CALL and k.page == page and after.task[a].pc == IMPORT_END)


def allowed(state: State, t: int, page: int) -> bool:
    """Whether the hardware lets the guest of `t` access the page."""
    return bool(interpreted().hw_guest(state, state.who[t].vm, page) == ALLOWED)
