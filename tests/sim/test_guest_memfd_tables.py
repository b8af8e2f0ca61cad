"""The tables of simulations of guest_memfd: columns and their words, names of fields, reasons to wait."""

import pytest

from ultrafolio.model.bounds import Outgrown
from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.model.guest_memfd import layout as at
from ultrafolio.sim import designs, memfd_records
from ultrafolio.sim.records import CLOCK, EVENT, HANG, LOAD, releases
from ultrafolio.sim.words import MEMFD_MEANING


def test_every_column_has_its_meaning():
    assert list(MEMFD_MEANING) == list(designs.columns(GUEST_MEMFD))


def test_no_field_has_a_name_that_numpy_or_numba_would_take():
    taken = {"split", "sum", "min", "max", "item", "copy", "fill", "sort", "real", "size", "T", "put", "take"}
    for dtype in (memfd_records.WAIT, memfd_records.METRIC, CLOCK, EVENT, HANG, LOAD):
        assert not taken & set(dtype.names), dtype.names


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"frees": {"lock": (-at.W_LOCK,)}}, "does not know mutex, refs"),
        ({"frees": {**memfd_records.FREES, "table": (-at.W_TABLE,)}}, "no rule releases table"),
        ({"endless": memfd_records.ENDLESS_WAITS}, "never ends nothing to do, the end of the VMM's DMA mappings"),
    ],
    ids=["a word", "a rule", "a reason"],
)
def test_a_table_that_lacks_something_is_refused(changed, said):
    endless = (*memfd_records.POLLED, *memfd_records.ENDLESS_WAITS)
    given = {"frees": memfd_records.FREES, "endless": endless, "waits": memfd_records._given(), "where": "a test"}
    assert releases(GUEST_MEMFD.rules, **given) == memfd_records.RELEASES
    with pytest.raises(Outgrown, match=said):
        releases(GUEST_MEMFD.rules, **(given | changed))
