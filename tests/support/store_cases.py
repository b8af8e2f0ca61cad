"""An engine for the conformance suite: the three roles in one process over one store, without gRPC."""

import itertools

import numpy as np

from services.common.disk import Disk
from services.host_mm.swap import Seen, Swap
from services.host_mm.ultravisor_client import written
from services.ultravisor.commits import Part
from services.ultravisor.contents import Contents
from services.ultravisor.hardware import Hardware
from services.ultravisor.pages import Pages, lay_out
from ultrafolio.model.designs import S390
from ultrafolio.model.layout import PAGE_SIZE
from ultrafolio.state.crossing import SWAPS, Result
from ultrafolio.state.events import Made, encode
from ultrafolio.state.roles import ROLE_OF_ACTOR
from ultrafolio.state.sections import encode_meta, join, meta_of_state, of_state, split
from ultrafolio.state.turn import Group

NUMBERS = itertools.count()


class Stored:
    """stores: role -> a Store over the same place; folder: where page contents are kept."""

    name = "store"

    def __init__(self, stores, folder):
        self.stores, self.contents, self.swap = stores, Contents(folder), Swap(Disk(folder / "swap"))

    def load(self, state):
        self.group = f"g{next(NUMBERS)}"
        self.meta = meta_of_state(state, [], "a test")._replace(cfg=state.cfg.copy(), who=state.who.copy())
        sections, touched = split(state), self.meta.sections.touched
        for role, of in touched.items():
            others = touched["guest"].writes if role == "host" else ()
            mine = {name: sections[name] for name in of.writes if name in sections and name not in others}
            if "seal" in of.writes:
                altered = np.flatnonzero(state.mm["altered"])
                mine["seal"] = lay_out(self.contents, self.group, self.meta, state.uv, altered)
            event = encode(Made(role, mine, encode_meta(self.meta) if role == "host" else b""))
            assert self.stores[role].create(self.group, mine, event)
        self.start()

    def start(self):
        """The three parts as they are just after their start."""
        if self.meta.design is S390:
            self.pages = Pages(self.stores["ultravisor"], self.contents, self.group, self.meta)
        else:
            self.pages = Hardware(self.stores["ultravisor"], self.group, self.meta)
        self.host = Group(self.stores["host"], self.group, self.meta, "host", self.ask)
        self.guest = Group(self.stores["guest"], self.group, self.meta, "guest", self.ask)

    def ask(self, view, turn, index, function, arguments, offer=None):
        part = Part(turn.token, index, offer)
        if function == "hw_guest":
            vm, page = arguments
            return Result(self.pages.access(vm, [(page, 0, 0, b"")], part)[0].exception)
        if function in SWAPS:
            move = self.swap.out if function == "swap_out" else self.swap.back
            return Result(move(self._see, self.meta.origin, arguments[0], part))
        if function == "hw_host":
            writes = written(view.live, turn.actor)
            return Result(self.pages.access(None, [(arguments[0], 0, 0, writes)], part)[0].exception)
        if function.startswith("take_") or function in ("turn_come", "close_pipe"):
            return self.host.take_part(turn.token, index, function, arguments)
        return self.pages.call(function, arguments, part)

    def _see(self, page, data, part):
        return Seen(*self.pages.access(None, [(page, 0, PAGE_SIZE, data)], part)[0])

    def step(self, actor, op, page):
        kinds, design = self.meta.who["kind"], self.meta.design
        pc = self.host.refresh().live.task[actor].pc
        if pc not in design.rules:
            return -1
        group = self.host if ROLE_OF_ACTOR[design.rules[pc].actor] == "host" else self.guest
        done = group.burst(actor, op, page, most=1)
        assert len(done) == 1 and (pc != design.idle[kinds[actor]] or design.rules[pc].chooses)
        return done[0].outcome

    def state(self):
        return join(self.meta, self.stores["admin"].read(self.group, of_state()))
