"""The compose project, from a clean clone: up, a script of the seed, a sweep, kills, down."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = f"ultrafolio-test-{os.getpid()}"
# free ports of loopback instead of the usual ones
PORTS = {"LAB_PORT": "", "WEB_PORT": "", "PROMETHEUS_PORT": "", "GRAFANA_PORT": ""}
# includes the build on a busy machine
LONGEST_S = 1500


def missing():
    """Returns why containers cannot run here, None if they can."""
    if not shutil.which("docker"):
        return "docker is not installed"
    for words in (["info"], ["compose", "version"]):
        done = subprocess.run(["docker", *words], capture_output=True, text=True)
        if done.returncode:
            return f"docker {' '.join(words)}: {done.stderr.strip().splitlines()[-1:] or 'fails'}"
    return None


@pytest.fixture(scope="module")
def compose(tmp_path_factory):
    """A function that runs `docker compose` in a clean clone of the project."""
    if why := missing():
        pytest.skip(f"no containers here: {why}")
    clone = tmp_path_factory.mktemp("compose") / "ultrafolio"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)

    def run(*words, code=0):
        done = subprocess.run(
            ["docker", "compose", "-p", PROJECT, *words],
            cwd=clone,
            env={**os.environ, **PORTS},
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
        )
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    try:
        yield run
    finally:
        # the client's container is of a profile that is not up
        run("--profile", "*", "down", "-v", "--timeout", "5", "--remove-orphans")


def client(compose, *words, code=0):
    return compose("run", "--rm", "--no-deps", "-T", "client", *words, code=code)


def validated(compose):
    words = 'ultrafolio trace validate --json "$(cat /keys/admin/redis.url)"'
    return [json.loads(line) for line in client(compose, "sh", "-c", words).splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(2 * LONGEST_S)
def test_the_project_comes_up_and_works(compose):
    compose("up", "--build", "--wait", "--scale", "worker=2")
    states = [json.loads(line) for line in compose("ps", "--format", "json").splitlines()]
    assert sorted(state["Service"] for state in states) == [
        "guest",
        "host-mm",
        "lab",
        "redis",
        "ultravisor",
        "worker",
        "worker",
    ]
    assert {state["Health"] for state in states} == {"healthy"}

    told = client(compose, "python", "examples/seed_virtio.py", "/keys/admin/where.json")
    assert "the touch: waits" in told and "long-term pin" in told
    assert len(validated(compose)) == 1

    summary = json.loads(
        client(
            compose,
            "ultrafolio",
            "sweep",
            "sweeps/costs.toml",
            "-o",
            "/results/costs",
            "--executor",
            "celery",
            "--limit",
            "40",
            "--no-report",
            "--json",
        )
    )
    assert (summary["computed"], summary["failed"]) == (40, 0)

    # acknowledged writes survive kills of all containers
    compose("kill", "--signal", "KILL")
    compose("up", "--wait", "--scale", "worker=2")
    client(compose, "python", "examples/seed_virtio.py", "/keys/admin/where.json")
    assert len(validated(compose)) == 2

    # a client without a certificate and a password gets no answer
    client(compose, "python", "-m", "services.common.probe", "guest:50051", code=1)
    unnamed = "import redis; redis.Redis('redis').ping()"
    client(compose, "python", "-c", unnamed, code=1)
