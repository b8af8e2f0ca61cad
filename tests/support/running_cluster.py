"""An engine for the conformance suite: a real cluster, driven one step at a time."""

import itertools
import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from ultrafolio.model.rule import RULES
from ultrafolio.rpc.cluster import Cluster
from ultrafolio.state.events import Again, decode

ROOT = Path(__file__).parents[2]
NUMBERS = itertools.count()


@contextmanager
def running(folder, *flags):
    """A cluster by `python -m services` in `folder`: what it printed, as a dictionary."""
    words = [sys.executable, "-m", "services", "--json", "--folder", str(folder), *flags]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert line, f"the cluster did not start: {process.wait()}"
        yield json.loads(line)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) in (0, 130), "the cluster did not stop cleanly"


def entries(store, group):
    """How many entries the stream would have if each round of polling had its own."""
    made = [decode(event.data) for event in store.history(group)]
    return sum(one.entries * one.rounds if isinstance(one, Again) else 1 for one in made)


class Clustered:
    """One cluster; each load is a new folio group, which nobody else changes."""

    name = "cluster"

    def __init__(self, where):
        self.cluster = Cluster.at(where)

    def load(self, state):
        self.group = f"g{next(NUMBERS)}"
        self.cluster.lay_out_state(self.group, state, [], "a test")
        self._next = state.task["pc"].tolist()

    def step(self, actor, op, page):
        # the rules before this step; they are read again only if no caller did after the last step
        rules = self._next or self.state().task["pc"].tolist()
        self._next = None
        pc = rules[actor]
        return self.cluster.step(self.group, pc, actor, op, page).outcome if pc in RULES else -1

    def state(self):
        state = self.cluster.state(self.group)
        self._next = state.task["pc"].tolist()
        return state
