"""Submits a plan to the lab service, watches it, and fetches its result. The cluster's workers compute it.

python examples/sweep_lab.py PLAN.toml where.json [results.parquet]
"""

import sys
from pathlib import Path

from common import cluster, main, where

from ultrafolio.errors import InputError
from ultrafolio.rpc.v1 import lab_pb2

LONGEST_S = 3600


def story() -> None:
    if len(sys.argv) < 3:
        raise InputError("which plan, on which cluster?", allowed="PLAN.toml where.json [results.parquet]")
    plan = Path(sys.argv[1])
    try:
        text = plan.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{plan}: cannot be read", value=error.strerror, allowed="a plan, as in sweeps/") from None
    with cluster(where(2)) as it:
        made = it.lab.SubmitSweep(lab_pb2.SubmitSweepRequest(plan=text, name=plan.name))
        print(f"sweep {made.sweep}: {made.cells} cells")
        for now in it.lab.WatchSweep(lab_pb2.WatchSweepRequest(sweep=made.sweep), timeout=LONGEST_S):
            print(f"{now.done} of {now.cells} cells, {lab_pb2.SweepState.Name(now.state)}")
        pieces = it.lab.FetchResults(lab_pb2.FetchResultsRequest(sweep=made.sweep), timeout=LONGEST_S)
        target = Path(sys.argv[3] if len(sys.argv) > 3 else f"{plan.stem}.parquet")
        target.write_bytes(b"".join(piece.piece for piece in pieces))
        print(f"results  {target}")


if __name__ == "__main__":
    main(story)
