"""Conventions of the shell, for every command: help, examples, exit codes, --json, colours, pipes, completion."""

import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from ultrafolio.cli import cli

ROOT = Path(__file__).parents[2]
PRINTS_JSON_OR_CODE = {"completion", "trace minimise"}
"""Their output is a script, or JSON already."""
SWEEP = {f"sweep {name}" for name in ("run", "status", "why", "attach", "pause", "resume", "revoke")}
"""`sweep` documents exit codes and usage for all its subcommands in one place, its own help: theirs have neither."""


def commands(command=cli, path=()):
    """Every command that does something, with its words."""
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            yield from commands(command.get_command(click.Context(command), name), (*path, name))
    else:
        yield " ".join(path), command


COMMANDS = dict(commands())
run = [sys.executable, "-c", "from ultrafolio.cli import main; main()"]


def ultrafolio(*words, **around):
    return subprocess.run([*run, *words], cwd=ROOT, capture_output=True, text=True, check=False, **around)


def examples(command):
    """The lines of a command's help that can be typed, as words."""
    lines = re.findall(r"^ *(?:eval \"\$\()?(ultrafolio [^|>&)\n]*)", command.help or "", re.MULTILINE)
    return [shlex.split(re.split(r"  +", line.strip())[0], comments=True) for line in lines]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_it_is_how_to_type_it_and_how_it_ends(name):
    command = COMMANDS[name]
    text = command.help or ""
    assert text.strip(), "no help"
    assert all(option.help for option in command.params if isinstance(option, click.Option)), "an option without help"
    if name not in SWEEP:
        assert re.search(r"Exit (codes?|status): 0", text), "exit codes"
        assert any(words[1 : 1 + len(name.split())] == name.split() for words in examples(command)), "an example"


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_the_examples_of_a_help_are_understood(name, monkeypatch):
    """Every option and choice in them exists; nothing is run."""
    monkeypatch.chdir(ROOT)
    for _, *words in examples(COMMANDS[name] if name else cli):
        group, path = cli, []
        while words and isinstance(group, click.Group) and words[0] in group.list_commands(click.Context(group)):
            path.append(words.pop(0))
            group = group.get_command(click.Context(group), path[-1])
        if path and not isinstance(group, click.Group):
            group.make_context(" ".join(path), words)
        assert path, words


def test_the_first_help_shows_every_command_at_work():
    shown = {words[1] for words in examples(cli)}
    assert shown == set(cli.list_commands(click.Context(cli)))


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - PRINTS_JSON_OR_CODE))
def test_json_is_an_option_everywhere(name):
    if name in ("sweep pause", "sweep resume", "sweep revoke"):
        return  # they print one word of acknowledgement: their exit code is the answer
    assert any("--json" in option.opts for option in COMMANDS[name].params)


QUICK = [
    ["policies"], ["rules"], ["reference"], ["doctor"],
    ["check", "scenarios/03-virtio.toml", "--policy", "whole-folio"],
    ["calibrate", "--seconds", "0.1", "--folder", "{tmp}"],
    ["run", "scenarios/03-virtio.toml", "--policy", "per-page", "--duration-us", "100"],
]  # fmt: skip


@pytest.mark.parametrize("words", QUICK, ids=lambda words: words[0])
def test_a_pipe_gets_plain_text_json_is_json_and_stderr_is_quiet(words, tmp_path):
    words = [word.format(tmp=tmp_path) for word in words]
    plain = ultrafolio(*words)
    assert plain.returncode in (0, 1) and plain.stdout and plain.stderr == "", plain.stderr
    assert "\x1b" not in plain.stdout and "\r" not in plain.stdout
    for line in ultrafolio(*words, "--json").stdout.splitlines():
        assert isinstance(json.loads(line), dict)


COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7])(?:;\d+)*m")


def on_terminal(*words, **variables):
    """What a command writes to a terminal."""
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    ours, its = pty.openpty()
    with subprocess.Popen(
        [*run, *words],
        cwd=ROOT,
        stdin=its,
        stdout=its,
        stderr=its,
        env=environment | {"TERM": "xterm-256color"} | variables,
    ) as process:
        os.close(its)
        seen = b""
        try:
            while part := os.read(ours, 65536):
                seen += part
        except OSError:  # Linux says EIO when the last writer is gone
            pass
        finally:
            os.close(ours)
    assert process.returncode == 0
    return seen.decode()


def test_colours_are_for_terminals():
    assert COLOUR.search(on_terminal("doctor")), "on a terminal there are colours, or this test shows nothing"


STYLED = {
    "doctor": ["doctor"], "policies": ["policies"], "run": ["run", "--duration-us", "100"],
    "check": ["check", "03-virtio", "--policy", "split", "--policy", "per-page"],
    "vary": ["check", "03-virtio", "--policy", "split", "--vary", "vcpus=1..2"],
    "sweep": ["sweep", "{plan}", "-o", "{store}", "--workers", "0", "--no-report"], "report": ["report", "{store}"],
    "calibrate": ["calibrate", "--seconds", "0.1", "--folder", "{tmp}", "--no-kernel"],
}  # fmt: skip
"""Commands that write tables, bars or styles."""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Names that stand in STYLED: a plan, the folder for its store."""
    tmp = tmp_path_factory.mktemp("styled")
    (tmp / "plan.toml").write_text(
        'title = "two policies and a name that is longer than most"\n[fixed]\n'
        'duration_us = 100\n[grid]\npolicy = ["whole-folio-literal", "split"]\n'
        'order = "0-9"\n'
    )
    return {"tmp": tmp, "plan": tmp / "plan.toml", "store": tmp / "store"}


@pytest.mark.parametrize("name", STYLED)
def test_no_color_leaves_no_escape(name, written):
    words = [word.format(**written) for word in STYLED[name]]
    assert "\x1b" not in on_terminal(*words, NO_COLOR="1")


@pytest.mark.parametrize("name", sorted(set(STYLED) - {"sweep"}))
def test_a_pipe_and_a_narrow_terminal_cut_nothing(name, written, tmp_path, monkeypatch):
    """The words are those of a pipe, whatever the width of the terminal; in the pipe, no line is wrapped or cut."""
    if name == "doctor":  # it says whether the rules are compiled, and another test may compile them meanwhile
        monkeypatch.setenv("ULTRAFOLIO_CACHE", str(tmp_path))
    words = [word.format(**written) for word in STYLED[name]]
    if name == "report" and not written["store"].exists():
        ultrafolio(*[word.format(**written) for word in STYLED["sweep"]])
    piped = ultrafolio(*words)
    assert piped.returncode == 0 and "\x1b" not in piped.stdout
    if name == "calibrate":  # it measures other figures each time
        assert "…" not in piped.stdout.replace(" … ", " ")
        return
    for columns in ("60", "200"):
        seen = on_terminal(*words, NO_COLOR="1", COLUMNS=columns)
        shown, wanted = (re.sub(r"[\s─-╿]+", "", text) for text in (seen, piped.stdout))
        assert sorted(shown) == sorted(wanted), (columns, seen)


def test_a_reader_that_leaves_early_hears_no_complaint():
    line = " ".join(map(shlex.quote, run))
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line} rules | head -1"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == ("# The rules", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_asks_this_program(shell):
    done = ultrafolio("completion", shell)
    assert done.returncode == 0 and f"_ULTRAFOLIO_COMPLETE={shell}_complete" in done.stdout and done.stderr == ""


def test_bash_completes_commands_options_and_names(tmp_path):
    """As the shell does it: the script is evaluated, and its function is called with the words typed so far."""
    (tmp_path / "ultrafolio").symlink_to(Path(sys.executable).with_name("ultrafolio"))
    script = """eval "$(ultrafolio completion bash)"
        COMP_WORDS=(ultrafolio $1); COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 )); _ultrafolio_completion ultrafolio
        echo "${COMPREPLY[@]}" """
    policies = {"whole-folio", "whole-folio-literal"}
    for typed, completed in (
        ("cal", {"calibrate"}),
        ("tr", {"trace"}),
        ("trace ver", {"verify"}),
        ("check --expo", {"--export"}),
        ("completion z", {"zsh"}),
        ("check --policy who", policies),
        ("explore --policy who", policies),
        ("run --policy who", policies),
        ("run --set ring_p", {"ring_pages="}),
        ("doctor prom", {"prometheus"}),
        ("check 03", {"03-virtio"}),
        ("explore 03", {"03-virtio"}),
        ("run 03", {"03-virtio"}),
        ("sweep se", {"seed"}),
        ("sweep run se", {"seed"}),
    ):
        done = subprocess.run(
            ["bash", "-c", script, "bash", typed],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        )
        assert set(done.stdout.split()) == completed, (typed, done.stdout, done.stderr)
