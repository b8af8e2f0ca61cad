"""CPU time per request of each process of a cluster, with one ultravisor, host MM and guest, and with two of each.

    python benchmarks/replicas.py [--groups 32] [--rounds 5] [--json]

Requests are touches of accessible pages, and touches of exported pages, which the host imports; they go to the groups
in turn, one at a time. Half of the groups is asked at each guest. Reported is the busiest process: the one with the
most CPU time per request of the cluster. CPU time is that of /proc, so other work on the machine counts little; the two
clusters run at once, and take turns round by round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ultrafolio.model.policies import PRESETS
from ultrafolio.model.scenario import parse, system
from ultrafolio.rpc.cluster import Cluster
from ultrafolio.rpc.v1 import guest_pb2

ROOT = Path(__file__).parent.parent
PAGES = 16
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
KINDS = ("touch", "import")


class Bench:
    """A cluster of `replicas` ultravisors, hosts and guests, with its groups."""

    def __init__(self, where: dict[str, Any], groups: int) -> None:
        self.where, self.groups, self.made = where, groups, 0
        guests = [part for part in where["services"] if part["service"] == "guest"]
        others = [part for part in where["services"] if part["service"] != "guest"]
        self.clients = [Cluster.at({**where, "services": [*others, guest]}) for guest in guests]
        self.fill()

    def fill(self) -> None:
        """New groups: their even pages are accessible, the odd ones are exported."""
        states = ["secure", "exported"] * (PAGES // 2)
        document = {"memory": {"folios": [0] * PAGES, "state": states}, "vcpu": [{}]}
        made = system(parse(document, "benchmark"), PRESETS["per-page"][1])
        self.names = [f"b{self.made}-{n}" for n in range(self.groups)]
        self.made += 1
        for name in self.names:
            self.clients[0].lay_out(name, made)
            self.touch(name, 0)

    def touch(self, name: str, page: int) -> None:
        client = self.clients[self.names.index(name) % len(self.clients)]
        wanted = guest_pb2.TouchRequest(group=name, actor=0, page=page)
        answer = client.guest.Touch(wanted)
        assert answer.exceptions == page % 2 and not answer.HasField("wait")

    def round(self, kind: str) -> dict[str, float]:
        """Returns the milliseconds of CPU time per request, by process, of one round of touches or imports."""
        before = self._cpu()
        for page in range(KINDS.index(kind), PAGES, 2):
            for name in self.names:
                self.touch(name, page)
        count = PAGES // 2 * len(self.names)
        return {part: 1000 * (now - before[part]) / count for part, now in self._cpu().items()}

    def _cpu(self) -> dict[str, float]:
        """Seconds of CPU time of every service so far."""
        found = {}
        for part in self.where["services"]:
            fields = Path(f"/proc/{part['pid']}/stat").read_text().rpartition(")")[2].split()
            found[part["name"]] = TICK_S * (int(fields[11]) + int(fields[12]))
        return found


@contextlib.contextmanager
def running(number: int) -> Iterator[dict[str, Any]]:
    """A cluster with so many ultravisors, hosts and guests: where it listens."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "services", "--json", "--folder", folder]
        words += ["--replicas", str(number), "--guests", str(number)]
        process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


def measure(groups: int, rounds: int) -> dict[str, Any]:
    """Per kind of request and number of replicas, the median CPU ms per request of each process, and the busiest."""
    took: dict[tuple[str, int], list[dict[str, float]]] = {(kind, n): [] for kind in KINDS for n in (1, 2)}
    with running(1) as one, running(2) as two:
        benches = {1: Bench(one, groups), 2: Bench(two, groups)}
        for number in range(rounds):
            for n, bench in benches.items():
                if number:
                    bench.fill()
                for kind in KINDS:
                    took[kind, n].append(bench.round(kind))
    figures: dict[str, Any] = {}
    for kind in KINDS:
        parts = {n: _medians(took[kind, n]) for n in (1, 2)}
        busiest = {n: max(parts[n], key=lambda name, of=parts[n]: of[name]) for n in (1, 2)}  # type: ignore[misc]
        ratios = [max(b.values()) / max(a.values()) for a, b in zip(took[kind, 1], took[kind, 2], strict=True)]
        figures[kind] = {
            "ms_per_request": parts,
            "busiest": busiest,
            "two_over_one": round(statistics.median(ratios), 3),
            "sum_two_over_one": round(sum(parts[2].values()) / sum(parts[1].values()), 3),
        }
    return figures


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(one[name] for one in rounds), 3) for name in rounds[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--groups", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    flags = parser.parse_args()
    figures = measure(flags.groups, flags.rounds)
    if flags.json:
        print(json.dumps(figures))
        return
    for kind, of in figures.items():
        print(f"{kind}: the busiest process takes {of['two_over_one']} of the CPU time per request with two replicas")
        for n in (1, 2):
            named = ", ".join(f"{name} {ms:.2f}" for name, ms in of["ms_per_request"][n].items())
            print(f"  {n}: busiest {of['busiest'][n]}; ms per request: {named}")
        print(f"  all processes together: {of['sum_two_over_one']}")


if __name__ == "__main__":
    main()
