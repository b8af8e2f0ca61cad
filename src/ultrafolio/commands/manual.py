"""The manual page ultrafolio(1), made from the help of the commands."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

import click

from ultrafolio.version import __version__


def page(root: click.Command, commands: Iterable[tuple[str, click.Command]]) -> str:
    """The page in man(7) macros: the root's help, then every command with its options."""
    lines = [f'.TH ULTRAFOLIO 1 "" "ultrafolio {__version__}" "User Commands"', ".SH NAME",
             "ultrafolio \\- which folio policy hangs a secure guest, who holds what, and what does each cost",
             ".SH SYNOPSIS", ".B ultrafolio", ".I COMMAND", "[OPTIONS] [ARGUMENTS]", ".SH DESCRIPTION",
             *_text(root.help or ""), ".SH COMMANDS"]  # fmt: skip
    for name, command in commands:
        usage = " ".join(command.collect_usage_pieces(click.Context(command, info_name=name)))
        lines += [f".SS {_escaped(f'{name} {usage}'.strip())}", *_text(command.help or "")]
        for option in command.params:
            if isinstance(option, click.Option):
                metavar = "" if option.is_flag else " " + option.make_metavar(click.Context(command))
                names = ", ".join([*option.opts, *option.secondary_opts]) + metavar
                lines += [".TP", f".B {_escaped(names)}", *_text(option.help or "")]
    lines += [".SH SEE ALSO", "The fields of all files:", '.BR "ultrafolio reference" .']
    return "\n".join(lines) + "\n"


def _text(text: str) -> list[str]:
    """A help text as roff: paragraphs are filled, those marked with \\b keep their lines."""
    made: list[str] = []
    for number, paragraph in enumerate(inspect.cleandoc(text).split("\n\n")):
        lines = paragraph.split("\n")
        made += [".PP"] if number else []
        if lines[0].strip() == "\b":
            made += [".nf", *map(_escaped, lines[1:]), ".fi"]
        else:
            made.append(_escaped(" ".join(" ".join(lines).split())))
    return made


def _escaped(text: str) -> str:
    """A line of roff that prints as `text`."""
    made = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + made if made.startswith((".", "'")) else made
