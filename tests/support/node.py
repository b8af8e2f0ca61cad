"""The program node, which runs scripts of the page in tests without a browser.

The package playwright brings one, the same on every machine; else that of the system, if it packs and unpacks as a
browser does (from version 20 on).
"""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

_ASKED = 'new CompressionStream("deflate-raw"), new DecompressionStream("deflate-raw"), crypto.subtle.digest'


def _found() -> str | None:
    spec = importlib.util.find_spec("playwright")
    if spec and spec.origin and (brought := Path(spec.origin).parent / "driver" / "node").exists():
        return str(brought)
    system = shutil.which("node")
    if system and subprocess.run([system, "-e", _ASKED], capture_output=True, check=False).returncode == 0:
        return system
    return None


NODE = _found()
WHY = "no node: neither the package playwright nor node 20 or newer is installed"
NEEDED = pytest.mark.skipif(NODE is None, reason=WHY)
