"""SPIN on an exported program: its counts, and its answer to a formula."""

import re
import shutil
import subprocess
from typing import NamedTuple

MISSING = [tool for tool in ("spin", "gcc") if shutil.which(tool) is None]


class Counts(NamedTuple):
    """The counts of an exploration: distinct states, edges, edges that break a property, and which properties."""

    states: int
    edges: int
    violations: int
    properties: set[int]


def run(folder, *command):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def built(folder, text, *flags):
    (folder / "model.pml").write_text(text)
    run(folder, "spin", "-a", "-o2", "model.pml")
    run(folder, "gcc", "-O0", "-w", "-DNOREDUCE", *flags, "-o", "pan", "pan.c")


def number(pattern, text):
    return int(re.search(pattern, text).group(1))


def counted(folder, text):
    """The counts of SPIN, in an exact search for all errors."""
    built(folder, text, "-DSAFETY")
    said = run(folder, "./pan", "-c0", "-m100000", "-w18")
    assert "search depth too small" not in said
    assert "violated 0" not in said, "a guard is not exact, or a thread stands at a rule it was not seen to reach"
    return Counts(
        number(r"(\d+) states, stored", said),
        number(r"(\d+) transitions", said) - 1,
        number(r"errors: (\d+)", said),
        {int(n) for n in re.findall(r"my_broken!=(\d+)", said)},
    )


def always_ends(folder, formula):
    """Whether a formula of the program in `folder`, built with NFAIR, holds under weak fairness."""
    said = run(folder, "./pan", "-a", "-f", "-m100000", "-w18", "-N", formula)
    assert "search depth too small" not in said
    assert ("acceptance cycle" in said) == (number(r"errors: (\d+)", said) == 1)
    return "acceptance cycle" not in said
