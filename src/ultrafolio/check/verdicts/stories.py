"""The story of a component: a fair cycle in it, and its wait in words."""

from __future__ import annotations

from dataclasses import replace

from ultrafolio.check.search.graph import Graph
from ultrafolio.check.verdicts import told_in
from ultrafolio.check.verdicts.certificate import LASTING, MAX_ASKED, claim_of
from ultrafolio.check.verdicts.components import Judged, Lookup
from ultrafolio.check.verdicts.liveness import cycle_through
from ultrafolio.waits import telling
from ultrafolio.waits.words import Wait


def fair_cycle(graph: Graph, judged: Judged) -> list[int]:
    """Returns a fair cycle of the component. In a livelock it has a step that removes the obstacle and one that takes
    it again, or one that imports the page and one that takes it away."""
    if judged.kind != "livelock":
        return cycle_through(graph, judged.component)
    return cycle_through(graph, judged.component, [judged.releasing, judged.taking])


def wait_of(lookup: Lookup, judged: Judged) -> Wait:
    """Returns the wait of a component in words: from its entry state, for a livelock from all its states."""
    entry, claim = lookup.state(judged.component.entry), claim_of(judged)
    wait: Wait
    words, told = telling.of(entry), told_in.of(entry)
    if judged.kind == "fatal":
        wait = words.dead(entry, claim.waiter, claim.page)
    elif judged.kind in LASTING:
        wait = words.in_words(entry, claim.waiter, claim.bits, claim.page, claim.whole, staying=True)
    else:
        members = judged.component.members
        states = [lookup.state(number) for number in members[:: max(1, len(members) // MAX_ASKED)].tolist()]
        wait = told.livelock(entry, claim, told.holders_of(states, claim), list(judged.takers), list(judged.releases))
    return wait if judged.kind == "fatal" else replace(wait, expected=judged.expected)
