"""The command line. Bad input ends with exit code 2 and one message; every command explains itself with --help."""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from . import __version__
from .errors import Defect, InputError

_COMMANDS = {
    "check": ("ultrafolio.commands.check", "check_command", "Every interleaving: can it hang, who holds what?"),
    "run": ("ultrafolio.commands.run", "run", "One simulation: its hangs and its measures."),
    "sweep": ("ultrafolio.sweep.command", "sweep", "A plan of many simulations, kept and resumed."),
    "report": ("ultrafolio.report.command", "report", "The table and the HTML file of a sweep."),
    "policies": ("ultrafolio.commands.policies", "policies", "The policies, the kernels, and their choices."),
    "trace": ("ultrafolio.commands.trace", "trace", "Certify a saved counterexample, or what a cluster did."),
    "explore": ("ultrafolio.commands.explore", "explore", "Walk the state graph: in a terminal, on a page, in a file."),
    "rules": ("ultrafolio.commands.rules", "rules", "Every step, property and page state, as Markdown."),
    "reference": ("ultrafolio.commands.reference", "reference", "Every command, option and file format, as Markdown."),
    "judge": ("ultrafolio.commands.judge", "judge", "The rules held against the kernel's own C."),
    "calibrate": ("ultrafolio.commands.calibrate", "calibrate", "What this machine and its kernel say to the model."),
    "doctor": ("ultrafolio.commands.doctor", "doctor", "What is installed, what is missing, what to type."),
    "completion": ("ultrafolio.commands.completion", "completion", "Shell completion for bash, zsh and fish."),
}


class Lazy(click.Group):
    """A group that imports a command's module only when that command is used, so that --help is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
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
    ultrafolio policies                         the policies and kernels, and their choices
    ultrafolio check scenarios/03-virtio.toml --policy whole-folio
    ultrafolio explore scenarios/03-virtio.toml --policy whole-folio --goto counterexample
    ultrafolio trace verify hang.json           a counterexample that check --save wrote, certified again
    ultrafolio trace validate run.stream        what a cluster did, held against the rules
    ultrafolio run --policy whole-folio --order 4 --set rings=2
    ultrafolio sweep sweeps/seed.toml           the answer to the mail, from recordings
    ultrafolio report out/seed                  the table and the HTML file again
    ultrafolio judge --tree linux-source-6.12   the rules held against the kernel's own C
    ultrafolio calibrate --no-kernel            what this machine costs, as a profile for run and sweep
    ultrafolio doctor                           what is installed, what is missing, what to type
    ultrafolio rules                            every step, property and page state, as Markdown
    ultrafolio reference                        every command, option and file format, as Markdown
    ultrafolio completion bash                  a script that completes commands and options

    Exit codes: 0 done or holds, 1 violated or hung, 2 bad input, 3 unknown, 4 a defect of ultrafolio, 130 interrupted.
    """


def _saved(defect: Defect) -> str:
    """Save the report of a defect in this folder, or in the one for temporary files; where it is, in words."""
    text = json.dumps(defect.report, ensure_ascii=False, indent=1) + "\n"
    name = f"ultrafolio-defect-{hashlib.blake2b(text.encode(), digest_size=6).hexdigest()}.json"
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        try:
            (folder / name).write_text(text, encoding="utf-8")
        except OSError:
            continue
        return f"  cause    a defect of ultrafolio: this is no verdict\n  next     report it, with {folder / name}"
    return "  cause    a defect of ultrafolio: this is no verdict; its report could be saved nowhere"


def main(arguments: Sequence[str] | None = None) -> Any:
    """Run the command line; never returns a traceback for an InputError."""
    try:
        sys.exit(cli.main(args=list(arguments) if arguments is not None else None, standalone_mode=False) or 0)
    except InputError as error:
        print(f"ultrafolio: {error}", file=sys.stderr)
        sys.exit(2)
    except Defect as defect:
        print(f"ultrafolio: {defect.what}\n{_saved(defect)}", file=sys.stderr)
        sys.exit(4)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        print("ultrafolio: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
