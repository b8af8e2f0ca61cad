"""Compile once, before any worker starts: the compiled code is shared, and must not be written by two at a time."""

import os


def pytest_configure(config):
    if not hasattr(config, "workerinput") and os.environ.get("NUMBA_DISABLE_JIT", "0") == "0":
        from ultrafolio.sim import cell

        cell.warm()
