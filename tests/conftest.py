"""Compile once, before any worker starts: the compiled code is shared, and must not be written by two at a time.
`--long` runs the long form of rounds that are short by default (chaos, soak, fuzz)."""

import gzip
import os

import pytest


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="run long chaos, soak and fuzz rounds too")


def pytest_configure(config):
    if not hasattr(config, "workerinput") and os.environ.get("NUMBA_DISABLE_JIT", "0") == "0":
        from ultrafolio.sim import cell

        cell.warm()


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--long"):
        long = pytest.mark.skip(reason="a long round; --long runs it")
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(long)


@pytest.fixture(params=["plain", "gzip"])
def write(request, tmp_path):
    """Writes a recording, both plain and packed; the name says neither."""

    def to(data, name="recording"):
        data = data.encode() if isinstance(data, str) else data
        path = tmp_path / name
        path.write_bytes(gzip.compress(data) if request.param == "gzip" else data)
        return path

    return to
