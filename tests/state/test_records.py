"""The one record over arrays: it reads and writes in place, and its log takes a write back."""

import numpy as np
import pytest

from ultrafolio.engine.interp import records
from ultrafolio.engine.records import Row, Rows
from ultrafolio.model.layout import TASK, blank


def test_a_row_reads_and_writes_the_array():
    array = np.zeros(2, TASK)
    Row(array, 1).page = 7
    assert array["page"].tolist() == [0, 7]
    array["page"][1] = 9
    seen = Row(array, 1).page
    assert seen == 9 and type(seen) is int


def test_the_log_has_each_change_with_the_value_before():
    array, log = np.zeros(2, TASK), []
    rows = Rows(array, "task", log)
    rows[1].page = 7
    rows[1].page = 7
    rows[1].page = 8
    assert log == [("task", 1, "page", 0), ("task", 1, "page", 7)] and len(rows) == 2
    while log:
        _, at, field, before = log.pop()
        array[field][at] = before
    assert not array["page"].any()


def test_a_field_or_a_record_that_there_is_not():
    rows = Rows(np.zeros(2, TASK))
    with pytest.raises(ValueError, match="nothing"):
        _ = rows[0].nothing
    with pytest.raises(IndexError):
        _ = rows[2].page


def test_records_share_the_arrays():
    state = blank(3, 2, 1)
    seen = records(state)
    state.mm["refs"][2] = 5
    assert seen.mm[2].refs == 5 and len(seen.task) == 2
