"""`ultrafolio init`: the shipped files and no other, in a new or an empty folder."""

import subprocess
from pathlib import Path

import pytest

from ultrafolio import shipped
from ultrafolio.cli import main

ROOT = Path(__file__).parents[2]


def init(folder):
    with pytest.raises(SystemExit) as left:
        main(["init", folder])
    return int(left.value.code or 0)


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("folder", ["lab", "deep/lab", "."])
def test_the_files_of_the_repository_are_copied(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert init(folder) == 0
    listed = subprocess.run(["git", "ls-files", *shipped.FOLDERS], cwd=ROOT, capture_output=True, text=True, check=True)
    assert files(tmp_path / folder) >= set(listed.stdout.split())
    assert {path.name for path in (tmp_path / folder).iterdir()} == set(shipped.FOLDERS)


def test_what_is_compiled_is_not_copied_and_a_folder_beside_it_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "root", lambda: tmp_path / "data")
    for name in shipped.FOLDERS:
        (tmp_path / "data" / name / "__pycache__").mkdir(parents=True)
        (tmp_path / "data" / name / "__pycache__" / "x.pyc").write_text("")
        (tmp_path / "data" / name / "x").write_text("")
    (tmp_path / "lab.tmp").mkdir()
    (tmp_path / "lab.tmp" / "mine").write_text("")
    assert init(str(tmp_path / "lab")) == 0
    assert files(tmp_path / "lab") == {f"{name}/x" for name in shipped.FOLDERS}
    assert files(tmp_path / "lab.tmp") == {"mine"}


def test_an_empty_folder_stays_empty_where_a_copy_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "root", lambda: tmp_path / "nothing")
    (tmp_path / "lab").mkdir()
    assert init(str(tmp_path / "lab")) == init(str(tmp_path / "new")) == 2
    assert [path.name for path in tmp_path.rglob("*")] == ["lab"]
