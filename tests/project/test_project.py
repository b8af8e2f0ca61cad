"""What the project says of itself agrees: the version in four files, the licence, the files that CONTRIBUTING names."""

import re
import tomllib
from pathlib import Path

import ultrafolio

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def test_the_version_is_one():
    cited = re.findall(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    changed = re.findall(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert cited == [PROJECT["version"]] == [ultrafolio.__version__]
    assert changed[0] == PROJECT["version"], "the newest version of CHANGELOG.md"


def test_each_released_version_names_its_commit():
    heads = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heads[0] == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ \([0-9a-f]{7,12}\)", head) for head in heads[1:])


def test_the_licence_is_shipped():
    text = (ROOT / "LICENSE").read_text()
    assert text.startswith("MIT License") and PROJECT["license"] == "MIT"
    assert PROJECT["license-files"] == ["LICENSE"]


def test_contributing_names_files_and_tables_that_exist():
    """A path is looked for at the root, in the package and in docs/; a word in capitals at the top of any module."""
    missing = []
    for word in re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", CONTRIBUTING, flags=re.DOTALL)):
        if re.fullmatch(r"[\w./*-]+\.(?:py|md|toml|cff)", word) and not re.search("NAME|NN-", word):
            places = [base / word for base in (ROOT, ROOT / "src/ultrafolio", ROOT / "docs")]
            missing += [] if any(list(place.parent.glob(place.name)) for place in places) else [word]
        elif re.fullmatch(r"_?[A-Z_]{4,}", word) and word != "FILE":
            missing += [] if _defined(word) else [word]
    assert not missing


def _defined(word):
    """Whether a module or a test defines the name at its top level."""
    files = [*(ROOT / "src/ultrafolio").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    return any(re.search(rf"^{word}\b", file.read_text(), re.MULTILINE) for file in files)
