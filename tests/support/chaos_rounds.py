"""A cluster with everything between its parts in reach of faults, clients that never give up, and their books."""

import asyncio
import functools
import glob
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from urllib.parse import quote

import grpc
import redis

from services.common.settings import Settings
from services.launcher.cluster import Cluster, State, parts
from store_faults import flattened
from ultrafolio import redis_server
from ultrafolio.model.layout import IDLE_PC
from ultrafolio.model.properties import PROPERTIES
from ultrafolio.model.rule import RULES
from ultrafolio.rpc.client import request_id
from ultrafolio.rpc.cluster import Cluster as Client
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.v1 import guest_pb2, host_mm_pb2
from ultrafolio.state.validate import validate

AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED)
"""What a client meets while a part is away, and repeats its request after."""
PAST_THE_LEASE_S = 2.3
MOVES_S = 60
"""Until a group of a paused owner has another one: the lease, and what a client gives a replica for its answer."""


class Proxy:
    """Passes bytes between clients and a server, as long as it is not told otherwise.

    delay  seconds that every answer is held back
    lose   so many next answers get lost, and their connections with them
    late   so many next requests arrive half a second after their connection has ended
    """

    def __init__(self, upstream, path=None):
        """upstream: path of a unix socket, or host:port;  path: where to listen, by default a free port."""
        self.delay, self.lose, self.late = 0.0, 0, 0
        self._upstream, self._path, self._listens = upstream, path, threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()
        assert self._listens.wait(10)

    async def _serve(self):
        if self._path:
            server = await asyncio.start_unix_server(self._connected, self._path)
        else:
            server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
            self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._listens.set()
        await server.serve_forever()

    async def _connected(self, reader, writer):
        try:
            if ":" in self._upstream:
                host, _, port = self._upstream.rpartition(":")
                there, back = await asyncio.open_connection(host, int(port))
            else:
                there, back = await asyncio.open_unix_connection(self._upstream)
        except OSError:
            writer.close()
            return
        with suppress(OSError):
            await asyncio.gather(self._requests(reader, back, writer), self._answers(there, writer))
        writer.close()
        back.close()

    async def _requests(self, reader, back, writer):
        while data := await reader.read(1 << 16):
            # another thread sets it to 0, perhaps between the look and the subtraction
            if self.late > 0:
                self.late -= 1
                writer.close()
                await asyncio.sleep(0.5)
            back.write(data)
            await back.drain()
        back.close()

    async def _answers(self, there, writer):
        while data := await there.read(1 << 16):
            if self.delay:
                await asyncio.sleep(self.delay)
            if self.lose > 0:
                self.lose -= 1
                break
            writer.write(data)
            await writer.drain()
        writer.close()


class Proxied(Cluster):
    """A cluster whose services reach each other, and the shared state, through proxies. replicas: of ultravisor and
    host. under_load: the groups that clients ask for now; others move when somebody asks for them."""

    def __init__(self, folder, state, replicas=1):
        self.server, self.proxies, self.clock = state.server, {}, folder / "clock"
        self.under_load = []
        self._admin = redis.Redis.from_url(state.admin_url)
        path = folder / "p"
        self.proxies["redis"] = Proxy(str(state.server.folder / "s"), str(path))
        through = State(f"unix://{quote(str(path))}?db=0", state.admin_url, state.users, state.server)
        todo = [part for part in parts(replicas=replicas) if part.service != "lab"]
        super().__init__(folder, Settings(), todo, through)

    def addresses(self, service):
        """Of the proxies in front of the parts of a service that others call."""
        mine = [child for child in self.children.values() if child.part.service == service]
        for child in mine:
            if child.part.name not in self.proxies:
                self.proxies[child.part.name] = Proxy(child.address)
        return ",".join(self.proxies[child.part.name].address for child in mine)

    def client(self):
        """A client of its own, past the proxies: what it loses, it loses with a service."""
        services = {part.service for part in self.todo.values()}
        addresses = {service: super(Proxied, self).addresses(service) for service in services}
        return Client(addresses, self.state.admin_url, replicated=self.replicated)

    # -------------------------------------------------------------------------------------------- faults
    def kill(self, name):
        """kill -9 and start again; seconds from the start to SERVING."""
        self.children[name].kill()
        began = time.monotonic()
        self.start(name)
        return time.monotonic() - began

    def kill_redis(self):
        self.server.kill()
        began = time.monotonic()
        self.server.restart()
        return time.monotonic() - began

    def pause(self, name):
        self.children[name].kill(signal.SIGSTOP)
        time.sleep(PAST_THE_LEASE_S)
        self.children[name].kill(signal.SIGCONT)
        return 0.0

    def owners(self, name):
        """Group under load -> the part that owns it among the replicas of a role."""
        found = {group: self._admin.hget(f"uf:{{{group}}}:owner:{name}", "name") for group in self.under_load}
        return {group: owner.decode() for group, owner in found.items() if owner}

    def kill_owner(self, name):
        """As kill, of the part that owns most groups; seconds from the start to SERVING."""
        return self.kill(self._busiest(name))

    def pause_owner(self, name):
        """The part that owns most groups stops until another has one of them, and goes on with what it had begun."""
        owner = self._busiest(name)
        before = self.owners(name)
        self.children[owner].kill(signal.SIGSTOP)
        try:
            mine, end = [group for group, of in before.items() if of == owner], time.monotonic() + MOVES_S
            while all(self.owners(name)[group] == owner for group in mine):
                assert time.monotonic() < end, f"no group of {owner} has moved"
                time.sleep(0.05)
        finally:
            self.children[owner].kill(signal.SIGCONT)
        return 0.0

    def _busiest(self, name):
        while not (owners := list(self.owners(name).values())):
            time.sleep(0.02)  # the groups are new: nobody was asked for one yet
        return max(set(owners), key=lambda owner: (owners.count(owner), owner))

    def slow_redis(self, delay=0.05, during=1.0):
        self.proxies["redis"].delay = delay
        time.sleep(during)
        self.proxies["redis"].delay = 0.0
        return 0.0

    def lose(self, name, count=10):
        self.proxies[name].lose = count
        time.sleep(0.3)
        self.proxies[name].lose = 0
        return 0.0

    def late(self, count=10):
        self.proxies["redis"].late = count
        time.sleep(1.0)
        self.proxies["redis"].late = 0
        return 0.0

    def jump(self, name):
        """The store's clock goes an hour forth or back."""
        self.clock.write_text(name)
        time.sleep(0.6)
        return 0.0

    def vanish(self, name):
        """A client with 40 calls under way is gone without a word."""
        words = [sys.executable, "-c", VANISHING, json.dumps({"services": [
            {"service": child.part.service, "address": child.address} for child in self.children.values()
        ]})]  # fmt: skip
        client = subprocess.Popen(words, stdout=subprocess.PIPE)
        assert client.stdout.readline(), "the client did not begin"
        client.kill()
        client.wait()
        client.stdout.close()
        return 0.0


VANISHING = """
import json, sys
from ultrafolio.rpc.cluster import Cluster
from ultrafolio.rpc.v1 import guest_pb2
lab = Cluster.at(json.loads(sys.argv[1]))
calls = [lab.guest.Touch.future(guest_pb2.TouchRequest(group="gone", actor=0, page=1), timeout=60) for _ in range(40)]
print("under way", flush=True)
sys.stdin.read()
"""


@contextmanager
def own_clock(folder):
    """Servers that are started here get a clock that a fault can move; a file says by how many seconds. None where
    libfaketime is missing."""
    library = next(iter(glob.glob("/usr/lib/*/faketime/libfaketime.so.1")), None)
    file, plain = folder / "clock", redis_server.launch
    file.write_text("+0")
    own = {
        "LD_PRELOAD": library,
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    if library:
        redis_server.launch = lambda command, **more: plain(command, env={**os.environ, **own}, **more)
    try:
        yield file if library else None
    finally:
        redis_server.launch = plain


def _of(fault, *names):
    """The fault by name, for each of these parts."""
    return {f"{fault.__name__} {name}": functools.partial(fault, name=name) for name in names}


FAULTS = {
    **_of(Proxied.kill, "ultravisor", "host_mm", "guest"),
    **_of(Proxied.pause, "ultravisor", "host_mm", "guest"),
    **_of(Proxied.lose, "redis", "ultravisor", "host_mm"),
    "kill redis": Proxied.kill_redis,
    "slow redis": Proxied.slow_redis,
    "late redis": Proxied.late,
}
"""Each is done to a cluster, and returns the seconds that a part took to start again."""
OF_OWNERS = {**_of(Proxied.kill_owner, "ultravisor", "host"), **_of(Proxied.pause_owner, "ultravisor", "host")}
"""Faults of a cluster with two replicas of each of these."""
OF_THE_WORLD = {**_of(Proxied.jump, "-3600", "+0", "+3600"), **_of(Proxied.vanish, "client")}
"""What happens around a cluster; the first needs own_clock."""


@contextmanager
def cluster_at(folder, replicas=1):
    """A proxied cluster with a server of its own."""
    with ExitStack() as stack:
        state = stack.enter_context(State.own(folder))
        yield stack.enter_context(Proxied(folder, state, replicas))


def patiently(call, request):
    """The answer to a request, asked with the same id until there is one."""
    while True:
        try:
            return call(request, timeout=20)
        except StatusError as error:
            if error.code not in AGAIN:
                raise
            time.sleep(0.02)


class Load(threading.Thread):
    """One client: steps of its actors of a group, chosen at random, each repeated until it is acknowledged.

    acknowledged  per actor, (op, page, outcome) of the steps that were taken, in order
    """

    def __init__(self, client, group, system, actors, seed):
        super().__init__(daemon=True)
        self.client, self.group, self.system, self.actors = client, group, system, actors
        self._random = random.Random(seed)
        self.acknowledged = {actor: [] for actor in actors}
        self.answers, self.over, self.failed = 0, False, None
        self.start()

    def run(self):
        try:
            while not self.over:
                self._one()
                self.answers += 1
        except BaseException as error:
            self.failed = error

    def _one(self):
        actor = self._random.choice(self.actors)
        pc = int(self.client.state(self.group).task["pc"][actor])
        if pc not in RULES:
            return
        op, page = self._random.choice(self.system.choices[actor])
        if pc != IDLE_PC[int(self.system.state.who["kind"][actor])]:
            op, page = 0, 0
        host = RULES[pc].actor in ("host", "fault")
        shape = host_mm_pb2.HostMmServiceStepRequest if host else guest_pb2.GuestServiceStepRequest
        call = self.client.host.Step if host else self.client.guest.Step
        request = shape(group=self.group, actor=actor, op=op, page=page, request_id=request_id())
        answer = patiently(call, request)
        if answer.step.outcome > 0:
            self.acknowledged[actor].append((op, page, answer.step.outcome))
            if self._random.random() < 0.1:
                assert patiently(call, request) == answer, "a repeated request is answered as before"


def check_books(client, group, loads):
    """The stream holds the acknowledged steps and no others, in each actor's order; the rules accept it, no property
    is broken but those of pinned pages, which no policy keeps, and the state is the one it leads to. How many steps."""
    events = list(client.store.history(group))
    verdict = validate(events, lambda: client.state(group))
    assert verdict.accepted, (group, verdict)
    assert {name for _, name in verdict.broken} <= set(PROPERTIES[10:]), (group, verdict.broken)
    steps = flattened(events)
    for load in loads:
        for actor, acknowledged in load.acknowledged.items():
            stands = [(step.op, step.page, step.outcome) for step in steps if step.actor == actor]
            assert stands == acknowledged, (group, actor)
    assert len(steps) == sum(len(known) for load in loads for known in load.acknowledged.values())
    return len(steps)
