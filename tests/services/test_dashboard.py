"""Every query of the dashboard, on a real Prometheus that scrapes a running cluster with a sweep in its queue."""

import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest
import yaml
from prometheus_client import CollectorRegistry, start_http_server
from redis import Redis

from running_cluster import ROOT, running
from test_lab import PLAN
from ultrafolio.errors import InputError
from ultrafolio.rpc.cluster import Cluster
from ultrafolio.rpc.v1 import guest_pb2, lab_pb2
from workers.metrics import Sweeps

pytestmark = pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is not installed")
BOARD = json.loads((ROOT / "deploy/grafana/dashboards/ultrafolio.json").read_text())
TARGETS = [(panel["title"], target) for panel in BOARD["panels"] for target in panel["targets"]]
PATIENCE_S = 60


def sweep_metrics(redis):
    """The collector of workers.metrics on a separate port."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Sweeps(Redis.from_url(redis)))
    return start_http_server(0, "127.0.0.1", registry=registry)[0]


def configured(folder, targets):
    """The shipped configuration with fixed targets instead of DNS."""
    said = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    for job in said["scrape_configs"]:
        job.pop("dns_sd_configs", None)
        job["static_configs"] = [{"targets": targets.get(job["job_name"], [])}]
    said |= {"rule_files": [str(ROOT / "deploy/prometheus/alerts.yml")]}
    said["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(said))
    return folder / "prometheus.yml"


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    """Its address, while the cluster works, refuses, waits and has a sweep without workers."""
    folder = tmp_path_factory.mktemp("dashboard")
    with running(folder / "cluster") as where, socket.socket() as free:
        (folder / "where.json").write_text(json.dumps(where))
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        free.close()
        sweeps = sweep_metrics(where["redis"])
        targets = {
            "services": [part["metrics"] for part in where["services"]],
            "sweeps": [f"127.0.0.1:{sweeps.server_port}"],
        }
        words = [
            "prometheus",
            f"--config.file={configured(folder, targets)}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
            "--log.level=error",
        ]
        process = subprocess.Popen(words)
        try:
            with Cluster.at(where) as it:
                it.lab.SubmitSweep(lab_pb2.SubmitSweepRequest(plan=PLAN, name="eight.toml"))
                until(lambda: process.poll() is None and ask(address, "up"))
                with pytest.raises(InputError):
                    it.guest.Touch(guest_pb2.TouchRequest(group="nowhere", actor=0, page=0, request_id="1"), timeout=9)
                script = [sys.executable, "examples/seed_virtio.py", str(folder / "where.json")]
                subprocess.run(script, cwd=ROOT, check=True, capture_output=True)
            yield address
        finally:
            process.terminate()
            process.wait(30)
            sweeps.shutdown()


def ask(address, expression):
    """Returns Prometheus' answer to an instant query: [(labels, value)]."""
    query = urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(f"http://{address}/api/v1/query?{query}", timeout=10) as answer:
            found = json.load(answer)["data"]["result"]
    except (urllib.error.URLError, ConnectionError):
        return []
    return [(one["metric"], float(one["value"][1])) for one in found]


def until(look):
    end = time.monotonic() + PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.2)
    return found


@pytest.mark.parametrize(("title", "target"), TARGETS, ids=[f"{t}-{target['refId']}" for t, target in TARGETS])
def test_a_panel_has_data_and_names_for_it(prometheus, title, target):
    found = until(lambda: ask(prometheus, target["expr"]))
    for name in re.findall(r"{{(\w+)}}", target["legendFormat"]):
        assert all(labels.get(name) for labels, _ in found), (name, found)
    assert all(value == value for _, value in found) or "quantile" in target["expr"], found


def test_the_figures_are_those_of_the_cluster(prometheus):
    expressions = {title: target["expr"] for title, target in TARGETS}
    serving = until(lambda: ask(prometheus, expressions["Parts that serve"]))
    assert {labels["service"]: value for labels, value in serving} == dict.fromkeys(
        ("ultravisor", "host_mm", "guest", "lab"), 1.0
    )
    ((_, waiting),) = ask(prometheus, expressions["Chunks that wait"])
    ((_, share),) = ask(prometheus, expressions["Sweeps under way"])
    assert waiting > 0 and share == 0, "nobody computes"
    failing = until(lambda: ask(prometheus, expressions["Calls that did not end with OK, a second"]))
    assert ("Touch", "NOT_FOUND") in {(labels["call"], labels["code"]) for labels, _ in failing}
    assert ask(prometheus, 'ALERTS{alertstate="firing"}') == []
