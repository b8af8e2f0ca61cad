"""The commands and views of docs/watch-the-hang.md work, in a shell and in headless Chromium."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from browser import NEEDED, chromium, entry, tab, until  # noqa: F401
from running_cluster import ROOT
from typed import ports_of_the_guides

pytestmark = NEEDED


def shell(command, folder):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    words = ["sh", "-c", "exec " + command.removesuffix("&") if command.endswith("&") else command]
    return subprocess.Popen(
        words, cwd=folder, env={**os.environ, "PATH": path}, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


@ports_of_the_guides()
def test_the_guide_does_what_it_says(tab, tmp_path):  # noqa: F811
    for name in ("scenarios", "services", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    text, ran, behind = (ROOT / "docs/watch-the-hang.md").read_text(), 0, []
    try:
        for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
            for command, code, says in re.findall(r"^\$ (.+)\n(?:exit (\d): (.+)$)?", block, re.MULTILINE):
                process = shell(command, tmp_path)
                if command.endswith("&"):
                    behind.append(process)
                    while not ((file := tmp_path / "where.json").exists() and file.read_text().endswith("\n")):
                        assert process.poll() is None, process.stdout.read()
                        time.sleep(0.05)
                    continue
                said = process.communicate(timeout=120)[0]
                assert (process.returncode, says in said) == (int(code), True), (command, said)
                ran += 1
        tab.goto(re.search(r"<(http://\S+)>", text)[1])
        until(tab, "hang", re.search(r"`(vcpu 0 \(touch page 1\) waits for ever.*?)`", text)[1])
        tab.keyboard.press("Home")
        for _ in range(2):
            tab.keyboard.press("ArrowRight")
        entry(tab, 2)
        until(tab, "ladder", "accessible-pin page 1 fails")
    finally:
        # an open page would report that the lab does not answer
        tab.goto("about:blank")
        for process in behind:
            process.send_signal(signal.SIGINT)
            process.wait(60)
            process.stdout.close()
    assert ran == 3
