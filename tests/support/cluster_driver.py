"""A cluster driven by its natural calls, and the same orders carried out by the plain interpreter."""

import itertools
import random
from functools import partial
from pathlib import Path

from ultrafolio.engine.interp import to_lists, write_back
from ultrafolio.engine.load import interpreted
from ultrafolio.errors import InputError
from ultrafolio.model import layout, scenario
from ultrafolio.model.layout import (
    ACCESS,
    AGAIN,
    DEAD,
    DISK,
    IDLE_PC,
    INTERRUPT,
    NOTHING,
    PIN,
    REBOOT,
    RING,
    RING_READY,
    SHARE,
    TOUCH,
    VCPU,
)
from ultrafolio.model.policies import find
from ultrafolio.rpc.client import request_id
from ultrafolio.rpc.cluster import Cluster
from ultrafolio.rpc.v1 import common_pb2, guest_pb2, host_mm_pb2
from ultrafolio.state import validate

NUMBERS = itertools.count()
ROOT = Path(__file__).parents[2]
BUSY = (layout.E_LOCKED, layout.E_REFS, layout.E_WRITEBACK, layout.E_DIRTY, layout.E_UV)
DEVICES = (DISK, RING, PIN, INTERRUPT)
DONE, WAITS, STOPPED, FATAL, REFUSED = (
    common_pb2.Outcome.Value(f"OUTCOME_{word}") for word in ("DONE", "WAITS", "STOPPED", "FATAL", "REFUSED")
)


class Driven:
    """Orders to the actors of one group after the other; each group's stream is held against the rules at the end."""

    def __init__(self, where):
        self.cluster, self.groups, self.untrusted = Cluster.at(where), [], set()

    def lay(self, name, policy, document=None):
        """A new group from a scenario of scenarios/ by the start of its name, or from tables."""
        if document is None:
            (path,) = (ROOT / "scenarios").glob(f"{name}*.toml")
            story = scenario.read(path)
        else:
            story = scenario.parse(document, name)
        self.system = scenario.system(story, find(policy, story.tables))
        self.group = f"driven-{next(NUMBERS)}"
        self.groups.append(self.group)
        self.cluster.lay_out(self.group, self.system, story.title)
        return self.group

    def touch(self, actor, page, *, timeout=10, **more):
        request = guest_pb2.TouchRequest(group=self.group, actor=actor, page=page, request_id=request_id(), **more)
        return self.cluster.guest.Touch(request, timeout=timeout)

    def share(self, actor, page, *, timeout=10, request=""):
        message = guest_pb2.ShareRequest(group=self.group, actor=actor, page=page, request_id=request or request_id())
        return self.cluster.guest.Share(message, timeout=timeout)

    def unshare(self, actor, page, *, timeout=10, request=""):
        message = guest_pb2.UnshareRequest(group=self.group, actor=actor, page=page, request_id=request or request_id())
        return self.cluster.guest.Unshare(message, timeout=timeout)

    def direct_io(self, actor, page, *, timeout=10, request="", **more):
        message = guest_pb2.DirectIoRequest(
            group=self.group, actor=actor, page=page, request_id=request or request_id(), **more
        )
        return self.cluster.guest.DirectIo(message, timeout=timeout)

    def configure(self, actor, page, *, timeout=10, request=""):
        message = guest_pb2.ConfigureRequest(
            group=self.group, actor=actor, page=page, request_id=request or request_id()
        )
        return self.cluster.guest.Configure(message, timeout=timeout)

    def interrupt(self, actor, page, *, timeout=10, request=""):
        message = guest_pb2.InterruptRequest(
            group=self.group, actor=actor, page=page, request_id=request or request_id()
        )
        return self.cluster.guest.Interrupt(message, timeout=timeout)

    def reboot(self, actor, *, timeout=10, shutdown=False, request=""):
        message = guest_pb2.RebootRequest(
            group=self.group, actor=actor, shutdown=shutdown, request_id=request or request_id()
        )
        return self.cluster.guest.Reboot(message, timeout=timeout)

    def start(self, actor, page, *, timeout=10, request="", op=0):
        message = host_mm_pb2.StartRequest(
            group=self.group, actor=actor, page=page, op=op, request_id=request or request_id()
        )
        return self.cluster.host.Start(message, timeout=timeout)

    def host_sees(self, page):
        return self.cluster.host.ReadPage(host_mm_pb2.ReadPageRequest(group=self.group, page=page))

    def waits(self):
        return list(self.cluster.host.Explain(host_mm_pb2.ExplainRequest(group=self.group)).waits)

    def state(self):
        return self.cluster.state(self.group)

    def order(self, actor, op, page, timeout):
        """The natural call for what an actor chooses; its outcome, or the reason why it was refused."""
        while (outcome := self._ordered(actor, op, page, timeout)) == "DEADLINE_EXCEEDED":
            timeout *= 3  # a busy machine; the order is gone on with
        return outcome

    def _ordered(self, actor, op, page, timeout):
        kind = int(self.system.state.who["kind"][actor])
        try:
            if kind == VCPU:
                call = {TOUCH: self.touch, SHARE: self.share}.get(op, self.unshare)
                return call(actor, page, timeout=timeout).outcome
            if kind == DISK:
                return self.direct_io(actor, page, timeout=timeout).outcome
            if kind in (RING, PIN):
                return self.configure(actor, page, timeout=timeout).outcome
            if kind == INTERRUPT:
                return self.interrupt(actor, page, timeout=timeout).outcome
            if kind == REBOOT:
                return self.reboot(actor, shutdown=op == NOTHING, timeout=timeout).outcome
            return self.start(actor, page, timeout=timeout, op=op if kind == ACCESS else 0).outcome
        except InputError as error:
            return error.reason

    def validated(self, group=""):
        """What the validator says of a group's stream, and of the state in the store, to which it must lead."""
        group = group or self.group
        return validate.validate(self.cluster.store.history(group), partial(self.cluster.state, group))

    def close(self):
        """Every group's stream is accepted."""
        try:
            for group in self.groups:
                if group not in self.untrusted:
                    verdict = self.validated(group)
                    assert verdict.accepted, (group, verdict.at, verdict.why)
        finally:
            self.cluster.close()


class Interpreted:
    """The same orders, carried out by stepping one thread of the plain interpreter at a time."""

    def __init__(self, system):
        self.system, self.state = system, to_lists(system.state)

    def packed(self):
        return layout.pack(write_back(self.state, layout.copy(self.system.state)))

    def order(self, actor, op, page):
        """The outcome: done where the thread is idle again, waits where a second round ends busy, or it sleeps."""
        task, kind, rounds, end = self.state.task[actor], self.state.who[actor].kind, 0, DONE
        if task.pc == DEAD:
            return FATAL
        if task.pc != IDLE_PC[kind]:
            return "ACTOR_BUSY"
        goal = RING_READY if kind in (RING, PIN) else IDLE_PC[kind]
        while True:
            outcome = interpreted().step(self.state, actor, op, page)
            if outcome == layout.W_STOPPED:
                return "MACHINE_STOPPED"
            if outcome < 0:
                spent = "NOT_ENABLED" if self.state.actor[actor].budget else "NO_STARTS_LEFT"
                return WAITS if task.pc != IDLE_PC[kind] else spent
            if task.pc == DEAD:
                return FATAL
            end = REFUSED if outcome in (layout.E_IO, layout.MISUSE) and kind in DEVICES else end
            if task.pc in (goal, IDLE_PC[kind]) and (kind != VCPU or outcome == layout.DONE):
                return end
            if kind == REBOOT and outcome > 0:
                self.stop(self.state.who[actor].vm)
            op, page = NOTHING, 0
            rounds += task.pc == AGAIN and outcome in BUSY
            if rounds == 2 and task.pc == AGAIN:
                return WAITS

    def stop(self, vm):
        """The machine's vCPUs drop their instructions, its devices are torn down."""
        moved = True
        while moved:
            moved = False
            for t, (who, task) in enumerate(zip(self.state.who, self.state.task, strict=True)):
                if who.vm == vm and who.kind in (VCPU, *DEVICES) and task.pc not in (IDLE_PC[who.kind], DEAD):
                    moved = interpreted().step(self.state, t, NOTHING, 0) > 0 or moved


def same_as_interpreted(lab, name, preset, seed, document=None):
    """All that the scenario's actors may choose, once each, in a random order: equal outcomes, equal states."""
    lab.lay(name, preset, document)
    plain = Interpreted(lab.system)
    orders = [(actor, *choice) for actor, some in enumerate(lab.system.choices) for choice in some]
    random.Random(seed).shuffle(orders)
    for actor, op, page in orders:
        wanted = plain.order(actor, op, page)
        got = lab.order(actor, op, page, timeout=0.3 if wanted == WAITS else 10)
        assert got == wanted, (name, preset, lab.system.state.who[actor], op, page)
    assert layout.pack(lab.state()) == plain.packed(), (name, preset)
