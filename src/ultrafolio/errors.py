"""The exception for bad input, InputError, and that for a contradiction within ultrafolio, Defect."""

from __future__ import annotations

import difflib
import importlib.util
import shutil
import sys
from collections.abc import Iterable


class InputError(Exception):
    """Bad input from the user. The command line prints it without a traceback and exits with 2.

    what     what is wrong and where, e.g. ``plan.toml: [grid] order``
    value    the offending value, as the user wrote it
    allowed  what is allowed there
    cause    the likely cause, one sentence
    then     the command to run next
    """

    def __init__(self, what: str, *, value: object = None, allowed: str = "", cause: str = "", then: str = "") -> None:
        self.what, self.value, self.allowed, self.cause, self.then = what, value, allowed, cause, then
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [self.what]
        if self.value is not None:
            text = self.value if isinstance(self.value, str) else repr(self.value)
            lines.append(f"  value    {text if len(text) <= 200 else text[:197] + '...'}")
        if self.allowed:
            lines.append(f"  allowed  {self.allowed}")
        if self.cause:
            lines.append(f"  cause    {self.cause}")
        if self.then:
            lines.append(f"  next     {self.then}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.what, self.value, self.allowed, self.cause, self.then))


EXTRAS = {"redis": "cluster", "grpc": "cluster", "cryptography": "cluster", "prometheus_client": "cluster",
          "structlog": "cluster", "celery": "workers", "kombu": "workers", "jinja2": "report", "matplotlib": "report",
          "starlette": "web", "uvicorn": "web", "opentelemetry": "otel", "simpy": "bench",
          "z3": "prove"}  # fmt: skip
"""Optional package -> the extra of this package that installs it."""


def install(extra: str = "") -> str:
    """The command that adds an extra ("": the core) to the environment that runs: by its pip, else by uv, else by
    another Python's pip (an environment of uv, or one made without pip, has none)."""
    wanted = f"'ultrafolio[{extra}]'" if extra else "ultrafolio"
    if importlib.util.find_spec("pip"):
        return f"{sys.executable} -m pip install {wanted}"
    if shutil.which("uv"):
        return f"uv pip install --python {sys.executable} {wanted}"
    return f"python3 -m pip --python {sys.executable} install {wanted}"


def missing(package: str) -> InputError:
    """The error for a package that is not installed, with its extra and the command that installs it."""
    extra = EXTRAS.get(package, "")
    return InputError(
        "a package is not installed",
        value=package,
        allowed=f"the extra `{extra}` has it" if extra else "ultrafolio has it",
        cause="it is optional" if extra else "the installation is not complete",
        then=install(extra),
    )


def need(*packages: str) -> None:
    """Raise InputError for the first of these packages that is not installed."""
    for package in packages:
        there = sys.modules[package] if package in sys.modules else importlib.util.find_spec(package)
        if there is None:
            raise missing(package)


class Defect(Exception):
    """A contradiction within ultrafolio, for instance a verdict whose certificate fails. The command line saves the
    report to a file, prints one message and exits with 4.

    what    what is wrong
    report  the data for an investigation, as JSON
    """

    def __init__(self, what: str, report: dict[str, object]) -> None:
        super().__init__(what)
        self.what, self.report = what, report

    def __reduce__(self) -> tuple[object, ...]:
        return Defect, (self.what, self.report)


def _rebuild(what: str, value: object, allowed: str, cause: str, then: str) -> InputError:
    """Returns the error of these parts, for pickle."""
    return InputError(what, value=value, allowed=allowed, cause=cause, then=then)


def one_of(what: str, value: object, choices: Iterable[object], *, then: str = "") -> InputError:
    """The error for a value outside a fixed set; names the nearest member if one is similar."""
    names = [str(c) for c in choices]
    near = difflib.get_close_matches(str(value), names, n=1)
    cause = f"did you mean {near[0]!r}?" if near else ""
    return InputError(what, value=value, allowed=", ".join(names), cause=cause, then=then)
