"""The guides and the README do what they say: every command in them runs, and ends and prints as written."""

import functools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ultrafolio.cli import main
from ultrafolio.engine.load import cache_folder

ROOT = Path(__file__).parents[2]
GUIDES = ("read-a-counterexample", "write-a-scenario", "write-a-policy", "bring-your-own-trace")
"""The guides that need no cluster, in the order of docs/README.md; the others have tests of their own."""
MARK = "the exit code is"


class Terminal:
    """One shell in a folder like a fresh checkout, with a home of its own; what is typed in it stays in force."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("scenarios", "sweeps", "traces", "profiles", "examples", "services", "README.md"):
            (folder / name).symlink_to(ROOT / name)
        (folder / ".venv").symlink_to(sys.prefix)
        (folder / "home").mkdir()
        around = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "ULTRAFOLIO_REDIS")}
        around |= {"HOME": str(folder / "home"), "ULTRAFOLIO_CACHE": str(cache_folder().parent)}
        self._shell = subprocess.Popen(
            ["bash", "--norc"],
            cwd=folder,
            env=around,
            stdin=subprocess.PIPE,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def type(self, command):
        """The exit code of a command, and all that it printed."""
        self._shell.stdin.write(f"{{ {command}\n}} </dev/null\nprintf '\\n%s %s\\n' '{MARK}' $?\n")
        self._shell.stdin.flush()
        said = ""
        for line in self._shell.stdout:
            if line.startswith(MARK):
                return int(line.removeprefix(MARK)), said
            said += line
        raise AssertionError(f"the shell ended: {said}")

    def close(self):
        self._shell.stdin.close()
        self._shell.stdout.read()
        self._shell.wait()
        self._shell.stdout.close()


@pytest.fixture(scope="module")
def terminal(tmp_path_factory):
    made = Terminal(tmp_path_factory.mktemp("terminal"))
    assert made.type(". .venv/bin/activate")[0] == 0, "README: the line that activates the environment"
    yield made
    made.close()


def follow(text, terminal):
    """Write every TOML file of a text and type every command of it, in order; how many commands."""
    ran = 0
    for found in re.finditer(r"```(toml|console)\n(.*?)```", text, re.DOTALL):
        kind, block = found.groups()
        if kind == "toml":
            (terminal.folder / re.findall(r"`([\w-]+\.toml)`", text[: found.start()])[-1]).write_text(block)
            continue
        for command, code, says in re.findall(r"^\$ (.+)\nexit (\d): (.+)$", block, re.MULTILINE):
            ended, said = terminal.type(command)
            assert "Traceback" not in said, said
            words, wanted = " ".join(said.split()), " ".join(says.split())  # long lines are wrapped
            assert (ended, wanted in words) == (int(code), True), f"{command}\n{said}"
            ran += 1
    assert ran == len(re.findall(r"^\$ ", text, re.MULTILINE)), "a command without its exit code"
    return ran


def test_the_readme_activates_the_environment_that_it_made():
    text = (ROOT / "README.md").read_text()
    assert text.index("./uf sweep") < text.index(". .venv/bin/activate") < text.index("| question | command |")


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_does_what_it_says_in_the_terminal_of_those_before_it(guide, terminal):
    if guide == "bring-your-own-trace" and not shutil.which("valgrind"):
        pytest.skip("the guide records with valgrind, which is not installed")
    assert follow((ROOT / "docs" / f"{guide}.md").read_text(), terminal) >= 5


def test_every_guide_with_commands_is_followed_by_a_test():
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for guide in (ROOT / "docs").glob("*.md"):
        if re.search(r"^\$ ", guide.read_text(), re.MULTILINE):
            assert guide.stem in GUIDES or f"docs/{guide.name}" in tests, guide.name


SLOW = r"sweeps?[ /]seed|out/seed"
ELSEWHERE = r"redis:|judge"
"""Of README's commands: those that need the whole sweep (--long runs them), and those that tests of their own run."""


def readme_commands():
    """Every `ultrafolio …` of README in order, as typed."""
    found = re.findall(r"`(ultrafolio [^`]+)`", (ROOT / "README.md").read_text())
    return [c for c in dict.fromkeys(found) if not re.search(ELSEWHERE, c)]


def test_the_commands_of_the_readme_run_in_one_terminal_in_order(request, terminal):
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    block = next(block for block in blocks if "mine" in block)
    (terminal.folder / "mine.toml").write_text(block)
    known = {"FILE": "traces/folios.mthp", "DIR": "another-lab"}
    ran, key = 0, ""
    for command in readme_commands():
        if re.search(SLOW, command) and not request.config.getoption("--long"):
            continue
        if " KEY" in command:
            key = re.search(r"keys ok +(\w+)", terminal.type("ultrafolio sweep status out/seed")[1])[1]
        command = command.replace(" KEY", f" {key}")
        for word, value in known.items():
            command = re.sub(rf"\b{word}\b", value, command)
        code, said = terminal.type(command)
        assert code in (0, 1) and said and "Traceback" not in said, f"{command}\n{said}"
        ran += 1
    assert ran >= 15


@pytest.fixture
def copy(tmp_path):
    """A folder like a checkout, with the command in bin/."""
    for name in ("scenarios", "sweeps", "traces"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ultrafolio").symlink_to(Path(sys.executable).with_name("ultrafolio"))
    return tmp_path


def shell(command, folder):
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command, shell=True, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )


def test_shipped_files_are_found_by_name_from_any_folder(tmp_path):
    """As installed: the names of README's second way, in a folder that has none of the files."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "ultrafolio").symlink_to(Path(sys.executable).with_name("ultrafolio"))
    assert shell("ultrafolio check 03-virtio --policy per-page", tmp_path).returncode == 0
    assert shell("ultrafolio explore 03-virtio --policy per-page --path 1", tmp_path).returncode == 0
    assert (
        shell(
            "ultrafolio init my-lab && cd my-lab && ultrafolio check scenarios/03-virtio.toml --policy per-page",
            tmp_path,
        ).returncode
        == 0
    )
    assert {path.name for path in (tmp_path / "my-lab").iterdir()} == {"scenarios", "sweeps", "profiles", "traces"}
    again = shell("ultrafolio init my-lab", tmp_path)
    assert again.returncode == 2 and "not empty" in again.stderr


def test_links_lead_somewhere():
    texts = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("*/README.md")]
    for file in texts:
        for target in re.findall(r"\]\(([^)#]+)\)", file.read_text()):
            if not target.startswith("http"):
                assert (file.parent / target).exists(), f"{file.name}: {target}"


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("man/man1/ultrafolio.1", ["reference", "--man"]),
        ("bash-completion/completions/ultrafolio", ["completion", "bash"]),
        ("zsh/site-functions/_ultrafolio", ["completion", "zsh"]),
        ("fish/vendor_completions.d/ultrafolio.fish", ["completion", "fish"]),
    ],
)
def test_what_the_wheel_installs_for_shells_and_man_is_what_the_commands_print(file, words, capsys):
    with pytest.raises(SystemExit):
        main(words)
    printed = capsys.readouterr().out
    assert (ROOT / "share" / file).read_text() == printed, f"ultrafolio {' '.join(words)} > share/{file}"


@pytest.mark.slow
def test_an_installation_has_all_that_the_second_way_of_the_readme_promises(tmp_path):
    """`pip install` of the checkout into a new environment; then from an empty folder."""
    run = functools.partial(subprocess.run, check=True, capture_output=True, text=True, cwd=tmp_path)
    run([sys.executable, "-m", "venv", "fresh"])
    run(["fresh/bin/pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), str(ROOT)])
    (tmp_path / "empty").mkdir()
    around = {**os.environ, "HOME": str(tmp_path), "ULTRAFOLIO_CACHE": str(cache_folder().parent)}
    around.pop("PYTHONPATH", None)
    for words, code, says in (
        (["check", "03-virtio"], 1, "hangs"),
        (["check", "--all", "--safety"], 1, "03-virtio"),
        (["sweep", "seed", "--limit", "20"], 0, "20 of 9000 cells"),
        (["reference", "scenario"], 0, "`pinned_shared`"),
    ):
        done = run([str(tmp_path / "fresh/bin/ultrafolio"), *words], cwd=tmp_path / "empty", env=around, check=False)
        assert done.returncode == code and says in done.stdout, (words, done.stdout[-500:], done.stderr[-500:])
    assert {path.name for path in (tmp_path / "fresh/share").rglob("*") if path.is_file()} >= {
        "ultrafolio.1",
        "ultrafolio",
        "_ultrafolio",
        "ultrafolio.fish",
    }
