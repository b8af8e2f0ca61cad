"""A sweep as a batch job, for cron, a scheduler, or a Kubernetes Job that restarts it until it exits with 0 or 1.

    python examples/sweep_batch.py sweeps/costs.toml out/costs [--redis URL] [--workers N] [--limit N]

Prints one JSON object a line: its arguments, then the summary. Restarted, it continues its job. Exit status: 0 done,
1 done and some cells failed, 2 bad input, 75 (EX_TEMPFAIL) ended by a signal: start it again.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from ultrafolio.errors import InputError
from ultrafolio.redis_server import address
from ultrafolio.sweep.cells import simulator
from ultrafolio.sweep.distributed.queue import Queue
from ultrafolio.sweep.planfile import load
from ultrafolio.sweep.progress import Silent
from ultrafolio.sweep.run import sweep


def tell(text: str) -> None:
    print(json.dumps({"told": text}), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("--redis", help="the workers' Redis; by default what ULTRAFOLIO_REDIS names")
    parser.add_argument("--workers", type=int, default=0, help="start so many here, with a Redis where none is named")
    parser.add_argument("--limit", type=int, help="only the plan's first cells")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))  # schedulers send SIGTERM
    try:
        url = address(given.redis)
        if url is None and not given.workers:
            parser.error("--redis URL, or --workers N")
        queue = Queue(given.store, url, tell, given.workers)
        summary = sweep(load(given.plan), given.store, simulator(), queue, Silent(), limit=given.limit)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(summary.record()), flush=True)
    if summary.interrupted:
        return os.EX_TEMPFAIL
    return 1 if summary.failed else 0


if __name__ == "__main__":
    sys.exit(main())
