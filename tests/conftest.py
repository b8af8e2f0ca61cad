"""Compile once, before any worker starts: the compiled code is shared, and must not be written by two at a time.
`--long` runs the long form of rounds that are short by default (chaos, soak, fuzz)."""

import gzip
import os
from collections import Counter
from pathlib import Path

import pytest

FAST = (
    "check/test_certified.py",
    "check/test_check.py",
    "check/test_check_counts.py",
    "check/test_check_flags.py",
    "check/test_check_liveness.py",
    "check/test_check_show.py",
    "conformance",
    "model/test_broken_rules.py",
    "model/test_kernels.py",
    "model/test_scenarios.py",
    "model/test_walls.py",
    "names",
    "services/test_uvcb.py",
    "sim/test_guest_memfd_runs.py",
    "sim/test_world.py",
    "state/test_records.py",
    "sweep/test_sweep_plan.py",
    "trace/test_page_flags.py",
    "trace/test_specimens.py",
    "trace/test_trace_conformance.py",
    "waits",
)
"""The folders and files of --fast, of this one: they start no service, browser or other program."""


def pytest_ignore_collect(collection_path, config):
    if config.getoption("--fast") and collection_path.name.startswith("test_"):
        name = collection_path.relative_to(Path(__file__).parent).as_posix()
        return None if name in FAST or name.partition("/")[0] in FAST else True


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="run long chaos, soak and fuzz rounds too")
    parser.addoption("--fast", action="store_true", help="only the unit, property and conformance tests of FAST")


def pytest_terminal_summary(terminalreporter):
    """The seconds of each suite, a suite being a test file, the longest first."""
    spent = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if hasattr(report, "duration") and hasattr(report, "nodeid"):
                spent[report.nodeid.partition("::")[0]] += report.duration
    if len(spent) > 5:
        terminalreporter.section("seconds by suite, all workers together")
        for name, seconds in spent.most_common():
            terminalreporter.write_line(f"{seconds:8.1f}  {Path(name).name}")


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
