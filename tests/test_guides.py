"""The guides and the README do what they say: every command in them runs, and ends and prints as written."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GUIDES = sorted((ROOT / "docs").glob("write-*.md"))


@pytest.fixture
def copy(tmp_path):
    """A folder like a checkout, in which the guide's own files can be written."""
    for name in ("scenarios", "sweeps", "traces"):
        (tmp_path / name).symlink_to(ROOT / name)
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "ultrafolio").symlink_to(Path(sys.executable).with_name("ultrafolio"))
    return tmp_path


def shell(command, folder):
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(command, shell=True, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True,
                          text=True, check=False)  # fmt: skip


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_a_guide_does_what_it_says(guide, copy):
    text, ran = guide.read_text(), 0
    for kind, block in re.findall(r"```(toml|console)\n(.*?)```", text, re.DOTALL):
        if kind == "toml":
            before = text[: text.index(block)]
            (copy / re.findall(r"`([\w-]+\.toml)`", before)[-1]).write_text(block)
            continue
        for command, code, says in re.findall(r"^\$ (.+)\nexit (\d): (.+)$", block, re.MULTILINE):
            done = shell(command, copy)
            assert (done.returncode, says in done.stdout + done.stderr) == (int(code), True), done.stdout + done.stderr
            ran += 1
    assert ran >= 5


def readme_commands():
    """Every `ultrafolio …` in the README that is complete and quick; the sweep of the seed runs in its own time, and
    what needs a cluster is run by the tests of the cluster."""
    found = re.findall(r"`(ultrafolio [^`]+)`", (ROOT / "README.md").read_text())
    return [c for c in dict.fromkeys(found) if not re.search(r"KEY|mine\.toml|sweeps/seed|out/seed|redis:", c)]


@pytest.mark.parametrize("command", readme_commands())
def test_a_command_of_the_readme_runs(command, copy):
    done = shell(command, copy)
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done.stderr
    assert done.stdout


def test_the_readme_names_enough_commands():
    assert len(readme_commands()) >= 6


def test_shipped_files_are_found_by_name_from_any_folder(tmp_path):
    """As installed: the names of README's second way, in a folder that has none of the files."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "ultrafolio").symlink_to(Path(sys.executable).with_name("ultrafolio"))
    assert shell("ultrafolio check 03-virtio --policy per-page", tmp_path).returncode == 0
    assert shell("ultrafolio init my-lab && cd my-lab && ultrafolio check scenarios/03-virtio.toml --policy per-page",
                 tmp_path).returncode == 0  # fmt: skip
    assert {path.name for path in (tmp_path / "my-lab").iterdir()} == {"scenarios", "sweeps", "profiles", "traces"}
    again = shell("ultrafolio init my-lab", tmp_path)
    assert again.returncode == 2 and "not empty" in again.stderr


def test_links_lead_somewhere():
    texts = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("*/README.md")]
    for file in texts:
        for target in re.findall(r"\]\(([^)#]+)\)", file.read_text()):
            if not target.startswith("http"):
                assert (file.parent / target).exists(), f"{file.name}: {target}"
