"""A cluster on one machine: starts, watches and stops the shared state and one process per service.

Each service is `python -m services.NAME`, configured by ULTRAFOLIO_* variables; the first line of its standard output
has its addresses. Its standard input is a pipe from this process: if this process ends in any way, the pipe closes and
the service stops. No part is restarted automatically; `Cluster.start(name)` restarts one on its former port.

    with State.own(folder) as state, Cluster(folder, Settings(), parts(), state) as cluster:
        cluster.address("guest")
        cluster.children["host_mm"].kill()
        cluster.start("host_mm")
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from services.common.probe import serving
from services.common.settings import PREFIX, Settings
from services.launcher import users
from ultrafolio.errors import InputError
from ultrafolio.redis_server import Server
from ultrafolio.rpc.client import Tls
from ultrafolio.state import acl
from ultrafolio.state.roles import OWNING, ROLE_OF_SERVICE

ROOT = Path(__file__).resolve().parents[2]
# the first start compiles the rules
START_S = 120.0


class Part(NamedTuple):
    """One process of the cluster: unique name ("guest-2"), key of serve.ROLE, module for `python -m`."""

    name: str
    service: str
    module: str


def parts(guests: int = 1, replicas: int = 1) -> list[Part]:
    """Returns the services in the order of their start; they stop in reverse order. replicas: of those that own groups
    (state.owner)."""
    numbers = {service: replicas if role in OWNING else 1 for service, role in ROLE_OF_SERVICE.items()}
    numbers["guest"] = guests
    return [
        Part(service if number == 1 else f"{service}-{i}", service, f"services.{service}")
        for service, number in numbers.items()
        for i in range(1, number + 1)
    ]


class Child:
    """A running part: its process and its addresses."""

    def __init__(self, part: Part, settings: Settings, log: Path) -> None:
        self.part, self.settings, self._log = part, settings, log
        environment = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX) or k == "ULTRAFOLIO_CACHE"}
        environment |= settings.environment()
        environment.setdefault("GRPC_VERBOSITY", "ERROR")
        with log.open("ab") as file:
            # a new session: Ctrl-C in the terminal reaches only the launcher, which stops the parts in order
            self.process = subprocess.Popen(
                [sys.executable, "-m", part.module],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                start_new_session=True,
            )
        self.says: dict[str, Any] = {}
        self._said = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def address(self) -> str:
        return str(self.says["address"])

    def _listen(self) -> None:
        """Read the process's output. Its first line, a JSON object, is kept as `says`."""
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                if not self._said.is_set():
                    self.says = json.loads(line)
                    self._said.set()
        self._said.set()

    def wait_serving(self, tls: Tls | None, end: float) -> None:
        """Wait until the part is SERVING. Raises InputError if it ends, or `end` (monotonic seconds) passes."""
        self._said.wait(max(0.0, end - time.monotonic()))
        while self.says and self.process.poll() is None and time.monotonic() < end:
            try:
                if serving(self.address, tls):
                    return
            except InputError:
                pass
            time.sleep(0.05)
        if self._said.is_set() and not self.says:
            # its output is closed, so it is ending
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        code = self.process.poll()
        raise InputError(
            f"{self.part.name}: {'is not ready' if code is None else f'ended with {code}'}",
            value=self.last_word(),
            cause="its log says why",
            then=f"cat {self._log}",
        )

    def last_word(self) -> str:
        """Returns the end of its log: the reason in the last entry, or an error with its indented lines."""
        last = re.split(r"\n(?=\S)", self._log.read_text(errors="replace").strip())[-1]
        with contextlib.suppress(ValueError, TypeError, KeyError):
            return str(json.loads(last)["reason"])
        return "; ".join(" ".join(line.split()) for line in last.splitlines())

    def stop(self) -> int:
        """Send SIGTERM, after the grace period SIGKILL. Returns the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(self.settings.grace_s + 5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        code = self.process.wait()
        self._close()
        return code

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Inject a fault: send a signal, by default SIGKILL (SIGSTOP pauses the process, SIGCONT continues it)."""
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait()
            self._close()

    def _close(self) -> None:
        """Close the process's standard input, on which it ends."""
        if self.process.stdin is not None:
            self.process.stdin.close()


class State:
    """The shared state of a cluster: its own server with one user per role, or a given server.

    url        without user where `users` is set
    users      folder of services.launcher.users; None: all roles use the URL's user
    admin_url  URL of a user with all rights; for a given server, the given URL
    server     the cluster's own server, None for a given one
    """

    def __init__(self, url: str, admin_url: str, users: Path | None = None, server: Server | None = None) -> None:
        self.url, self.admin_url, self.users, self.server = url, admin_url, users, server

    @classmethod
    def given(cls, url: str) -> State:
        """Returns the state at a server that is already running."""
        return cls(url, url)

    @classmethod
    @contextlib.contextmanager
    def own(cls, folder: Path) -> Iterator[State]:
        """Run a server that writes every acknowledged write to `folder`/redis, until the end of the block."""
        home = folder / "redis"
        passwords = users.keep(home)
        with Server.start(home, append_only=True, acl_file=home / users.ACL_FILE) as server:
            yield cls(server.url, server.url_of(acl.ADMIN, passwords[acl.ADMIN]), home, server)


class Cluster:
    """A context manager that starts and stops all parts of a cluster. `folder` gets their logs and the guests' disks.

    settings    common to all services; each gets a copy with its addresses, ports and credentials
    first_port  the parts listen on this port and the next ones; 0: on free ports
    """

    def __init__(
        self, folder: Path, settings: Settings, todo: Sequence[Part], state: State, *, first_port: int = 0
    ) -> None:
        self.folder, self.settings, self.state = folder, settings, state
        self.todo = {part.name: part for part in todo}
        self.children: dict[str, Child] = {}
        self._ports = {part.name: first_port and first_port + i for i, part in enumerate(todo)}
        self._tls = Tls.read(settings.tls, "lab") if settings.tls else None

    def __enter__(self) -> Cluster:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, *names: str) -> None:
        """Start the named parts, by default all, and wait until each is SERVING. Raises InputError on a timeout."""
        for name in names or self.todo:
            child = self.children[name] = Child(self.todo[name], self._settings(name), self.folder / f"{name}.log")
            child.wait_serving(self._tls, time.monotonic() + START_S)
            self._ports[name] = int(child.address.rpartition(":")[2])

    def stop(self) -> dict[str, int]:
        """Stop all parts, the last started first. Returns their exit statuses."""
        return {name: self.children[name].stop() for name in reversed(list(self.todo)) if name in self.children}

    def ended(self) -> dict[str, int]:
        """Returns the parts that ended without `stop`, and their exit statuses."""
        codes = {name: child.process.poll() for name, child in self.children.items()}
        return {name: code for name, code in codes.items() if code is not None}

    def address(self, service: str) -> str:
        """Returns the address of the first part of this service, "" if none is started."""
        return self.addresses(service).partition(",")[0]

    def addresses(self, service: str) -> str:
        """Returns the addresses of all parts of this service that were started, with , between."""
        return ",".join(child.address for child in self.children.values() if child.part.service == service)

    @property
    def replicated(self) -> bool:
        """Whether a service that owns groups has several parts."""
        services = [part.service for part in self.todo.values()]
        return any(services.count(name) > 1 for name, role in ROLE_OF_SERVICE.items() if role in OWNING)

    def _settings(self, name: str) -> Settings:
        """Returns the settings of a part: the common ones with its port, its folder and its password."""
        part, common = self.todo[name], self.settings
        # replicas that own groups keep contents where each of them reaches them
        data = self.folder / (part.service if ROLE_OF_SERVICE[part.service] in OWNING else name)
        data.mkdir(parents=True, exist_ok=True)
        secret = str(users.password_file(self.state.users, ROLE_OF_SERVICE[part.service])) if self.state.users else ""
        keeper = str(users.password_file(self.state.users, acl.KEEPER)) if self.state.users else ""
        # the first part gets the given metrics port, the others the next ones
        metrics = common.metrics_port + (list(self.todo).index(name) if common.metrics_port > 0 else 0)
        return replace(
            common,
            instance=name,
            replicated=self.replicated,
            port=self._ports[name],
            metrics_port=metrics,
            data=str(data),
            with_parent=True,
            redis=self.state.url,
            redis_password_file=secret or common.redis_password_file,
            keeper_password_file=(keeper or common.keeper_password_file) if part.service == "lab" else "",
            ultravisor="" if part.service == "ultravisor" else self.addresses("ultravisor"),
            host_mm="" if part.service in ("ultravisor", "host_mm") else self.addresses("host_mm"),
        )
