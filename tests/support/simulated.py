"""Helpers of the simulator's tests: run a few axes, interpreted or compiled, and look at everything."""

from pathlib import Path
from typing import Any

from ultrafolio.engine.interp import to_lists, write_back
from ultrafolio.model.layout import pack
from ultrafolio.sim import build, cell, config
from ultrafolio.sim.load import compiled, interpreted

HERE = Path()


def settings(**axes: Any) -> dict[str, Any]:
    """A resolved configuration; small defaults so that a test is quick."""
    return config.resolve({"duration_us": 3000, "pages": 512, "disks": 2, **axes}, HERE)


def measured(**axes: Any) -> dict[str, Any]:
    """The columns of a compiled run."""
    return cell.run(settings(**axes), HERE)


def everything(state: Any, around: Any) -> dict[str, Any]:
    """All that a run leaves behind, comparable with ==."""
    return {"state": pack(state), **{name: array.tolist() for name, array in around._asdict().items()}}


def ran(simulate: Any, limit: int = 1 << 40, trace: int = 0, **axes: Any) -> dict[str, Any]:
    """Everything after a run with `simulate`, in chunks of `limit` events."""
    state, around = build.build(settings(**axes), HERE, trace=trace)
    if simulate is compiled():
        while simulate(state, around, limit) == limit:
            pass
    else:
        lists = to_lists(state), to_lists(around)
        while simulate(*lists, limit) == limit:
            pass
        write_back(lists[0], state)
        write_back(lists[1], around)
    return everything(state, around)


__all__ = ["compiled", "everything", "interpreted", "measured", "ran", "settings"]
