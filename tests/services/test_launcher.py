"""`python -m services`: the cluster starts, prints its addresses, and stops in order, for every cause of the end."""

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from patience import NEVER
from services.__main__ import _show
from services.common.probe import serving
from services.common.settings import Settings
from services.launcher.cluster import Cluster, Part, State, parts
from ultrafolio import redis_server
from ultrafolio.errors import InputError
from ultrafolio.rpc.client import Tls
from ultrafolio.rpc.errors import StatusError

ROOT = Path(__file__).parents[2]
STUB = """
from services.common.serve import main, serve
main(lambda settings: serve("guest", [], settings, ready=lambda: bool(settings.redis_url("guest"))))
"""


def environment(**more):
    return {k: v for k, v in os.environ.items() if not k.startswith("ULTRAFOLIO_") or k == "ULTRAFOLIO_CACHE"} | more


@contextlib.contextmanager
def launched(*flags, **more):
    """The launcher's process and its JSON line; killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "services", "--json", *flags],
        cwd=ROOT,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield process, json.loads(line)
    finally:
        process.kill()
        process.communicate()


def alive(pid):
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def eventually(condition, seconds=NEVER):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def event(folder, name, what):
    entries = [json.loads(line) for line in (folder / f"{name}.log").read_text().split("\n") if line.startswith("{")]
    return next(entry["timestamp"] for entry in entries if entry["event"] == what)


def test_the_cluster_with_certificates_until_ctrl_c(tmp_path):
    with launched("--guests", "2", "--tls", "--folder", str(tmp_path)) as (process, where):
        assert [one["name"] for one in where["services"]] == ["ultravisor", "host_mm", "guest-1", "guest-2", "lab"]
        assert len({one["address"] for one in where["services"]}) == 5 and where["folder"] == str(tmp_path)
        for one in where["services"]:
            assert one["address"].startswith("127.0.0.1:") and serving(one["address"], Tls.read(where["tls"], "lab"))
            with pytest.raises(StatusError, match="no service answers"):
                serving(one["address"])
        with redis.Redis.from_url(where["redis"]) as admin:
            users = {line.split()[1] for line in admin.acl_list()}
            assert users == {"default", "admin", "ultravisor", "host", "guest", "lab", "keeper"}
            connected = {client["user"] for client in admin.client_list()} - {"keeper"}
            assert connected == {"admin", "ultravisor", "host", "guest", "lab"}
            state = admin.info("server")["process_id"]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, "", "")
    assert not any(alive(pid) for pid in (state, *(one["pid"] for one in where["services"])))
    order = ["lab", "guest-2", "guest-1", "host_mm", "ultravisor"]
    stopped = [event(tmp_path, name, "stopped") for name in order]
    asked = [event(tmp_path, name, "stopping") for name in order]
    assert all(before <= after for before, after in zip(stopped, asked[1:], strict=False))
    for secret in ("redis/host.password", "redis/users.acl", "tls/ca.key", "tls/host.key"):
        assert stat.S_IMODE((tmp_path / secret).stat().st_mode) == 0o600, secret


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc to see whether a stranger's child runs")
def test_a_part_that_dies_is_named_and_the_rest_dies_with_the_launcher(tmp_path):
    with launched("--folder", str(tmp_path)) as (process, where):
        ultravisor, host, guest, _ = where["services"]
        os.kill(guest["pid"], signal.SIGKILL)
        assert process.stderr.readline().startswith("services: guest ended with -9; the others go on.")
        assert serving(host["address"]) and serving(ultravisor["address"])
        with redis.Redis.from_url(where["redis"]) as admin:
            state = admin.info("server")["process_id"]
        process.kill()
        eventually(lambda: not any(alive(pid) for pid in (host["pid"], ultravisor["pid"], state)))
    assert event(tmp_path, "host_mm", "stopped")


def test_a_given_server_and_fixed_ports(tmp_path):
    with redis_server.Server.start(tmp_path / "given") as given:
        first = 20_000 + os.getpid() % 10_000
        with launched("--redis", given.url, "--port", str(first), ULTRAFOLIO_LOG="error") as (process, where):
            assert [one["address"] for one in where["services"]] == [f"127.0.0.1:{first + i}" for i in range(4)]
            assert where["redis"] == given.url
            os.kill(where["services"][0]["pid"], signal.SIGTERM)
            assert "ultravisor ended with 0" in process.stderr.readline()
            process.terminate()
            assert process.wait(60) == 1
        assert not Path(where["folder"]).exists()
        with redis.Redis.from_url(given.url) as client:
            assert client.ping()


def test_a_part_that_cannot_start_says_why(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        words = [sys.executable, "-m", "services", "--port", str(port := taken.getsockname()[1])]
        for more, then in (([], "--folder FOLDER keeps"), (["--folder", str(tmp_path)], f"cat {tmp_path}/")):
            done = subprocess.run([*words, *more], cwd=ROOT, env=environment(), capture_output=True, text=True)
            assert done.returncode == 2 and then in done.stderr
            assert f"ULTRAFOLIO_PORT: cannot listen there; value {port}; allowed a free port" in done.stderr
    assert "cannot listen" in (tmp_path / "ultravisor.log").read_text()


@pytest.mark.parametrize(
    ("flags", "more", "said"),
    [
        (["--guests", "0"], {}, "'--guests': 0 is not in the range"),
        (["--nope"], {}, "No such option '--nope'"),
        (["--redis", "http://x"], {}, "the scheme of http://x"),
        (["--redis", "redis://admin:secret@127.0.0.1:1/0"], {}, "127.0.0.1:1/0: the shared state does not answer"),
        ([], {"ULTRAFOLIO_PROT": "1"}, "did you mean 'ULTRAFOLIO_PORT'"),
        (["--folder", "/dev/null/x"], {}, "--folder /dev/null/x: cannot be made"),
    ],
)
def test_bad_input(flags, more, said):
    done = subprocess.run(
        [sys.executable, "-m", "services", *flags],
        cwd=ROOT,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and not done.stdout and "Traceback" not in done.stderr
    assert done.stderr.startswith("services: ") and said in done.stderr and "secret" not in done.stderr


@pytest.fixture
def stub(tmp_path, monkeypatch):
    (tmp_path / "stub_service.py").write_text(STUB)
    (tmp_path / "broken_service.py").write_text("raise SystemExit('it does not start')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    return Part("stub", "guest", "stub_service")


def test_a_part_that_is_started_again_has_its_port(tmp_path, stub):
    with Cluster(tmp_path, Settings(), [stub], State.given("redis://127.0.0.1:1/0")) as cluster:
        address = cluster.address("guest")
        cluster.children["stub"].kill()
        assert cluster.ended() == {"stub": -signal.SIGKILL}
        cluster.start("stub")
        assert cluster.address("guest") == address and serving(address) and cluster.ended() == {}
        process = cluster.children["stub"].process
    assert process.returncode == 0


def test_a_part_that_does_not_start_or_is_not_ready(tmp_path, stub, monkeypatch):
    broken = Cluster(tmp_path, Settings(), [stub._replace(module="broken_service")], State.given(""))
    with pytest.raises(InputError, match="stub: ended with 1") as caught, broken:
        pass
    assert caught.value.value == "it does not start"
    monkeypatch.setattr("services.launcher.cluster.START_S", 3)
    waiting = Cluster(tmp_path, Settings(health_s=0.05), [stub], State.given(""))
    with pytest.raises(InputError, match="stub: is not ready") as caught, waiting:
        pass
    assert "no shared state is given" in str(caught.value.value)
    assert waiting.children["stub"].process.returncode == 0


def test_a_person_reads_where_everything_listens(capsys):
    at = {"metrics": "", "pid": 7}
    services = [
        {"name": "guest", "address": "127.0.0.1:1", **at},
        {"name": "lab", "address": "127.0.0.1:2", "web": "http://127.0.0.1:3/", **at},
    ]
    _show({"services": services, "redis": "unix:///s", "folder": "/f", "tls": ""})
    said = capsys.readouterr().out
    assert all(
        words in said for words in ("127.0.0.1:1", "127.0.0.1:2", "page          http://127.0.0.1:3/", "unix:///s")
    )


def test_names_of_the_parts():
    assert [part.name for part in parts()] == ["ultravisor", "host_mm", "guest", "lab"]
    assert [part.name for part in parts(2)] == ["ultravisor", "host_mm", "guest-1", "guest-2", "lab"]
    two = [part.name for part in parts(1, 2)]
    assert two == ["ultravisor-1", "ultravisor-2", "host_mm-1", "host_mm-2", "guest", "lab"]
