"""Settings of a service: one frozen record, read from ULTRAFOLIO_* environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from ultrafolio.errors import InputError, one_of
from ultrafolio.state.acl import KEEPER
from ultrafolio.web.pages import is_loopback

PREFIX = "ULTRAFOLIO_"
# read in engine/load.py
LIBRARY = ("ULTRAFOLIO_CACHE",)
LEVELS = ("debug", "info", "warning", "error")


def _setting(default: Any, meaning: str, *, low: float = 0, high: float = 0, choices: tuple[str, ...] = ()) -> Any:
    """Returns a field of Settings with its meaning and what values it takes."""
    return field(default=default, metadata={"meaning": meaning, "low": low, "high": high, "choices": choices})


@dataclass(frozen=True, slots=True)
class Settings:
    """One field per variable: field `port` is ULTRAFOLIO_PORT. `python -m services --help` prints this table."""

    instance: str = _setting("", "name of this replica in logs and leases; empty: the service and its pid")
    replicated: bool = _setting(
        False,
        "1: several ultravisors and host MMs share the groups, each owned by one at a time; all of a service have "
        "the same folder, and names of their own",
    )
    host: str = _setting("127.0.0.1", "address to listen on; 0.0.0.0 in a container")
    port: int = _setting(0, "gRPC port; 0: a free one", low=0, high=65535)
    metrics_port: int = _setting(0, "Prometheus port; 0: a free one, -1: none", low=-1, high=65535)
    web_port: int = _setting(0, "the lab's page for a browser; 0: a free port, -1: none", low=-1, high=65535)
    hosts: str = _setting("", "names by which browsers reach the page beside loopback's, with , between")
    redis: str = _setting("", "redis://[user:password@]host:port/0 or unix://[user:password@]/path; empty: none given")
    redis_password: str = _setting("", "password of this service's Redis user, where the URL has none")
    redis_password_file: str = _setting("", "file that holds that password (a container's secret)")
    keeper_password_file: str = _setting(
        "",
        "file with the password of the Redis user `keeper`, for the lab, which "
        "then cuts streams to a window, and deletes groups on request",
    )
    tls: str = _setting("", "folder of services.launcher.certificates; empty: no TLS, and identities are unverified")
    ultravisor: str = _setting("", "address of the ultravisor, host:port; of several replicas, with , between")
    host_mm: str = _setting("", "address of the host MM, host:port; of several replicas, with , between")
    data: str = _setting("", "folder for the files a service keeps (a guest's disk); empty: a temporary one")
    files: str = _setting("", "folders of recordings and profiles that plans may name, with : between; empty: shipped")
    threads: int = _setting(128, "calls at work at a time; more are queued", low=2, high=4096)
    waiting: int = _setting(8192, "calls that wait at a time, without a thread; more are refused", low=1, high=1 << 20)
    max_message_mib: int = _setting(16, "largest message, MiB", low=1, high=1024)
    max_call_s: float = _setting(600.0, "longest call, seconds, deadline or none", low=0.1, high=86400)
    keepalive_s: float = _setting(
        20.0, "seconds of silence until a client is asked, and until it must answer", low=0.1, high=3600
    )
    grace_s: float = _setting(5.0, "seconds that calls in flight get after SIGTERM", low=0, high=600)
    health_s: float = _setting(1.0, "seconds between two looks at the service's own health", low=0.01, high=60)
    log: str = _setting("info", "least level logged; debug: every call", choices=LEVELS)
    reflection: bool = _setting(True, "0: no gRPC reflection")
    otlp: str = _setting("", "OpenTelemetry collector, http://host:4318; empty: no traces")
    with_parent: bool = _setting(False, "1: stop when standard input closes, which is when the launcher ends")

    @property
    def replica(self) -> str:
        """The name of this process among the replicas that share its groups; "" if it is the only one. Raises
        InputError if it has none, or is without a folder that the others reach."""
        if not self.replicated:
            return ""
        if not self.instance or not self.data:
            raise InputError(
                "ULTRAFOLIO_REPLICATED=1 needs a name and a folder",
                value=f"ULTRAFOLIO_INSTANCE={self.instance} ULTRAFOLIO_DATA={self.data}",
                allowed="a name that no other replica has, and the folder that all replicas of the service have",
                then="python -m services --replicas 2 gives both",
            )
        return self.instance

    @property
    def loopback(self) -> bool:
        return is_loopback(self.host)

    def redis_url(self, role: str) -> str:
        """Returns the URL of the shared state for the Redis user `role`. Raises InputError if none is set."""
        if not self.redis:
            raise InputError(
                "ULTRAFOLIO_REDIS: no shared state is given",
                allowed="redis://host:port/0 or unix:///path",
                cause="a service started alone has no server of its own",
                then="python -m services starts one, and prints its URL",
            )
        parts = urlsplit(self.redis)
        password = self.redis_password or _secret(self.redis_password_file)
        if parts.username or not password:
            return self.redis
        netloc = f"{role}:{quote(password, safe='')}@{parts.netloc}"
        return urlunsplit((parts.scheme, netloc, parts.path, parts.query, parts.fragment))

    def keeper_url(self) -> str:
        """Returns the URL of the shared state for the user `keeper`, "" if this service has no password for it."""
        if urlsplit(self.redis).username or not (self.redis_password or self.redis_password_file):
            # all roles use one Redis user
            return self.redis
        if not self.keeper_password_file:
            return ""
        return replace(self, redis_password="", redis_password_file=self.keeper_password_file).redis_url(KEEPER)

    def environment(self) -> dict[str, str]:
        """Returns the environment variables from which `read` makes these settings, without defaults."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return {PREFIX + name.upper(): str(int(v) if isinstance(v, bool) else v) for name, v in values.items()}


def read(environment: Mapping[str, str] | None = None) -> Settings:
    """Returns the settings in the environment. Raises InputError for an unknown ULTRAFOLIO_ variable or a bad value."""
    environment = os.environ if environment is None else environment
    known = {PREFIX + f.name.upper(): f for f in fields(Settings)}
    values = {}
    for name, text in environment.items():
        if name.startswith(PREFIX) and name not in LIBRARY:
            if name not in known:
                raise one_of(f"environment: unknown variable {name}", name, known, then="python -m services --help")
            values[known[name].name] = _value(name, text, known[name])
    return Settings(**values)


def table() -> list[tuple[str, str, str]]:
    """Returns (variable, default, meaning) per setting, for help texts and guides."""
    return [
        (
            PREFIX + f.name.upper(),
            str(int(f.default) if isinstance(f.default, bool) else f.default),
            f.metadata["meaning"],
        )
        for f in fields(Settings)
    ]


def _value(name: str, text: str, setting: Any) -> Any:
    """Returns a variable's text as a value of its setting's type. Raises InputError if it is not allowed."""
    kind = type(setting.default)
    if setting.metadata["choices"]:
        if text not in setting.metadata["choices"]:
            raise one_of(name, text, setting.metadata["choices"])
        return text
    if kind is str:
        return text
    if kind is bool:
        if text not in ("0", "1"):
            raise InputError(name, value=text, allowed="0 or 1")
        return text == "1"
    low, high = setting.metadata["low"], setting.metadata["high"]
    try:
        number = kind(text)
    except ValueError:
        number = None
    if number is None or not low <= number <= high:
        a = "an integer" if kind is int else "a number"
        raise InputError(name, value=text, allowed=f"{a} from {low:g} to {high:g}")
    return number


def _secret(path: str) -> str:
    """Returns the password in a file, "" for no file. Raises InputError if the file cannot be read."""
    if not path:
        return ""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InputError(
            f"{PREFIX}REDIS_PASSWORD_FILE: {path} cannot be read",
            value=error.strerror or str(error),
            allowed="a readable file with one password",
        ) from None
