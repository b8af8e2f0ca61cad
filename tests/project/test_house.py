"""Rules of the code: lint, types, layers, sizes of files, no TODO, no addresses of package registries."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lines import code_lines

ROOT = Path(__file__).parents[2]
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
SOURCES = (".py", ".c", ".js", ".css", ".proto", ".lua")
KINDS = (*SOURCES, ".toml", ".md", ".txt", ".sql", ".html", ".yml", ".yaml", "Dockerfile")
GENERATED = "src/ultrafolio/rpc/v1/"
WRITTEN = [f for f in TRACKED if not f.startswith(GENERATED)]
TEXT = [f for f in WRITTEN if f.endswith(KINDS) or f in ("uf", ".ci/run", "protos/generate")]


def tool(*words):
    done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_lint():
    tool("ruff", "check", ".")


def test_format():
    tool("ruff", "format", "--check", ".")


def test_types():
    tool("mypy")


def test_layers():
    lint = str(Path(sys.executable).with_name("lint-imports"))
    done = subprocess.run([lint], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_rules_stay_short():
    model = ROOT / "src/ultrafolio/model"
    files = [model / "layout.py", model / "properties.py", *model.glob("rules/*.py")]
    assert len(files) > 10 and sum(code_lines(file) for file in files) < 1280


@pytest.mark.parametrize("file", [f for f in WRITTEN if f.endswith(SOURCES)])
def test_a_file_has_one_subject(file):
    assert (ROOT / file).stat().st_size <= 20_480, "a file over 20 KB is two things"


@pytest.mark.parametrize("file", TEXT)
def test_nothing_is_left_behind(file):
    if file == "tests/project/test_house.py":
        return
    text = (ROOT / file).read_text()
    assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b", text)
    # the locations of package registries change with where the reader is; constraints name packages only
    assert not re.search(r"://[^\s'\")]*(pypi|pythonhosted|npmjs|debian\.org|deb\.)", text)
    assert not re.search(r"(?<![\w./])(/home/|/root/)", text)
