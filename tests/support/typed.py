"""README and guides as a reader types them: the commands and files of a text, in order, and a terminal to type them in.

python tests/support/typed.py        every command of README and guides: typed, or not, and why
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXTS = (
    "README.md",
    *(
        f"docs/{name}.md"
        for name in (
            "read-a-counterexample",
            "prove",
            "send-a-link",
            "write-a-scenario",
            "ask-todays-question",
            "from-a-story-to-a-kernel-test",
            "findings",
            "write-a-policy",
            "search",
            "bring-your-own-trace",
            "watch-the-hang",
            "drive-the-cluster",
            "containers",
            "big-sweeps",
        )
    ),
)
"""README, then the guides in the order of docs/README.md."""

ACTIVATES = ". .venv/bin/activate"
PROGRAMS = ("ultrafolio", "./uf", "python", "pip", "docker", "kubectl")
"""What stands in backquotes and begins with one of these is a command, if more follows."""

ELSEWHERE = {
    r"ultrafolio (check( --safety)?|explore|prove|selftest)": "names a command",
    r"pip install": "test_guides.py installs the checkout, with --long",
    r"ultrafolio prove --policy per-page": "takes half a minute: test_prove.py",
    r"ultrafolio prove --policy per-page --hangs": "takes half a minute: test_hangs.py",
    r"ultrafolio prove --policy gmem-7.4 --machine snp": "takes half a minute: test_prove_memfd.py",
    r"ultrafolio prove --all --design guest_memfd --machine all": "takes minutes: test_prove_memfd.py",
    r"ultrafolio check --all --design guest_memfd --machine all": "takes a minute: test_designs.py asks one scenario",
    r"ultrafolio search --design guest_memfd --from gmem-7.4": "takes a minute: test_search_command.py",
    r"ultrafolio search": "takes minutes: test_search_verdicts.py, with --long",
    r"ultrafolio check --all --history verdicts": "checks all pairs: test_history.py",
    r"python benchmarks/run\.py": "takes minutes: test_benchmarks.py runs it with --quick",
    r"\./uf test --long": "takes an hour, and is what runs this test in its long form",
    r"ultrafolio trace validate redis:.*": "the address is left out: two guides have it",
    r"(docker|deploy/chaos\.sh) .*": "needs a container engine: test_compose.py",
    r"kubectl .*|for part in .*|python -m services[\w.]*\.(keys|probe)( .*)?": "needs Kubernetes: test_deploy.py",
    r"python -m services --replicas 2( .*)?": "serves until Ctrl-C: test_replicas.py has two of each",
    r"python -m services[\w.]*\.recover URL": "needs a store that lost writes: test_store_failures.py",
    r'ultrafolio trace (groups|validate "\$URL") .*': "needs the URL of a lab in containers: test_small_lab.py",
    r"cd /sys/kernel/tracing|echo '[pr]:uv_.*|trace-cmd .*": "needs the host of a secure guest: test_observed.py",
    r"ultrafolio trace validate report\.txt .*": "as the line before",
    r"dd if=/proc/kpageflags .*|page-types .*|thpmaps .*|grep -r \. /sys/.*": "needs root on the recorded machine",
    r"ultrafolio sweep (attach|pause) STORE": "needs a job that goes on: test_celery_command.py",
}
"""A pattern of whole commands that are not typed here, and why."""
SHORT = {"./uf test": "./uf test tests/waits/test_waits.py -k expected -n 0 -x"}
"""What takes minutes, and the short form that CONTRIBUTING.md gives it."""
SLOW = r".*\b(sweeps?/?seed|sweep seed|out/seed|sweeps/conversion\.toml)\b.*"
"""What needs a whole sweep of README, minutes of both cores: --long types it."""
SERVES = r"python -m services|.* --serve"
"""What serves until Ctrl-C."""
GIVEN = {
    "DIR": "another-lab",
    "FILE": "mine.lackey",
    "STORE": "out/costs",
    "LINK": '"$(ultrafolio check 03-virtio --policy whole-folio --link)"',
    "redis://user:password@queue.example:6379/0": "$REDIS_OF_THE_TEST",
}
"""What stands for something of the reader's own."""
MARK = "the exit code is"
LIMIT_S = 900.0
"""What a command may take; the longest takes a minute, on a busy machine ten."""


@dataclass(frozen=True)
class Step:
    """A file to write (`name`), or a command to type; what it must end with (None: 0 or 1) and print."""

    text: str
    name: str = ""
    code: int | None = None
    says: str = ""


def steps(text: str) -> Iterator[Step]:
    """What a text has its reader do, in order; a command in a sentence once, and where a line of the text activates the
    environment, only after it. ValueError for a block without a rule."""
    seen, ready = set(), text.find(ACTIVATES)
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$|`([^`]+)`", text, re.MULTILINE | re.DOTALL):
        kind, block, inline = found.groups()
        if inline is not None:
            command = " ".join(inline.split())
            if found.start() > ready and command not in seen and command.split(" ")[0] in PROGRAMS and " " in command:
                seen.add(command)
                yield Step(command)
        elif kind in ("toml", "python"):
            yield Step(block, re.findall(r"`([\w-]+\.(?:toml|py))`", text[: found.start()])[-1])
        elif kind == "console" and block.startswith("$ "):
            yield from _promised(block)
        elif kind in ("console", "sh"):
            for line in re.findall(r"^for [\s\S]*?^done$|^\S.*$", block, re.MULTILINE):
                yield Step(line, code=0 if kind == "sh" else None)
        elif kind:
            raise ValueError(f"a block of {kind}")


def _promised(block: str) -> Iterator[Step]:
    """The commands of a block that says how each ends; one that ends with & goes on."""
    lines = block.splitlines()
    while lines:
        command = lines.pop(0).removeprefix("$ ")
        if command.endswith("&"):
            yield Step(command, code=0)
            continue
        promise = re.fullmatch(r"exit (\d): (.+)", lines.pop(0)) if lines else None
        if promise is None:
            raise ValueError(f"a command without its exit code: {command}")
        yield Step(command, code=int(promise[1]), says=promise[2])


def elsewhere(command: str) -> str | None:
    """Why a command is not typed; None where it is."""
    return next((why for pattern, why in ELSEWHERE.items() if re.fullmatch(pattern, command, re.DOTALL)), None)


class Terminal:
    """One shell in a folder like a fresh checkout, with a home of its own; what is typed in it stays in force.

    What has a browser opened is written to `opened` in the home. `around`: more of the environment.
    """

    FILES = (
        "README.md",
        "benchmarks",
        "examples",
        "profiles",
        "scenarios",
        "services",
        "src",
        "sweeps",
        "tests",
        "traces",
        "uf",
        "workers",
    )
    COPIES = ("pyproject.toml", "constraints.txt")

    def __init__(self, folder: Path, around: dict[str, str]) -> None:
        self.folder, self.home = folder, folder / "home"
        for name in self.FILES:
            (folder / name).symlink_to(ROOT / name)
        for name in self.COPIES:
            (folder / name).write_bytes((ROOT / name).read_bytes())
        (folder / "uf").unlink()
        (folder / "uf").write_bytes((ROOT / "uf").read_bytes())
        (folder / "uf").chmod(0o755)
        self._environment()
        (self.home / "bin").mkdir(parents=True)
        browser = self.home / "bin" / "browser"
        browser.write_text(f'#!/bin/sh\necho "$1" >> {self.home}/opened\n')
        browser.chmod(0o755)
        around = {
            **{name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "ULTRAFOLIO_REDIS")},
            "HOME": str(self.home),
            "BROWSER": f"{browser} %s",
            **around,
        }
        self._shell = subprocess.Popen(
            ["bash", "--norc"],
            cwd=folder,
            env=around,
            stdin=subprocess.PIPE,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.type("set -m")  # as in a terminal: what goes on behind hears Ctrl-C

    def _environment(self) -> None:
        """.venv as `./uf` leaves it, made of the environment that runs the tests."""
        venv = self.folder / ".venv"
        venv.mkdir()
        for path in Path(sys.prefix).iterdir():
            if path.name != ".stamp":
                (venv / path.name).symlink_to(path)
        pins = b"".join((self.folder / name).read_bytes() for name in self.COPIES)
        said = subprocess.run(["cksum"], input=pins, capture_output=True, check=True).stdout
        (venv / ".stamp").write_bytes(said.strip() + b" dev\n")

    def type(self, command: str) -> tuple[int, str]:
        """The exit code of a command, and all that was printed meanwhile."""
        assert self._shell.stdin is not None and self._shell.stdout is not None
        self._shell.stdin.write(f"{{ {command}\n}} </dev/null\nprintf '\\n%s %s\\n' '{MARK}' $?\n")
        self._shell.stdin.flush()
        said = ""
        with self._at_most(command):
            for line in self._shell.stdout:
                if line.startswith(MARK):
                    return int(line.removeprefix(MARK)), said
                said += line
        raise AssertionError(f"{command}\nthe shell ended: {said}")

    @contextlib.contextmanager
    def _at_most(self, command: str) -> Iterator[None]:
        """End the shell, and with it the command, where the block takes longer than LIMIT_S: a command that serves, or
        asks for input, would be waited for until the end of the test."""
        ended = threading.Timer(LIMIT_S, _end_session, [self._shell.pid])
        ended.start()
        try:
            yield
        finally:
            ended.cancel()

    def behind(self, command: str, file: str) -> tuple[int, str]:
        """Type a command that goes on, and wait until it has written a line to `file`: 0, or 1 where it ended first."""
        self.type(command)
        waited = self.type(f"until [ -s {file} ]; do kill -0 $! 2>/dev/null || break; sleep 0.1; done; [ -s {file} ]")
        return waited[0], (self.folder / file).read_text()

    def close(self) -> None:
        """End what goes on behind as Ctrl-C does, then the shell."""
        assert self._shell.stdin is not None and self._shell.stdout is not None
        self._shell.stdin.write("for job in $(jobs -p); do kill -INT $job; done; wait\n")
        self._shell.stdin.close()
        self._shell.stdout.read()
        self._shell.wait()
        self._shell.stdout.close()


def _end_session(number: int) -> None:
    """Kill every process of a session."""
    for pid in [int(name) for name in os.listdir("/proc") if name.isdecimal()]:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) == number:
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def ports_of_the_guides() -> Iterator[None]:
    """The ports that guides name are this process's alone, of all that ask here."""
    with open(Path(tempfile.gettempdir()) / "ultrafolio-guides.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    for name in TEXTS:
        for step in steps((ROOT / name).read_text(encoding="utf-8")):
            if not step.name:
                why = elsewhere(step.text) or ("--long" if re.fullmatch(SLOW, step.text) else "")
                print(f"{name:<32} {why or 'typed':<40} {step.text.splitlines()[0]}")
