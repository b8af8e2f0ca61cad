"""The messages: style, a comment for every field, generated code made from these files."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
GENERATED = ROOT / "src/ultrafolio/rpc/v1"
BUF = str(Path(sys.executable).with_name("buf"))


def test_style_and_comments():
    done = subprocess.run([BUF, "lint"], cwd=ROOT / "protos", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    words = [BUF, "format", "-d", "--exit-code"]
    done = subprocess.run(words, cwd=ROOT / "protos", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_field_without_a_comment_would_be_found(tmp_path):
    for file in (ROOT / "protos").rglob("*.*"):
        copy = tmp_path / file.relative_to(ROOT / "protos")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(file.read_text().replace("  // Page number within the group.\n", ""))
    done = subprocess.run([BUF, "lint"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 100
    assert 'Field "page" should have a non-empty comment' in done.stdout


def test_the_generated_code_is_fresh(tmp_path):
    environment = os.environ | {"PYTHON": sys.executable}
    subprocess.run([str(ROOT / "protos/generate"), str(tmp_path)], env=environment, capture_output=True, check=True)
    made = tmp_path / "ultrafolio/rpc/v1"
    assert {file.name for file in made.iterdir()} == {f.name for f in GENERATED.glob("*_pb2*")}
    for file in made.iterdir():
        assert file.read_text() == (GENERATED / file.name).read_text(), f"{file.name}: run protos/generate"
