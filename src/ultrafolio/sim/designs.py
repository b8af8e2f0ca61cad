"""What the simulator has for each design: its records, and the functions that the loop calls by the same names."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from ultrafolio.model.design import Design
from ultrafolio.model.designs import GUEST_MEMFD, S390

from . import measures, memfd_measures, memfd_pages, memfd_records, records

RECORDS: dict[str, Any] = {S390.name: records, GUEST_MEMFD.name: memfd_records}
MEASURES: dict[str, tuple[ModuleType, ...]] = {
    S390.name: (measures,),
    GUEST_MEMFD.name: (memfd_pages, memfd_measures),
}


def columns(design: Design) -> dict[str, str]:
    """Returns the result columns of a design: name -> "int", "str" or "ints".

    Times are ns. throughput: guest touches per second of simulated time. hung: class of the first hang with waiter,
    holder and page, or "". broken: violations by property, from 1 on. *_hist: pairs bucket, count.
    """
    s390 = design is S390
    return {
        **dict.fromkeys(RECORDS[design.name].MEASURES, "int"),
        **dict.fromkeys(("sim_ns", "throughput", "pages_total"), "int"),
        **({"tracking_bytes": "int"} if s390 else {}),
        "hung": "str",
        "broken": "ints",
        "stall_hist": "ints",
        "latency_hist" if s390 else "convert_hist": "ints",
    }
