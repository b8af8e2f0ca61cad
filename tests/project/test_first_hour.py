"""tools/first-verdict.sh: from `git clone` to the first verdict, with empty caches."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "first-verdict.sh"


def test_the_script_types_what_the_readme_says():
    readme, script = (ROOT / "README.md").read_text(), SCRIPT.read_text()
    commands = re.findall(r"typed \d (\./uf .*)", script)
    assert len(commands) == 3
    for command in commands:
        words = command.removeprefix("./uf ")
        assert command in readme or f"ultrafolio {words}" in readme, command


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_clone_comes_to_its_first_verdict():
    done = subprocess.run([SCRIPT, "--verdict"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    assert len(re.findall(r"^ +[\d.]+ s  \./uf check ", done.stdout, re.MULTILINE)) == 3
