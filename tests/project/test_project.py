"""The project's metadata agree: the version in four files, the licence, the files that CONTRIBUTING names."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

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


def test_the_hooks_before_a_commit_are_local_and_run_what_the_tests_run():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]
    entries = {hook["id"]: hook for hook in hooks[0]["hooks"]}
    assert set(entries) == {"ruff-check", "ruff-format", "mypy", "lint-imports"}
    for hook in entries.values():
        program = hook["entry"].split()[0]
        assert hook["language"] == "system" and Path(sys.executable).with_name(program).exists()


def test_cover_is_passed_on_as_options_of_pytest_cov(tmp_path):
    """`uf` with a Python that prints its arguments."""
    copy, venv = tmp_path / "uf", tmp_path / ".venv"
    for name in ("uf", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (venv / "bin").mkdir(parents=True)
    program = venv / "bin/python"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    wanted = "cat pyproject.toml constraints.txt | cksum"
    stamp = subprocess.run(wanted, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    (venv / ".stamp").write_text(f"{stamp.strip()} dev\n")
    said = [
        subprocess.run(["sh", str(copy), "test", *words], capture_output=True, text=True, check=True).stdout.split()
        for words in (["--cover", "tests/a.py", "-k", "x"], ["tests/a.py"])
    ]
    cover = ["--cov", "--cov-report=term-missing"]
    assert said == [["-m", "pytest", "-n", "auto", *cover, "tests/a.py", "-k", "x"],
                    ["-m", "pytest", "-n", "auto", "tests/a.py"]]  # fmt: skip


def test_uf_installs_the_tools_of_the_tests_with_the_first_test(tmp_path):
    """`uf` with programs that write down their arguments."""
    for name in ("uf", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    for name in ("python", "pip", "ultrafolio"):
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/ran\n')
        (programs / name).chmod(0o755)
    around = {**os.environ, "PYTHON": str(programs / "python")}
    around.pop("UF_VENV", None)
    extras = []
    for words in (["check", "x"], ["sweep", "x"], ["test"], ["test"], ["check", "x"]):
        (tmp_path / "ran").write_text("")
        subprocess.run(["sh", tmp_path / "uf", *words], env=around, capture_output=True, check=True)
        ran = (tmp_path / "ran").read_text()
        assert words[-1] in ran.splitlines()[-1]
        extras.append("".join(re.findall(r"^pip install .*-e \.\[(.*)]$", ran, re.MULTILINE)))
    users = next(one for one in PROJECT["optional-dependencies"]["dev"] if one.startswith("ultrafolio["))
    assert extras == [users.removeprefix("ultrafolio[").removesuffix("]"), "", "dev", "", ""]


def test_coverage_has_no_threshold():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["coverage"]
    assert settings["run"]["source"] == ["src/ultrafolio", "services", "workers"]
    assert "fail_under" not in settings["report"]
