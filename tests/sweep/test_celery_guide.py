"""The commands in docs/big-sweeps.md work, with workers that are started by its commands."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ultrafolio.redis_server import VARIABLE, Server, launch

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/big-sweeps.md").read_text()
COMMANDS = [
    command
    for block in re.findall(r"```console\n(.*?)```", GUIDE, re.DOTALL)
    for command in re.findall(r"^\$ (.+)\nexit (\d): (.+)$", block, re.MULTILINE)
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder like a checkout, with a Redis in the environment and the guide's worker running."""
    folder = tmp_path_factory.mktemp("guide")
    for name in ("sweeps", "traces", "examples", "workers"):
        (folder / name).symlink_to(ROOT / name)
    bin_ = folder / "bin"
    bin_.mkdir()
    (bin_ / "ultrafolio").symlink_to(Path(sys.executable).with_name("ultrafolio"))
    (worker,) = re.findall(r"^(celery .+)$", GUIDE, re.MULTILINE)
    with Server.start() as server, open(folder / "worker.log", "wb") as log:
        environment = {**os.environ, VARIABLE: server.url}
        words = [sys.executable, "-m", *shlex.split(worker)]
        process = launch(words, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            yield folder, environment
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_the_guide_has_commands():
    assert len(COMMANDS) >= 5


def test_its_commands_end_and_print_as_written(place):
    folder, environment = place
    for command, code, says in COMMANDS:
        program, *words = shlex.split(command)
        program = sys.executable if program == "python" else str(folder / "bin" / program)
        named = {} if "--workers" in words else environment  # before the guide names a Redis, there is none
        done = subprocess.run(
            [program, *words], cwd=folder, env={**os.environ, **named}, capture_output=True, text=True, check=False
        )
        shown = done.stdout + done.stderr
        assert (done.returncode, says in shown) == (int(code), True), (command, shown)
    assert "Traceback" not in (folder / "worker.log").read_text()


def test_its_figures_are_those_of_the_code():
    from ultrafolio.sweep.distributed import broker, chunking, queue
    from ultrafolio.sweep.local import processes

    assert (chunking.CHUNK_SECONDS, chunking.MIN_CHUNK_SECONDS) == (2.0, 0.1)
    assert (chunking.MIN_CHUNKS, chunking.MAX_CHUNKS) == (32, 20_000)
    assert (queue.QUIET_SECONDS, broker.VISIBILITY_SECONDS, broker.AWAY_SECONDS) == (20, 900, 60)
    assert processes.MAX_DEATHS == 2
    assert broker.QUEUE == "ultrafolio"
