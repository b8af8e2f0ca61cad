"""The interpreter, the compiled loop and the disabled JIT are one simulator: equal to the last bit."""

import hashlib
import os
import subprocess
import sys

import pytest

from simulated import compiled, interpreted, ran
from ultrafolio.model.layout import SECTIONS
from ultrafolio.model.policies import PRESETS
from ultrafolio.sim.records import CHOICE, CLOCK, EVENT, HANG, LOAD, METRIC, REQUEST, WAIT

BUSY = {
    "rings": 2, "writeback_us": 300, "reclaim_us": 200, "lru_us": 150, "speculative_us": 100, "reboot_us": 2000,
    "share_rate": 0.02, "io_us": 50, "io_pages": 2,
}  # fmt: skip


@pytest.mark.parametrize("policy", PRESETS)
@pytest.mark.parametrize("order", [0, 3])
def test_compiled_equals_interpreted(policy, order):
    axes = {"policy": policy, "order": order, "duration_us": 1500, **BUSY}
    fast, plain = ran(compiled(), **axes), ran(interpreted(), **axes)
    for name in fast:
        assert fast[name] == plain[name], name
    assert sum(fast["fired"]) >= 100


@pytest.mark.parametrize(
    "extra",
    [
        {"imported": False, "backing": "iomap", "placement": "contiguous"},
        {"imported": False, "early_rings": True},
        {"guests": 2, "one_address_space": True, "imported": False},
        {"guests": 2, "one_address_space": True, "ownership_transfer": True, "mapping_us": 100},
        {"fail_pages": 20},
    ],
    ids=["iomap", "early", "two-guests", "transfer", "fail"],
)
def test_compiled_equals_interpreted_for_rare_options(extra):
    for policy in ("split-writeback", "import-lock", "whole-folio-literal"):
        axes = {"policy": policy, "order": 2, "duration_us": 1500, **BUSY, **extra}
        assert ran(compiled(), **axes) == ran(interpreted(), **axes)


def test_chunks_make_no_difference():
    axes = {"policy": "whole-folio", "order": 3, **BUSY}
    assert ran(compiled(), **axes) == ran(compiled(), limit=777, **axes)


def test_equal_seeds_give_equal_runs_and_other_seeds_others():
    axes = {"policy": "split", "order": 3, "imported": False, **BUSY}
    assert ran(compiled(), seed=7, **axes) == ran(compiled(), seed=7, **axes)
    assert ran(compiled(), seed=7, **axes) != ran(compiled(), seed=8, **axes)


def test_disabled_jit_gives_the_same_digits():
    script = (
        "import sys; sys.path.insert(0, 'tests/support')\n"
        "from simulated import measured\n"
        "print(measured(policy='whole-folio', order=2, rings=1, duration_us=800, writeback_us=200))"
    )
    digests = set()
    for disabled in ("0", "1"):
        out = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "NUMBA_DISABLE_JIT": disabled},
        )
        digests.add(hashlib.sha256(out.stdout.encode()).hexdigest())
        assert "'touches': " in out.stdout
    assert len(digests) == 1


def test_no_field_has_a_name_that_numpy_or_numba_would_take():
    taken = {"split", "sum", "min", "max", "item", "copy", "fill", "sort", "real", "size", "T", "put", "take", "base"}
    for dtype in (*SECTIONS.values(), LOAD, REQUEST, WAIT, CLOCK, EVENT, HANG, CHOICE, METRIC):
        assert not taken & set(dtype.names) - {"base"}, dtype.names
