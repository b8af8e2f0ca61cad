"""The command line. Bad input ends with exit code 2 and one message; every command has --help."""

from __future__ import annotations

import errno
import hashlib
import importlib
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from .errors import Defect, InputError, missing, one_of
from .version import __version__

_COMMANDS = {
    "check": ("ultrafolio.commands.check", "check_command", "Every interleaving: can it hang, who holds what?"),
    "run": ("ultrafolio.commands.run", "run", "One simulation: its hangs and its measures."),
    "sweep": ("ultrafolio.commands.sweep", "sweep", "A plan of many simulations, kept and resumed."),
    "report": ("ultrafolio.commands.report", "report", "The table and the HTML file of a sweep."),
    "prove": ("ultrafolio.commands.prove", "prove_command", "Safety for every size, by induction over the rules."),
    "search": ("ultrafolio.commands.search", "search", "Every policy of a design: which pass, and which choices fail."),
    "policies": ("ultrafolio.commands.policies", "policies", "The policies, the kernels, and their choices."),
    "scenario": ("ultrafolio.commands.scenario", "scenario_command", "The scenario that a name by pattern means."),
    "trace": ("ultrafolio.commands.trace", "trace", "Certify a saved counterexample, or what a cluster did."),
    "explore": ("ultrafolio.commands.explore", "explore", "Walk the state graph: in a terminal, on a page, in a file."),
    "export": ("ultrafolio.commands.export", "export", "A page that checks in a browser; the scenario of a link."),
    "selftest": ("ultrafolio.commands.selftest", "selftest", "A story of guest_memfd as a C test for the kernel."),
    "rules": ("ultrafolio.commands.rules", "rules", "Every step, property and page state, as Markdown."),
    "reference": ("ultrafolio.commands.reference", "reference", "Every command, option and file format, as Markdown."),
    "judge": ("ultrafolio.commands.judge", "judge", "The rules held against the kernel's own C."),
    "calibrate": ("ultrafolio.commands.calibrate", "calibrate", "What this machine and its kernel say to the model."),
    "init": ("ultrafolio.commands.init", "init", "The shipped scenarios, plans and recordings, to edit."),
    "doctor": ("ultrafolio.commands.doctor", "doctor", "What is installed, what is missing, what to type."),
    "completion": ("ultrafolio.commands.completion", "completion", "Shell completion for bash, zsh and fish."),
}


class Lazy(click.Group):
    """A group that imports a command's module only when that command is used, so that --help is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            raise one_of("unknown command", name, _COMMANDS, then="ultrafolio --help")
        module, attribute, _ = _COMMANDS[name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _COMMANDS.items()])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ultrafolio")
def cli() -> None:
    """A laboratory for secure-guest memory: which folio policy hangs, who holds what, and what does each cost?

    \b
    ultrafolio prove --policy per-page          safety for any number of pages, vCPUs, devices and guests
    ultrafolio search --from linux-7.0          which of all policies pass, and what must change
    ultrafolio policies                         the policies and kernels, and their choices
    ultrafolio check scenarios/03-virtio.toml --policy whole-folio
    ultrafolio scenario LPIN.early+neigh        the scenario that a name by pattern means, as a file
    ultrafolio explore scenarios/03-virtio.toml --policy whole-folio --goto counterexample
    ultrafolio trace verify hang.json           a counterexample that check --save wrote, certified again
    ultrafolio trace validate run.stream        what a cluster did, held against the rules
    ultrafolio run --policy whole-folio --order 4 --set rings=2
    ultrafolio sweep sweeps/seed.toml           the answer to the mail, from recordings
    ultrafolio report out/seed                  the table and the HTML file again
    ultrafolio export --page -o check.html      a page that checks a scenario in the reader's browser
    ultrafolio selftest g04-one-of-four-pinned --policy gmem-7.4 -o story.c    a story as a test for the kernel
    ultrafolio judge --tree linux-source-6.12   the rules held against the kernel's own C
    ultrafolio calibrate --no-kernel            what this machine costs, as a profile for run and sweep
    ultrafolio init my-lab                      the shipped scenarios, plans and recordings, to edit
    ultrafolio doctor                           what is installed, what is missing, what to type
    ultrafolio rules                            every step, property and page state, as Markdown
    ultrafolio reference                        every command, option and file format, as Markdown
    ultrafolio completion bash                  a script that completes commands and options

    Exit codes: 0 done or holds, 1 violated or hung, 2 bad input, 3 unknown, 4 a defect of ultrafolio, 130 interrupted.
    """


def _defect_of(error: BaseException) -> Defect:
    """The Defect for an unexpected exception, with its traceback and the command line."""
    report: dict[str, object] = {
        "format": "ultrafolio-defect", "version": 1, "made_by": f"ultrafolio {__version__}", "typed": sys.argv,
        "python": sys.version, "traceback": traceback.format_exception(error),
    }  # fmt: skip
    what = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return Defect(f"ended unexpectedly: {what}", report)


def _environment_error(error: BaseException) -> str:
    """The message for an error of the environment: a missing package, a full disk, no memory, an encoding that lacks a
    character; "" for any other error."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        if not package.startswith(("ultrafolio", "services", "workers")):
            return str(missing(package))
    if isinstance(error, UnicodeEncodeError):
        return str(
            InputError(
                "this output cannot be written",
                value=f"encoding {error.encoding}",
                allowed="UTF-8",
                cause="the locale is of 8 bits",
                then="export PYTHONUTF8=1, and the same again",
            )
        )
    if isinstance(error, MemoryError):
        return str(
            InputError(
                "there is not enough memory",
                cause="what was asked for is too large for this machine",
                then="the same with less: fewer cells, pages or states",
            )
        )
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{error.filename}: " if error.filename else "output: "
        return str(
            InputError(
                f"{where}cannot be read or written",
                value=error.strerror,
                allowed="a place of the right kind, with free space",
                cause=_CAUSES.get(error.errno, "the system refuses it"),
                then="name another place, or make room; then the same again",
            )
        )
    return ""


_CAUSES = {
    errno.ENOSPC: "the disk is full", errno.EISDIR: "a folder stands where a file belongs",
    errno.ENOTDIR: "a file stands where a folder belongs", errno.EACCES: "it is somebody else's",
    errno.EROFS: "the file system is read-only", errno.ENOENT: "a folder on the way does not exist",
}  # fmt: skip


def _save_report(defect: Defect) -> str:
    """Save the report of a defect in this folder, or in that for temporary files. Returns a sentence with its path."""
    text = json.dumps(defect.report, ensure_ascii=False, indent=1, default=repr) + "\n"
    name = f"ultrafolio-defect-{hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}.json"
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        try:
            (folder / name).write_text(text, encoding="utf-8")
        except OSError:
            continue
        return f"  cause    a defect of ultrafolio: this is no verdict\n  next     report it, with {folder / name}"
    return "  cause    a defect of ultrafolio: this is no verdict; its report could be saved nowhere"


def _print_error(error: BaseException) -> int:
    """Print the error that ended a command on stderr. Returns the exit code."""
    if isinstance(error, click.ClickException):
        error.show()
        return 2
    if isinstance(error, click.Abort | KeyboardInterrupt):
        print("ultrafolio: interrupted", file=sys.stderr)
        return 130
    if isinstance(error, BrokenPipeError):
        # the reader of our output is gone: Python must not flush to it at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    said = str(error) if isinstance(error, InputError) else _environment_error(error)
    if said:
        print(f"ultrafolio: {said}", file=sys.stderr)
        return 2
    defect = error if isinstance(error, Defect) else _defect_of(error)
    print(f"ultrafolio: {defect.what}\n{_save_report(defect)}", file=sys.stderr)
    return 4


def main(arguments: Sequence[str] | None = None) -> Any:
    """Run the command line. Each exception ends with a message and an exit code of the help; never with 1, which is a
    command's result."""
    try:
        code = cli.main(args=list(arguments) if arguments is not None else None, standalone_mode=False) or 0
        sys.stdout.flush()
    except Exception as error:
        code = _print_error(error)
    except KeyboardInterrupt as error:
        code = _print_error(error)
    _close(sys.stdout)
    sys.exit(code)


def _close(stream: Any) -> None:
    """Flush a stream. If that fails, close it: the error was printed, and Python must not print it again at its end."""
    try:
        stream.flush()
    except (OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
