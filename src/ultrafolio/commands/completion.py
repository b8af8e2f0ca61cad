"""`ultrafolio completion`: scripts with which a shell completes commands, options, names and files."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem, get_completion_class

from ultrafolio.errors import InputError

SHELLS = ("bash", "zsh", "fish")
Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def among(names: Callable[[], Iterable[str]]) -> Completer:
    """A function for `shell_complete`: completes from `names`, or with files if no name matches."""

    def complete(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
        found = [CompletionItem(name) for name in names() if name.startswith(begun)]
        return found or [CompletionItem(begun, type="file")]

    return complete


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for SHELL. The script calls this program, so it stays up to date.

    \b
    eval "$(ultrafolio completion bash)"                      in ~/.bashrc
    eval "$(ultrafolio completion zsh)"                       in ~/.zshrc, after compinit
    ultrafolio completion fish > ~/.config/fish/completions/ultrafolio.fish

    Exit codes: 0 done, 2 bad input.
    """
    made = get_completion_class(shell)
    if made is None or (shell == "bash" and not shutil.which("bash")):
        raise InputError(
            f"no completion for {shell} here",
            allowed=", ".join(SHELLS),
            cause="it asks the shell for its version, and the shell is not installed",
        )
    click.echo(made(context.find_root().command, {}, "ultrafolio", "_ULTRAFOLIO_COMPLETE").source())
