"""README, guides and the installed package name files that are there."""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ultrafolio import shipped
from ultrafolio.cli import main
from ultrafolio.engine.load import cache_folder
from ultrafolio.errors import InputError
from ultrafolio.fields import read_text
from ultrafolio.sweep.planfile import load

ROOT = Path(__file__).parents[2]


def test_the_readme_activates_the_environment_that_it_made():
    text = (ROOT / "README.md").read_text()
    assert text.index("./uf sweep") < text.index(". .venv/bin/activate") < text.index("| question | command |")


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


def test_a_path_that_help_and_readme_print_is_the_shipped_file_where_there_is_no_such_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, folder in (("scenarios/03-virtio.toml", "scenarios"), ("sweeps/seed.toml", "sweeps")):
        assert shipped.found(Path(name), folder).read_bytes() == (ROOT / name).read_bytes()
    for name in ("scenarios/none.toml", "scenarios/../pyproject.toml", "sweeps/seed.toml", "other/03-virtio.toml"):
        assert shipped.found(Path(name), "scenarios") == Path(name)
    (tmp_path / "scenarios").mkdir()
    assert shipped.found(Path("scenarios/03-virtio.toml"), "scenarios") == Path("scenarios/03-virtio.toml")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("03-virtoi", "did you mean '03-virtio'"),
        ("scenarios/03-virtoi.toml", "did you mean '03-virtio'"),
        ("sead", "did you mean 'seed'"),
        ("elsewhere/x.toml", "there is no folder elsewhere"),
        ("x.toml", "a path is relative"),
    ],
)
def test_a_file_that_is_not_there_has_its_likely_cause(path, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for read in (load, read_text):
        with pytest.raises(InputError) as told:
            read(Path(path))
        assert says in told.value.cause


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
        (["sweep", "seed", "--limit", "20"], 0, "20 of 20 cells (20 computed"),
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
