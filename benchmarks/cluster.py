"""Touches and imports of a running cluster beside their bare calls and scripts, in one run, interleaved.

    python benchmarks/cluster.py [--rounds 5] [--seconds 1] [--pages 1000000] [--json]

The limit of a request is the time of its bare hops. Two bare servers with grpcio's defaults make the same number of
unary calls and of commit scripts without changes as the request (`of chain`). The sum of the same calls and scripts,
each measured in a tight loop, is less (`of loops`): there neither side sleeps, and waking up is most of a hop's time.
A request had more hops when the goals were set (FIRST): `of first` is against the chain of those.
The hops of a request are counted by the services' metrics and by Redis. Latencies are of single requests, one at a
time. --pages also makes a host with this number of pages, and prints its memory in Redis.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from ultrafolio.model.policies import PRESETS
from ultrafolio.model.scenario import parse, system
from ultrafolio.rpc.cluster import Cluster
from ultrafolio.rpc.v1 import guest_pb2
from ultrafolio.state.redis import RedisStore
from ultrafolio.state.store import Commit

ROOT = Path(__file__).parent.parent
PAGES = 64
GROUP = 4096
ECHO = "/bare.Bare/Echo"
FIRST = {"touch": (2, 2), "import": (6, 20)}
"""Calls and scripts of a request when the goals of `of chain` were set, 0.85 and 0.8."""


def bare_server(ready: Any, next_port: int) -> None:
    """A server that runs the requested numbers of scripts and of calls to the next server, and then replies."""
    server = grpc.server(ThreadPoolExecutor(4))
    forward = grpc.insecure_channel(f"127.0.0.1:{next_port}").unary_unary(ECHO) if next_port else None
    stores: list[RedisStore] = []
    number = itertools.count(1)

    def answer(request: bytes, context: Any) -> bytes:
        url, scripts, calls, _ = json.loads(request)
        if url and not stores:
            stores.append(RedisStore(url, "admin"))
        for _ in range(scripts):
            stores[0].commit("touched", Commit(str(next(number)), f"bare-{next_port}", cached={"uv": 1, "pt": 1}))
        for share in calls:
            assert forward is not None
            forward(json.dumps([url, share, [], ""]).encode())
        return request

    handler = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare.Bare", {"Echo": handler}),))
    ready.put(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    server.wait_for_termination()


def per_call(call: Callable[[], object], seconds: float) -> list[float]:
    """The seconds of each call, in sequence, for `seconds` in sum."""
    took, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        took.append(time.perf_counter() - start)
    return took


def hops(where: dict[str, Any], store: RedisStore) -> tuple[int, int]:
    """(unary calls that all services have answered, round trips to Redis) so far: every script reads the lease with one
    GET, every read outside a script is one GET or MGET."""
    calls = 0
    for part in where["services"]:
        with urllib.request.urlopen(f"http://{part['metrics']}/metrics") as page:
            text = page.read().decode()
        calls += sum(int(float(n)) for n in re.findall(r"^ultrafolio_rpc_total\{[^}]*\} (\S+)$", text, re.MULTILINE))
    stats = store._client.info("commandstats")
    return calls, sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("get", "mget"))


class Bench:
    """The operations to measure, on the cluster and on the bare servers."""

    def __init__(self, where: dict[str, Any], port: int) -> None:
        self.where, self.cluster = where, Cluster.at(where)
        self.store = RedisStore(where["redis"], "admin")
        self.echo = grpc.insecure_channel(f"127.0.0.1:{port}").unary_unary(ECHO)
        self.sent = 0
        document = {"memory": {"folios": [0] * PAGES, "state": ["secure"]}, "vcpu": [{}]}
        self.cluster.lay_out("touched", system(parse(document, "benchmark"), PRESETS["per-page"][1]))
        self.imported, self.left = 0, []
        self.document = document

    def call(self) -> None:
        """A bare unary call with the size of a touch."""
        self.echo(json.dumps(["", 0, [], "x" * 40]).encode())

    def chain(self, calls: float, scripts: float) -> None:
        """The bare calls and scripts of a request, in two bare servers in sequence."""
        behind, total = round(calls) - 1, round(scripts)
        shares = [total // (behind + 1)] * behind
        self.echo(json.dumps([self.where["redis"], total - sum(shares), shares, ""]).encode())

    def script(self) -> None:
        """The bare commit script: reads two sections, changes nothing."""
        self.sent += 1
        self.store.commit("touched", Commit(str(self.sent), "bench", cached={"uv": 1, "pt": 1}))

    def touch(self) -> None:
        """A touch of an accessible page: from guest to ultravisor and back."""
        self.cluster.guest.Touch(guest_pb2.TouchRequest(group="touched", actor=0, page=self.sent % PAGES))

    def workload(self) -> None:
        """1,024 touches of accessible pages as one workload."""
        pages = [n % PAGES for n in range(1024)]
        for _ in self.cluster.guest.RunWorkload(guest_pb2.RunWorkloadRequest(group="touched", actor=0, pages=pages)):
            pass

    def fill(self) -> None:
        """Make a new group of exported pages, for imports."""
        self.imported += 1
        document = self.document | {"memory": {"folios": [0] * PAGES, "state": ["exported"]}}
        self.group = f"imported-{self.imported}"
        self.cluster.lay_out(self.group, system(parse(document, "benchmark"), PRESETS["per-page"][1]))
        self.left = list(range(PAGES))

    def import_page(self) -> None:
        """A touch of an exported page: 0x3e, import with all its steps, and the access."""
        touch = guest_pb2.TouchRequest(group=self.group, actor=0, page=self.left.pop())
        answer = self.cluster.guest.Touch(touch)
        assert answer.exceptions == 1 and not answer.HasField("wait")


def host_memory(where: dict[str, Any], pages: int) -> dict[str, float]:
    """Bytes in Redis for a host of this number of pages, all secure, in folios of 16 pages."""
    groups = -(-pages // GROUP)
    document = {"memory": {"folios": [4] * (GROUP // 16), "state": ["secure"]}, "vcpu": [{}]}
    made = system(parse(document, "benchmark"), PRESETS["per-page"][1])
    with Cluster.at(where) as cluster:
        assert cluster.store is not None
        before = cluster.store._client.info("memory")["used_memory"]
        for n in range(groups):
            cluster.lay_out(f"host-{n}", made)
        after = cluster.store._client.info("memory")["used_memory"]
    return {"pages": groups * GROUP, "redis_mb": round((after - before) / 1e6, 1)}


def measure(where: dict[str, Any], port: int, rounds: int, seconds: float) -> dict[str, Any]:
    """All figures, as medians over rounds; each round runs every operation."""
    bench = Bench(where, port)
    names = (
        "call",
        "script",
        "touch",
        "workload",
        "import",
        *(f"{one} {of}" for one in FIRST for of in ("chain", "first")),
    )
    took: dict[str, list[list[float]]] = {name: [] for name in names}
    counted: dict[str, tuple[float, float]] = {}
    for name in ("call", "script", "touch"):
        per_call(getattr(bench, name), 0.2)
    for _ in range(rounds):
        for name in ("call", "script", "touch", "workload"):
            before = hops(where, bench.store)
            took[name].append(per_call(getattr(bench, name), seconds))
            counted[name] = _per(before, hops(where, bench.store), len(took[name][-1]))
        bench.fill()
        before = hops(where, bench.store)
        took["import"].append([_once(bench.import_page) for _ in range(PAGES)])
        counted["import"] = _per(before, hops(where, bench.store), PAGES)
        for name, first in FIRST.items():
            for of, hop in (("chain", counted[name]), ("first", first)):
                took[f"{name} {of}"].append(per_call(lambda hop=hop: bench.chain(*hop), seconds))
    median = {name: statistics.median(statistics.median(one) for one in all_) for name, all_ in took.items()}
    return {
        "median_us": {name: round(1e6 * one, 1) for name, one in median.items()},
        "hops": counted,
        "of_loops": {name: _of_loops(took, counted[name], name) for name in FIRST},
        "of_chain": {name: _of_chain(took, name, "chain") for name in FIRST},
        "of_first": {name: _of_chain(took, name, "first") for name in FIRST},
        "percentiles_us": {name: _percentiles(all_) for name, all_ in took.items()},
        "touches_per_second_in_a_workload": round(1024 / median["workload"]),
    }


def _once(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _per(before: tuple[int, int], after: tuple[int, int], n: int) -> tuple[float, float]:
    return round((after[0] - before[0]) / n, 2), round((after[1] - before[1]) / n, 2)


def _of_chain(took: dict[str, list[list[float]]], name: str, of: str) -> float:
    """The time of the bare chain over the time of the request, within a round; median over rounds."""
    pairs = zip(took[f"{name} {of}"], took[name], strict=True)
    return round(statistics.median(statistics.median(bare) / statistics.median(whole) for bare, whole in pairs), 3)


def _of_loops(took: dict[str, list[list[float]]], counted: tuple[float, float], name: str) -> float:
    """The sum of the bare hops over the time of the request, within a round; median over rounds."""
    ratios = []
    for call, script, whole in zip(took["call"], took["script"], took[name], strict=True):
        limit = counted[0] * statistics.median(call) + counted[1] * statistics.median(script)
        ratios.append(limit / statistics.median(whole))
    return round(statistics.median(ratios), 3)


def _percentiles(rounds: list[list[float]]) -> dict[str, float]:
    values = sorted(one for part in rounds for one in part)
    return {f"p{p:g}": round(1e6 * values[min(len(values) - 1, int(len(values) * p / 100))], 1) for p in (50, 90, 99)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--pages", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    flags = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    ready, bare, port = context.Queue(), [], 0
    for _ in range(2):
        bare.append(context.Process(target=bare_server, args=(ready, port), daemon=True))
        bare[-1].start()
        port = ready.get()
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "services", "--json", "--folder", folder]
        process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ)
        try:
            assert process.stdout is not None
            where = json.loads(process.stdout.readline())
            figures = measure(where, port, flags.rounds, flags.seconds)
            if flags.pages:
                figures["host"] = host_memory(where, flags.pages)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
            for server in bare:
                server.terminate()
    print(json.dumps(figures) if flags.json else _text(figures))


def _text(figures: dict[str, Any]) -> str:
    lines = [
        f"{'':14}{'p50 us':>10}{'p90 us':>10}{'p99 us':>10}{'calls':>8}{'scripts':>9}{'of chain':>10}{'of first':>10}"
        f"{'of loops':>10}"
    ]
    for name, values in figures["percentiles_us"].items():
        calls, scripts = figures["hops"].get(name, (0, 0))
        ratios = (figures[of].get(name, "") for of in ("of_chain", "of_first", "of_loops"))
        lines.append(
            f"{name:14}"
            + "".join(f"{v:10.0f}" for v in values.values())
            + f"{calls:8}{scripts:9}"
            + "".join(f"{ratio:>10}" for ratio in ratios)
        )
    lines.append(f"touches a second in a workload: {figures['touches_per_second_in_a_workload']}")
    if "host" in figures:
        lines.append(f"Redis for a host of {figures['host']['pages']} pages: {figures['host']['redis_mb']} MB")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
