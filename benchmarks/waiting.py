"""What touches that wait cost: processor time of every part while thousands of them wait, and without them.

    python benchmarks/waiting.py [--touches 5000] [--groups 1] [--seconds 20] [--json]

Each group has a vCPU that hangs on a pinned ring, and its share of the touches; one of them runs the vCPU, which looks
again twice a second, and the others wait for that one. Figures are percent of one core, from /proc, children included.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from ultrafolio.model import scenario
from ultrafolio.model.policies import find
from ultrafolio.rpc.client import stamp
from ultrafolio.rpc.cluster import Cluster
from ultrafolio.rpc.v1 import guest_pb2

ROOT = Path(__file__).parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
PATIENCE_S = 300.0


def used(pid: int) -> float:
    """Seconds of processor time that a process has used, with those of its children that ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


def parts(where: dict[str, Any], lab: Cluster) -> dict[str, int]:
    """The processes of the services and of the store, by name."""
    assert lab.store is not None
    found = {part["service"]: part["pid"] for part in where["services"]}
    return found | {"redis": int(lab.store._client.info("server")["process_id"])}


def percent(pids: dict[str, int], seconds: float) -> dict[str, float]:
    """What each process takes in so many seconds from now, in percent of a core."""
    before, began = {name: used(pid) for name, pid in pids.items()}, time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    return {name: round(100 * (used(pid) - before[name]) / took, 2) for name, pid in pids.items()}


def waiting(where: dict[str, Any]) -> int:
    """How many calls wait in the guest service."""
    metrics = next(part["metrics"] for part in where["services"] if part["service"] == "guest")
    with urllib.request.urlopen(f"http://{metrics}/metrics") as page:
        lines = page.read().decode().splitlines()
    return int(float(next(line.split()[-1] for line in lines if line.startswith("ultrafolio_rpc_waiting"))))


def hung(lab: Cluster, name: str) -> None:
    """A group in which a touch of page 1 by actor 0 waits for ever."""
    story = scenario.read(ROOT / "scenarios/25-reboot-with-device.toml")
    lab.lay_out(name, scenario.system(story, find("whole-folio", story.tables)), "hung")
    lab.guest.Configure(stamp(guest_pb2.ConfigureRequest(group=name, actor=1, page=0)))


def measure(where: dict[str, Any], touches: int, groups: int, seconds: float) -> dict[str, Any]:
    """The figures, at rest and with the touches waiting."""
    with Cluster.at(where) as lab, Cluster.at(where) as crowd:
        pids = parts(where, lab)
        for number in range(groups):
            hung(lab, f"hung-{number}")
        time.sleep(5)
        rest = percent(pids, seconds)
        orders = [guest_pb2.TouchRequest(group=f"hung-{number}", actor=0, page=1) for number in range(groups)]
        calls = [crowd.guest.Touch.future(orders[n % groups], timeout=PATIENCE_S) for n in range(touches)]
        while waiting(where) < touches - groups:
            assert not any(call.done() for call in calls), "a touch does not wait"
            time.sleep(0.2)
        # the pauses of the vCPU grow to half a second
        time.sleep(5)
        busy = percent(pids, seconds)
        for call in calls:
            call.cancel()
    more = {name: round(busy[name] - rest[name], 2) for name in busy}
    return {
        "touches": touches,
        "groups": groups,
        "at rest": rest,
        "waiting": busy,
        "more": more,
        "more in all": round(sum(more.values()), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--touches", type=int, default=5000)
    parser.add_argument("--groups", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", action="store_true")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "services", "--json", "--folder", folder]
        process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            figures = measure(json.loads(process.stdout.readline()), flags.touches, flags.groups, flags.seconds)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
    if flags.json:
        print(json.dumps(figures))
        return
    for name in figures["more"]:
        print(f"{name:12}{figures['at rest'][name]:8.2f}{figures['waiting'][name]:8.2f}{figures['more'][name]:8.2f}")
    print(f"{figures['touches']} touches that wait: {figures['more in all']} % of a core")


if __name__ == "__main__":
    main()
