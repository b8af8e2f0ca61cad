"""The example scripts print the promised lines, and the guide's commands run unchanged, on one cluster."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from running_cluster import running
from typed import ports_of_the_guides

ROOT = Path(__file__).parents[2]
RING = "virtio 1's long-term pin on page 0, another page of the folio"
TOLD = {
    "seed_virtio": [
        "the host reads page 1: exception 0x3d",
        "accessible-pin page 1 fails",
        "| page 1 S------ -> E------",
        "the host reads page 1: cipher text",
        " 15                  vcpu 0 import-freeze: EBUSY",
        "  -- and so on",
        "the touch: waits",
        "(permanent)",
        f"held by: {RING}",
    ],
    "seed_direct_io": [
        "disk 1 io-start",
        "the touch: waits",
        "(waiting)",
        "released by: io-end and unpin of disk 1",
        "  -- and so on, until:",
        "disk 1 io-end",
        "import-end: SUCCESS",
        "the touch: done",
        "nobody waits",
    ],
    "other_policy": ["under whole-folio", "1: waits", "(permanent)", "under per-page", "1: done", "nobody waits"],
    "tampered_page": ["cipher text", "tamper 1 tamper page 0", "import-call page 0: EINVAL", "touch: fatal", "(fatal)"],
    "vfio_conversion": [
        "vcpu 0 convert-pinned: -EAGAIN",
        "vcpu 0 vmm-retry",
        "  -- and so on",
        "the request: waits",
        "(vmm-bound)",
        "held by: pin 1's long-term pin on page 0",
        "released by: dma-unmap of pin 1, which the VMM may take",
        "the request: done",
        "nobody waits",
        "under unmap-first",
        "pin 1 dma-unmap-asked",
        "vcpu 0 convert-store",
        "the request: done",
    ],
    "hugepage_split": [
        "under reference-per-mapping",
        "vmm 1 convert-zap",
        "the conversion: waits",
        "(permanent)",
        "held by: KVM's mapping of page 0",
        "under gmem-hugetlb-2025-12",
        "vmm 1 convert-restructure",
        "the conversion: done",
        "nobody waits",
    ],
    "reboot_releases": [
        f"held by: {RING}",
        "The guest reboots.",
        "reboot 2 reboots",
        "virtio 1 ring-teardown",
        "virtio 1 unpin page 0",
        "the touch that waited: stopped",
        "nobody waits",
        "done, and reads zeros",
    ],
}
"""Lines of each script's output, in order."""


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    folder = tmp_path_factory.mktemp("e")
    with running(folder / "lab") as where:
        file = folder / "where.json"
        file.write_text(json.dumps(where))
        yield file


def script(name, *words):
    return subprocess.run(
        [sys.executable, f"examples/{name}.py", *map(str, words)], cwd=ROOT, capture_output=True, text=True
    )


def in_order(text, wanted):
    at = 0
    for line in wanted:
        assert line in text[at:], f"{line!r} is missing after\n{text[:at]}\nin\n{text[at:]}"
        at = text.index(line, at) + len(line)


@pytest.mark.parametrize("name", TOLD)
def test_a_script_prints_its_lines(where, name):
    done = script(name, where)
    assert done.returncode == 0, done.stderr
    in_order(done.stdout, TOLD[name])
    assert max(map(len, done.stdout.splitlines())) <= 72


@pytest.mark.parametrize("name", TOLD)
def test_a_script_is_short(name):
    assert len((ROOT / f"examples/{name}.py").read_text().splitlines()) < 80


def test_a_script_without_a_cluster_starts_one():
    done = script("tampered_page")
    assert done.returncode == 0, done.stderr
    in_order(done.stdout, TOLD["tampered_page"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "SCENARIO POLICY"),
        (("scenarios/99.toml", "split"), "scenarios/99.toml: no such file"),
        (("scenarios/03-virtio.toml", "splitt"), "did you mean 'split'?"),
        (("scenarios/03-virtio.toml", "split", "scenarios/03-virtio.toml"), "what `python -m services --json` printed"),
    ],
)
def test_bad_arguments(words, says):
    done = script("lay_out", *words)
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr


def test_a_taken_name(where):
    words = ("scenarios/03-virtio.toml", "split", where, "taken")
    assert "actor 1: virtio, may choose page 0" in script("lay_out", *words).stdout
    again = script("lay_out", *words)
    assert again.returncode == 2 and "the folio group is there already" in again.stderr


# ------------------------------------------------------------------------------------------------------- the guide
@pytest.fixture
def copy(tmp_path):
    """A folder like a checkout, in which the guide can write its files."""
    for name in ("scenarios", "services", "examples", "traces"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def shell(command, folder):
    """Run a command in a shell in the project's environment; one that ends with & runs on."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    words = ["sh", "-c", "exec " + command.removesuffix("&") if command.endswith("&") else command]
    return subprocess.Popen(
        words, cwd=folder, env={**os.environ, "PATH": path}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


@ports_of_the_guides()
def test_the_guide_does_what_it_says(copy):
    text, ran, behind = (ROOT / "docs/drive-the-cluster.md").read_text(), 0, []
    try:
        for kind, block in re.findall(r"```(python|console)\n(.*?)```", text, re.DOTALL):
            if kind == "python":
                before = text[: text.index(block)]
                (copy / re.findall(r"`(\w+\.py)`", before)[-1]).write_text(block)
                continue
            for command, code, says in re.findall(r"^\$ (.+)\n(?:exit (\d): (.+)$)?", block, re.MULTILINE):
                process = shell(command, copy)
                if command.endswith("&"):
                    behind.append(process)
                    while not ((file := copy / "where.json").exists() and file.read_text().endswith("\n")):
                        assert process.poll() is None, process.stdout.read()
                        time.sleep(0.05)
                    continue
                said = process.communicate(timeout=120)[0]
                assert (process.returncode, says in said) == (int(code), True), (command, said)
                ran += 1
    finally:
        for process in behind:
            process.send_signal(signal.SIGINT)
            process.wait(60)
            process.stdout.close()
    assert ran == 10
