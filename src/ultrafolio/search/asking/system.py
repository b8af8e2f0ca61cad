"""A scenario under all policies: its initial states, and the steps of its actors, each asked once for the whole space.

Policies share a *setting* where their initial states, and the configuration fields that are no choice, are equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ultrafolio.check.verdicts.replay import frozen
from ultrafolio.engine.interp import to_lists
from ultrafolio.errors import InputError
from ultrafolio.model import designs, scenario
from ultrafolio.model.policies import AnyPolicy
from ultrafolio.model.scenario import Scenario, System
from ultrafolio.search.asking.noted import Noted, Record
from ultrafolio.search.asking.ways import Live, Ways
from ultrafolio.search.space import Space, Values
from ultrafolio.waits import load as waits

REFUSED = "refused"
"""The initial state of a scenario that a policy cannot have."""
Move = tuple[Any, ...] | None
"""What a step does: None if it waits; else its changes (UndoLog.changes) and the property that it breaks."""


def changes(move: Move) -> Any:
    """Of a step: what it changes, None if it waits."""
    return move and move[0]


def breaks(move: Move) -> Any:
    """Of a step: the property that it breaks, 0 for none, None if it waits."""
    return move and move[1]


def waits_there(move: Move) -> bool:
    """Of a step: whether it waits."""
    return move is None


@dataclass(eq=False)
class Node:
    """A state of a story: its sections as replay.frozen() has them; what is known of the steps from it, and of who
    waits in it."""

    sections: Any
    moves: dict[tuple[int, int], Ways]
    waiting: dict[int, Ways]
    after: dict[Any, Node]


class Setting:
    """The states that policies with the same initial state share, each step of them asked for the whole space."""

    def __init__(self, space: Space, system: System, rules: Any) -> None:
        row = system.state.cfg[0]
        fixed = {name: int(row[name]) for name in row.dtype.names if all(name != axis.name for axis in space.axes)}
        lists = to_lists(system.state)
        self.design, self.run = designs.of(system.state), rules
        self.live = Live(space, lists, fixed)
        self.choices = system.choices
        self._nodes: dict[Any, Node] = {}
        self._task = lists._fields.index("task") - 2
        self._pc = system.state.task.dtype.names.index("pc")
        self.start = self.node(frozen(lists))
        self.pairs: dict[Any, Ways] = {}
        self.parts: dict[bytes, int] = {}
        self.vectors: dict[tuple[int, ...], int] = {}
        self.rows: dict[tuple[int, int], Any] = {}

    def node(self, sections: Any) -> Node:
        """The node of a state."""
        if sections not in self._nodes:
            self._nodes[sections] = Node(sections, {}, {}, {})
        return self._nodes[sections]

    def place(self, node: Node, t: int) -> int:
        """The rule at which actor `t` stands; -1 where it is idle."""
        pc = self.pc_of(node.sections, t)
        return -1 if pc == self.design.idle[self.live.state.who[t].kind] or pc not in self.design.rules else pc

    def pc_of(self, sections: Any, t: int) -> int:
        """The rule of actor `t` in a state, given as a node has it."""
        pc: int = sections[self._task][t][self._pc]
        return pc

    def waiting(self, node: Node, t: int, first: Values) -> Ways:
        """Whether actor `t` has begun there what a leads-to must end."""
        if t not in node.waiting:
            self.live.load(node.sections)
            node.waiting[t] = self.live.ways(lambda state: bool(self.run.is_pending(state, t)), first)
        return node.waiting[t]

    def one(self, state: Any, t: int, choice: int) -> Move:
        """Take a step in the live state, and undo it."""
        pc = state.task[t].pc
        idle = pc == self.design.idle[state.who[t].kind] and not (pc == 0 and state.actor[t].op)
        op, page = self.choices[t][choice] if idle else (0, 0)
        focus = self.run.focus(state, t, page)
        was = state.uv[focus].state
        outcome = self.run.step(state, t, op, page)
        if outcome < 0:
            self.live.log.undo(0)
            return None
        broke = int(self.run.broken(state, t, pc, focus, was, outcome))
        # a value of the configuration that was stored is a number from here on, and was noted as itself
        made = tuple((number, name, int(value)) for number, name, value in self.live.log.changes(0))
        self.live.log.undo(0)
        return made, broke

    def moves(self, node: Node, t: int, choice: int, first: Values) -> Ways:
        """What actor `t` does from the node by its choice of this number, 0 where it has none."""
        if (t, choice) not in node.moves:
            self.live.load(node.sections)
            node.moves[t, choice] = self.live.ways(lambda state: self.one(state, t, choice), first)
        return node.moves[t, choice]

    def after(self, node: Node, made: Any) -> Node:
        """The node behind a step that makes these changes."""
        if made not in node.after:
            node.after[made] = self.node(self.live.changed(node.sections, made))
        return node.after[made]


class Settings:
    """A scenario under all policies of its design."""

    def __init__(self, space: Space, story: Scenario, rules: Any = None) -> None:
        """rules: as waits.load.interpreted() of the design; another for a test."""
        self.space, self.story = space, story
        self.rules = rules or waits.interpreted(designs.DESIGNS[story.design])
        self._made: dict[Any, Setting] = {}
        self._initial: Ways | None = None

    def initial(self, policy: int, first: Values) -> tuple[int, Setting | None]:
        """The box of the policies that share a policy's setting, and the setting; None where the scenario refuses
        them."""
        self._initial = self._initial or Ways(self.space, self._asked, first)
        box, key = self._initial.around(policy)
        return box, None if key == REFUSED else self._made[key]

    def _asked(self, values: Values) -> tuple[Any, int]:
        policy = self.space.policy(values)
        record = Record({}, [(a.name, a.at, a.codes) for a in self.space.axes], values)
        record.begin()
        try:
            system = scenario.system(self.story, _noting(policy, record))
        except InputError:
            return REFUSED, record.box
        state = system.state
        names = [name for name in state.cfg.dtype.names if all(name != axis.name for axis in self.space.axes)]
        key = (tuple(int(state.cfg[0][name]) for name in names), *(section.tobytes() for section in state[1:]),
               repr(system.choices))  # fmt: skip
        if key not in self._made:
            self._made[key] = Setting(self.space, system, self.rules)
        return key, record.box


def _noting(policy: AnyPolicy, record: Record) -> AnyPolicy:
    """A copy of the policy that notes each choice that is read of it; codes(), which reads all, notes nothing: what it
    gives is the configuration, which notes by itself."""
    read = policy.codes()
    kind: Any = type(policy)

    class Noting(kind):  # type: ignore[misc]
        __slots__ = ()

        def __getattribute__(self, name: str) -> Any:
            noted = vars(record).get(name)
            if isinstance(noted, Noted):
                int(noted)
            return super().__getattribute__(name)

        def codes(self) -> dict[str, int]:
            return read

    made: AnyPolicy = Noting(**{name: getattr(policy, name) for name in kind.__dataclass_fields__})
    return made
