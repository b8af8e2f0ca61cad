"""The box of the policies that fail by one story.

A story that breaks a property fails every policy under which each of its steps does the same. So does a fair cycle in
which an actor waits, whatever else is reachable: fairness is tested on the cycle itself (check/verdicts/liveness.py).
Every step is taken by the plain interpreter, which so confirms the story.
"""

from __future__ import annotations

from collections.abc import Sequence

from ultrafolio.check.verdicts.replay import NotCertified
from ultrafolio.model.rule import STRONG
from ultrafolio.search.asking.system import Node, Setting, breaks, changes, waits_there
from ultrafolio.search.space import Values


class Told:
    """A story as it goes on: the node that it has come to, and the box of the policies that come there by it."""

    def __init__(self, setting: Setting, values: Values, box: int) -> None:
        self.setting, self.values = setting, values
        self.policy = setting.live.space.bits(values)
        self.box, self.node = box, setting.start

    def step(self, by: int) -> None:
        """Take a step (actor << 16 | choice). Raises NotCertified if it waits."""
        ways = self.setting.moves(self.node, by >> 16, by & 0xFFFF, self.values)
        box, made = ways.around(self.policy, changes)
        if made is None:
            raise NotCertified(f"a step of actor {by >> 16} waits")
        self.box &= box
        self.node = self.setting.after(self.node, made)

    def last(self, by: int, number: int) -> None:
        """Take the last step. Raises NotCertified unless it breaks this property."""
        box, broke = self.setting.moves(self.node, by >> 16, by & 0xFFFF, self.values).around(self.policy, breaks)
        if broke != number:
            raise NotCertified(f"the last step does not break property {number}")
        self.box &= box

    def disabled(self, node: Node, t: int) -> int | None:
        """The box of the policies under which actor `t` has no fair step there that is enabled; None if it has one."""
        pc = self.setting.place(node, t)
        if pc < 0 or not self.setting.design.rules[pc].fair:
            return self.setting.live.space.full
        box, waits = self.setting.moves(node, t, 0, self.values).around(self.policy, waits_there)
        return box if waits else None

    def is_strong(self, node: Node, t: int) -> bool:
        """Whether actor `t` stands at a strongly fair step."""
        pc = self.setting.place(node, t)
        return pc >= 0 and self.setting.design.rules[pc].fairness == STRONG

    def wait(self, node: Node, t: int) -> None:
        """Keep to the policies under which actor `t` waits there. Raises NotCertified if it does not."""
        box, waits = self.setting.waiting(node, t, self.values).around(self.policy)
        if not waits:
            raise NotCertified(f"actor {t} does not wait in a state of the cycle")
        self.box &= box


def violation(setting: Setting, values: Values, box: int, path: Sequence[int], number: int) -> int:
    """The box of the policies that break the property of this number by this path, within the setting's box."""
    told = Told(setting, values, box)
    for by in path[:-1]:
        told.step(by)
    told.last(path[-1], number)
    return told.box


def hang(setting: Setting, values: Values, box: int, stem: Sequence[int], cycle: Sequence[int], waiter: int) -> int:
    """The box of the policies under which `waiter` waits for ever by this stem and this cycle, within the setting's
    box; an empty cycle is a state without an enabled fair step. Raises NotCertified unless the cycle is fair, closes,
    and the waiter waits in it."""
    told = Told(setting, values, box)
    for by in stem:
        told.step(by)
    nodes = [told.node]
    for by in cycle:
        told.step(by)
        nodes.append(told.node)
    if cycle and nodes.pop() is not nodes[0]:
        raise NotCertified("the cycle does not close")
    for node in nodes:
        told.wait(node, waiter)
    for t in sorted(set(range(len(setting.choices))) - {by >> 16 for by in cycle}):
        found = [told.disabled(node, t) for node in nodes]
        every = not cycle or told.is_strong(nodes[0], t)
        some = [one for one in found if one is not None]
        if not some or (every and len(some) < len(found)):
            raise NotCertified(f"the cycle is not fair to actor {t}")
        if every:
            for one in some:
                told.box &= one
        else:
            told.box &= max(some, key=lambda one: (told.box & one).bit_count())
    return told.box
