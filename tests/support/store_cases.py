"""An engine for the conformance suite: the three roles in one process over one store, without gRPC."""

import itertools

import numpy as np

from services.common.disk import Disk
from services.host_mm.swap import Seen, Swap
from services.host_mm.ultravisor_client import written
from services.ultravisor.contents import Contents
from services.ultravisor.pages import Pages, Part, lay_out
from ultrafolio.model.layout import IDLE_PC, PAGE_SIZE
from ultrafolio.model.rule import RULES
from ultrafolio.state.events import Made, encode
from ultrafolio.state.sections import DTYPES, MAY_WRITE, Meta, encode_meta, join, split
from ultrafolio.state.turn import SWAPS, Group, Result

GUESTS = ("guest", "device")
NUMBERS = itertools.count()


class Stored:
    """stores: role -> a Store over the same place; folder: where page contents are kept."""

    name = "store"

    def __init__(self, stores, folder):
        self.stores, self.contents, self.swap = stores, Contents(folder), Swap(Disk(folder / "swap"))

    def load(self, state):
        self.group = f"g{next(NUMBERS)}"
        self.meta = Meta(state.cfg.copy(), state.who.copy(), len(state.vm), [], 0, "a test")
        sections = split(state)
        for role, names in MAY_WRITE.items():
            mine = {
                name: sections[name]
                for name in names
                if name in sections and (role == "host" or name not in ("pc", "io"))
            }
            if role == "ultravisor":
                altered = np.flatnonzero(state.mm["altered"])
                mine["seal"] = lay_out(self.contents, self.group, self.meta, state.uv, altered)
            event = encode(Made(role, mine, encode_meta(self.meta) if role == "host" else b""))
            assert self.stores[role].create(self.group, mine, event)
        self.start()

    def start(self):
        """The three parts as they are just after their start."""
        self.pages = Pages(self.stores["ultravisor"], self.contents, self.group, self.meta)
        self.host = Group(self.stores["host"], self.group, self.meta, "host", self.ask, self._of_host)
        self.guest = Group(
            self.stores["guest"], self.group, self.meta, "guest", self.ask, lambda pc: not self._of_host(pc)
        )

    @staticmethod
    def _of_host(pc):
        return RULES[pc].actor not in GUESTS

    def ask(self, view, turn, index, function, arguments):
        part = Part(turn.token, index)
        if function == "hw_guest":
            vm, page = arguments
            return Result(self.pages.access(vm, [(page, 0, 0, b"")], part)[0].exception)
        if function in SWAPS:
            move = self.swap.out if function == "swap_out" else self.swap.back
            return Result(move(self._see, self.meta.origin, arguments[0], part))
        if function == "hw_host":
            writes = written(view.live, turn.actor)
            return Result(self.pages.access(None, [(arguments[0], 0, 0, writes)], part)[0].exception)
        if function.startswith("take_") or function == "turn_come":
            return self.host.take_part(turn.token, index, function, arguments)
        return self.pages.call(function, arguments, part)

    def _see(self, page, data, part):
        return Seen(*self.pages.access(None, [(page, 0, PAGE_SIZE, data)], part)[0])

    def step(self, actor, op, page):
        kinds = self.meta.who["kind"]
        pc = self.host.refresh().live.task[actor].pc
        if pc not in RULES:
            return -1
        group = self.host if self._of_host(pc) else self.guest
        done = group.burst(actor, op, page, most=1)
        assert len(done) == 1 and (pc != IDLE_PC[kinds[actor]] or RULES[pc].chooses)
        return done[0].outcome

    def state(self):
        return join(self.meta, self.stores["admin"].read(self.group, [name for name in DTYPES if name != "seal"]))
