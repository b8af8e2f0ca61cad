"""Every command of README and of the guides, typed in order in one terminal, ends and prints as written."""

import contextlib
import re
import shutil
import time

import pytest

import specimens
import typed
from typed import ROOT, TEXTS, Step, Terminal
from ultrafolio.engine.load import cache_folder
from ultrafolio.redis_server import Server

NEEDS = {"valgrind": "mine.lackey", "fio": "mine.iolog", "buf": ""}
"""Programs that texts use and that are not ours."""


def all_steps():
    return {name: list(typed.steps((ROOT / name).read_text())) for name in TEXTS}


def commands():
    return [step.text for found in all_steps().values() for step in found if not step.name]


def test_every_document_with_commands_is_typed():
    for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        name = str(path.relative_to(ROOT))
        assert name in TEXTS or not re.search(r"^```(console|sh)$", path.read_text(), re.MULTILINE), name


def test_the_guides_are_in_the_order_of_the_index():
    index = re.findall(r"\]\(([\w-]+)\.md\)", (ROOT / "docs/README.md").read_text())
    guides = [name.removeprefix("docs/").removesuffix(".md") for name in TEXTS[1:]]
    assert guides == [name for name in index if name in guides]


def test_what_is_not_typed_is_in_a_text_and_its_test_is_there():
    for pattern, why in typed.ELSEWHERE.items():
        assert any(re.fullmatch(pattern, command, re.DOTALL) for command in commands()), pattern
        for test in re.findall(r"test_\w+\.py", why):
            assert list((ROOT / "tests").rglob(test)), test
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    for command, short in typed.SHORT.items():
        assert command in commands() and short in contributing


def test_a_block_of_an_unknown_kind_and_a_command_without_its_end_are_told():
    for text, says in (("```sql\nx\n```", "a block of sql"), ("```console\n$ true\n```", "without its exit code")):
        with pytest.raises(ValueError, match=says):
            list(typed.steps(text))


def test_a_command_that_does_not_end_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(typed, "LIMIT_S", 1.0)
    shell = typed.Terminal(tmp_path, {})
    assert shell.type("echo here") == (0, "here\n\n")
    with pytest.raises(AssertionError, match="sleep 600 && true\nthe shell ended"):
        shell.type("sleep 600 && true")


class Reader:
    """Does what a text says, step by step, and checks what each step comes to."""

    def __init__(self, terminal, long):
        self.terminal, self.long, self.ran = terminal, long, 0

    def follow(self, name, found):
        for step in found:
            if step.name:
                (self.terminal.folder / step.name).write_text(step.text)
            elif not self.left_out(step.text):
                code, said = self.typed(step.text)
                told = f"{name}: {step.text}\nexit {code}\n{said}"
                assert "Traceback" not in said, told
                assert code in ((0, 1) if step.code is None else (step.code,)), told
                assert " ".join(step.says.split()) in " ".join(said.split()), told  # long lines are wrapped
                self.ran += 1

    def left_out(self, command):
        missing = any(re.match(rf"{program}\b", command) and not shutil.which(program) for program in NEEDS)
        return typed.elsewhere(command) or missing or (not self.long and re.fullmatch(typed.SLOW, command))

    def typed(self, command):
        """Its exit code and what it printed."""
        command = typed.SHORT.get(command, command)
        if re.fullmatch(typed.SERVES, command):
            return self.served(command)
        if command.startswith("celery "):
            command += " > worker.log 2>&1 &"
        for word, value in typed.GIVEN.items():
            command = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", value, command)
        if " KEY" in command:
            key = re.search(r"keys ok +(\w+)", self.terminal.type("ultrafolio sweep status out/seed")[1])[1]
            command = command.replace("KEY", key)
        if into := re.search(r"> (\S+)(?: 2>&1)? &$", command):
            (self.terminal.folder / into[1]).unlink(missing_ok=True)
            return self.terminal.behind(command, into[1])
        return self.terminal.type(command)

    def served(self, command):
        """The same, of what serves until Ctrl-C."""
        code, said = self.terminal.behind(f"{command} > served 2>&1 &", "served")
        assert code == 0, said
        ended, more = self.terminal.type("kill -INT $!; wait $!")
        assert ended in (0, 130), more
        return 0, (self.terminal.folder / "served").read_text() + more


@pytest.fixture
def kept():
    """What is kept until the terminal has ended."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def terminal(tmp_path, kept):
    with Server.start() as server:
        around = {"REDIS_OF_THE_TEST": server.url, "ULTRAFOLIO_CACHE": str(cache_folder().parent)}
        made = Terminal(tmp_path, around)
        recording = (specimens.INPUTS / "two-processes.perf").read_bytes()
        (tmp_path / "all.perf").write_bytes(re.sub(rb"\b950\b", b"4711", recording))  # a file of the reader's own
        yield made
        made.close()


@pytest.mark.timeout(3600)
def test_every_command_of_readme_and_guides_in_one_terminal(request, kept, terminal):
    if not shutil.which("valgrind"):
        pytest.skip("a guide records with valgrind, which is not installed")
    reader, ports = Reader(terminal, request.config.getoption("--long")), False
    for name, found in all_steps().items():
        if not ports and any(" --port " in step.text for step in found):
            # what the text starts there ends with the terminal
            kept.enter_context(typed.ports_of_the_guides())
            ports = True
        began = time.monotonic(), reader.ran
        reader.follow(name, found)
        print(f"{name}: {reader.ran - began[1]} commands, {time.monotonic() - began[0]:.0f} s")
    assert reader.ran >= 75
    assert "Traceback" not in (terminal.folder / "worker.log").read_text()
    if reader.long:
        assert (terminal.home / "opened").read_text().endswith("/out/seed/report.html\n")


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (Step("ultrafolio check nowhere.toml"), "exit 2"),
        (Step("echo yes", code=0, says="no"), "yes"),
        (Step("python -m services --nope"), "exit 2"),
    ],
)
def test_a_command_that_does_not_do_what_is_written_is_told(step, says, terminal):
    terminal.type(". .venv/bin/activate")
    with pytest.raises(AssertionError, match=says):
        Reader(terminal, False).follow("a text", [step])
