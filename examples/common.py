"""Common to the examples: the cluster, the arguments and the exit code of a script."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

# set before gRPC is imported: keeps its connection messages off this terminal
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from ultrafolio.errors import InputError
from ultrafolio.rpc.cluster import Cluster

ROOT = Path(__file__).resolve().parent.parent


@contextlib.contextmanager
def cluster(where: str | None = None) -> Iterator[Cluster]:
    """The cluster whose JSON line (`python -m services --json`) is in the file `where`; without a file, a new cluster
    until the end of the block. Raises InputError if the file has no such line."""
    if where is not None:
        with _found(where) as lab:
            yield lab
        return
    words = [sys.executable, "-m", "services", "--json"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise InputError("the cluster did not start", then="python -m services says why")
            with Cluster.at(json.loads(line)) as lab:
                yield lab
        finally:
            process.send_signal(signal.SIGINT)


def _found(where: str) -> Cluster:
    try:
        return Cluster.at(json.loads(Path(where).read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            where,
            value=str(error),
            allowed="what `python -m services --json` printed",
            then=f"python -m services --json > {where}",
        ) from None


def main(story: Callable[[], None]) -> None:
    """Run a script; bad input ends it with exit code 2 and one message."""
    try:
        story()
    except InputError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(2)


def where(place: int = 1) -> str | None:
    """Returns the command line's argument at this place, a file for `cluster`, or None."""
    return sys.argv[place] if len(sys.argv) > place else None
