"""What is known where branches of a rule join, and after a loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as Names

from ultrafolio.export.promela.nodes import Node, Set
from ultrafolio.export.promela.terms import Term
from ultrafolio.export.promela.values import Env


class Meeting:
    """Where branches join: what is known after all of them, and a temporary for each local name that they assign."""

    def __init__(self, temporary: Callable[[str], str], names: Names[str]) -> None:
        """temporary: returns an unused name for a temporary."""
        self._temporary, self._names = temporary, sorted(names)
        self._made: dict[str, str] = {}
        self._met: list[Env] = []

    def reach(self, env: Env) -> list[Node]:
        """Returns the statements at the end of one branch."""
        self._met.append(env)
        nodes: list[Node] = []
        for name in self._names:
            value = env.local.get(name)
            if isinstance(value, Term):
                if name not in self._made:
                    self._made[name] = self._temporary(name)
                nodes.append(Set(self._made[name], value))
        return nodes

    def env(self, before: Env) -> Env:
        """Returns what is known after the branches; a local name that one of them has not, is refused when read."""
        joined = agreed(before, self._met)
        local = {name: value for name, value in joined.local.items() if name not in self._names}
        for name, made in self._made.items():
            values = [value for e in self._met if isinstance(value := e.local.get(name), Term)]
            if len(values) == len(self._met):
                alike = all(value == values[0] for value in values)
                local[name] = values[0] if alike else Term(made, values=union(values))
        return Env(local, joined.known)


def union(values: Iterable[Term]) -> frozenset[int] | None:
    """Returns the values that one of the terms may have; None where those of one are not listed."""
    listed = [value.values for value in values]
    return None if None in listed else frozenset().union(*(one for one in listed if one is not None))


def agreed(before: Env, ends: Sequence[Env]) -> Env:
    """Returns what is known after branches join."""
    known = {c: v for c, v in ends[0].known.items() if all(e.known.get(c) == v for e in ends)} if ends else {}
    return Env(before.local, known)
