"""What a kernel can observe of a system, as a deterministic automaton: the graph seen through the events of rules.

Steps that show nothing are taken silently; the rest is determinised by subsets and minimised. A symbol is an event of
Rule.traced, with `_fails` behind it where it fails. Every sequence of symbols of the system is a path of the automaton,
and no other is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ultrafolio.errors import InputError
from ultrafolio.model.layout import NO_WRITEBACK, State
from ultrafolio.model.scenario import System

from .observed import Search, Shown, first_of

MOST_SETS, MOST_SITUATIONS = 3000, 100_000
"""Most states of the automaton before it is minimised, and most situations of the system."""
Node = tuple[int, tuple[tuple[Shown, ...], ...]]
"""A state's number, and what the last step of each actor shows and has not been seen."""


@dataclass(frozen=True, slots=True)
class Automaton:
    """names: of the states, the initial one first; edges: (state, symbol) -> state, for what may happen.
    facts: per state what is true in it (facts_of)."""

    names: list[str]
    edges: dict[tuple[int, str], int]
    facts: list[frozenset[str]]

    @property
    def symbols(self) -> list[str]:
        return sorted({symbol for _, symbol in self.edges})


def symbol_of(shown: Shown) -> str:
    """Returns the symbol of an event."""
    return shown.name + ("_fails" if shown.succeeded is False else "")


def automaton(system: System, names: frozenset[str]) -> Automaton:
    """Returns the automaton of a system over the events `names`. Raises InputError for one that is too large."""
    return _minimised(*_determinised(_Seen(system, names)))


class _Seen:
    """The system as a nondeterministic automaton: its moves, and closures over silent ones."""

    def __init__(self, system: System, names: frozenset[str]) -> None:
        self.search = Search(system, names)
        self.start: Node = (0, ((),) * len(system.choices))
        self._after: dict[Node, list[tuple[str | None, Node]]] = {}

    def after(self, node: Node) -> list[tuple[str | None, Node]]:
        """The nodes after one event of `node`, or none (None), each with its symbol."""
        if node not in self._after:
            if len(self._after) >= MOST_SITUATIONS:
                raise _too_large(f"more than {MOST_SITUATIONS} situations")
            self._after[node] = list(self._steps(node))
        return self._after[node]

    def _steps(self, node: Node) -> Iterator[tuple[str | None, Node]]:
        number, owed = node
        for t, shows in enumerate(owed):
            for shown, rest in first_of(shows):
                yield symbol_of(shown), (number, (*owed[:t], rest, *owed[t + 1 :]))
        for move in self.search.moves(number):
            if owed[move.t]:
                continue
            if move.silent:
                yield None, (move.after, owed)
            for shown, rest in first_of(move.shows):
                yield symbol_of(shown), (move.after, (*owed[: move.t], rest, *owed[move.t + 1 :]))

    def closed(self, nodes: frozenset[Node]) -> frozenset[Node]:
        """The nodes that silent steps lead to."""
        seen, queue = set(nodes), list(nodes)
        while queue:
            for symbol, after in self.after(queue.pop()):
                if symbol is None and after not in seen:
                    seen.add(after)
                    queue.append(after)
        return frozenset(seen)

    def state(self, node: Node) -> State:
        return self.search.state(node[0])


def _too_large(what: str) -> InputError:
    return InputError(
        "the monitor is too large",
        value=what,
        allowed=f"up to {MOST_SETS} states and {MOST_SITUATIONS} situations",
        then="a scenario with fewer actors or pages",
    )


def _determinised(seen: _Seen) -> tuple[list[set[str]], dict[tuple[int, str], int]]:
    """Returns per subset what is true in all its situations, and the edges. Subset 0 is the initial one."""
    first = seen.closed(frozenset({seen.start}))
    numbers, sets, edges = {first: 0}, [first], dict[tuple[int, str], int]()
    for number, nodes in enumerate(sets):
        reached: dict[str, set[Node]] = {}
        for node in nodes:
            for symbol, after in seen.after(node):
                if symbol is not None:
                    reached.setdefault(symbol, set()).add(after)
        for symbol in sorted(reached):
            after_all = seen.closed(frozenset(reached[symbol]))
            if after_all not in numbers:
                if len(sets) >= MOST_SETS:
                    raise _too_large(f"more than {MOST_SETS} states")
                numbers[after_all] = len(sets)
                sets.append(after_all)
            edges[number, symbol] = numbers[after_all]
    facts = [set.intersection(*(facts_of(seen.state(node)) for node in nodes)) for nodes in sets]
    return facts, edges


def facts_of(state: State) -> set[str]:
    """What names a state of the automaton: facts about its folios."""
    tests = {
        "pinned": any(m.pins or m.longs for m in state.mm),
        "frozen": any(m.frozen for m in state.mm),
        "in_writeback": any(m.writeback != NO_WRITEBACK for m in state.mm),
        "small": all(m.order == 0 for m in state.mm),
        "killed": any(vm.life > 1 for vm in state.vm),
    }
    return {name for name, true in tests.items() if true}


def _minimised(facts: list[set[str]], edges: dict[tuple[int, str], int]) -> Automaton:
    """Returns the least automaton with the same sequences, its states in order of the first visit."""
    size = len(facts)
    out: list[dict[str, int]] = [{} for _ in range(size)]
    for (source, symbol), target in edges.items():
        out[source][symbol] = target
    block, count = [0] * size, 1
    while True:
        keys = [(block[n], tuple((s, block[to]) for s, to in sorted(out[n].items()))) for n in range(size)]
        names = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        block = [names[key] for key in keys]
        if len(names) == count:
            break
        count = len(names)
    common = [set.intersection(*(facts[n] for n in range(size) if block[n] == b)) for b in range(count)]
    made = {(block[source], symbol): block[target] for (source, symbol), target in edges.items()}
    return Automaton(_named(common), dict(sorted(made.items())), [frozenset(some) for some in common])


def _named(common: list[set[str]]) -> list[str]:
    """Returns a name for each state, usable in C, from what is true in it and not in every other."""
    used: dict[str, int] = {}
    always = set.intersection(*common)
    made = []
    for facts in common:
        name = "_".join(sorted(facts - always)) or "plain"
        used[name] = used.get(name, 0) + 1
        made.append(name if used[name] == 1 else f"{name}_{used[name]}")
    return made
