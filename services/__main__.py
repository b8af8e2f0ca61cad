"""`python -m services`: the whole cluster on this machine, until Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

# set before gRPC is imported: keeps its connection messages off this terminal
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import click
import redis
from rich.console import Console
from rich.table import Table

from services.common.settings import read, table
from services.launcher import certificates
from services.launcher.cluster import Cluster, State, parts
from ultrafolio import redis_server
from ultrafolio.errors import InputError

LOOK_S = 0.2


def _variables() -> str:
    """Returns the lines of --help that list each variable with its meaning and its default."""
    rows = "\n".join(f"{name:32} {meaning}{f' [{default}]' if default else ''}" for name, default, meaning in table())
    return f"\b\nEach service alone is `python -m services.NAME` with these variables:\n{rows}"


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120}, epilog=_variables())
@click.option("--guests", type=click.IntRange(1, 64), default=1, show_default=True, help="Replicas of the guest.")
@click.option(
    "--replicas",
    type=click.IntRange(1, 16),
    default=1,
    show_default=True,
    help="Replicas of the ultravisor and of the host MM, which share the groups.",
)
@click.option("--redis", "url", metavar="URL", help="Shared state there, as that user; without: a server of our own.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="State, logs, disks, certificates; kept. Without: a temporary one.",
)
@click.option("--tls", is_flag=True, help="TLS and certified roles; certificates are made in FOLDER/tls if missing.")
@click.option("--port", type=click.IntRange(0, 65000), default=0, help="First of consecutive ports; 0: free ones.")
@click.option("--json", "as_json", is_flag=True, help="Where everything listens, as one line of JSON.")
def launch(
    guests: int,
    replicas: int,
    url: str | None,
    folder: Path | None,
    tls: bool,
    port: int,
    as_json: bool,
) -> int:
    """Start ultravisor, host MM, guests and the lab on this machine, and stop all of them at Ctrl-C.

    Exit codes: 0 stopped, 1 a part ended on its own, 2 bad input.
    """
    with contextlib.ExitStack() as stack:
        home = _folder(stack, folder)
        settings = read()
        if tls:
            settings = replace(settings, tls=str(_certificates(home / "tls")))
        given = redis_server.address(url)
        state = State.given(_answering(given)) if given else stack.enter_context(State.own(home))
        try:
            cluster = stack.enter_context(Cluster(home, settings, parts(guests, replicas), state, first_port=port))
        except InputError as error:
            if folder is None:
                # a temporary folder is removed with the log in it
                error.then = "python -m services --folder FOLDER keeps every part's log"
            raise
        where = _where(cluster)
        print(json.dumps(where), flush=True) if as_json else _show(where)
        asked = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: asked.set())
        return _watch(cluster, asked)


def _folder(stack: contextlib.ExitStack, folder: Path | None) -> Path:
    """Returns the folder for logs and data: the given one, made if it is absent, or a temporary one that `stack`
    removes."""
    if folder is None:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ultrafolio-", ignore_cleanup_errors=True)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"--folder {folder}: cannot be made", value=error.strerror, allowed="a writable place"
        ) from None
    return folder.resolve()


def _certificates(folder: Path) -> Path:
    """Returns `folder`, with certificates in it: those that are there, else new ones."""
    if not (folder / "ca.crt").exists():
        certificates.make(folder)
    return folder


def _answering(url: str) -> str:
    """Returns `url` if the Redis there answers. Raises InputError if it does not."""
    try:
        with redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5) as client:
            client.ping()
    except (redis.RedisError, ValueError) as error:
        raise InputError(
            f"{url.rpartition('@')[2]}: the shared state does not answer",
            value=" ".join(str(error).split()),
            allowed="a server that lets this user in",
            cause="it is not running, or its address, user or password is another",
            then="python -m services, without --redis, starts one",
        ) from None
    return url


def _where(cluster: Cluster) -> dict[str, Any]:
    """Returns the JSON object for scripts: services, URL of the shared state with admin rights, folder."""
    services = [{"name": name, **child.says} for name, child in cluster.children.items()]
    return {
        "services": services,
        "redis": cluster.state.admin_url,
        "folder": str(cluster.folder),
        "tls": cluster.settings.tls,
        "replicated": cluster.replicated,
    }


def _show(where: dict[str, Any]) -> None:
    """Print the addresses of the services, the shared state, the logs and how callers are identified."""
    grid = Table("service", "address", "metrics", "pid", box=None, pad_edge=False)
    for one in where["services"]:
        grid.add_row(one["name"], one["address"], one["metrics"] or "-", str(one["pid"]))
    console = Console()
    console.print(grid)
    for page in [one["web"] for one in where["services"] if one.get("web")]:
        console.print(f"page          {page}", highlight=False, soft_wrap=True)
    console.print(f"shared state  {where['redis']}", highlight=False, soft_wrap=True)
    console.print(f"logs          {where['folder']}", highlight=False, soft_wrap=True)
    console.print(
        f"identities    {'certificates in ' + where['tls'] if where['tls'] else 'unverified: TLS is off'}",
        highlight=False,
        soft_wrap=True,
    )
    console.print("Ctrl-C stops all of them.")


def _watch(cluster: Cluster, asked: threading.Event) -> int:
    """Block until `asked` is set. Print each part that ended before; none is restarted. Returns the exit code."""
    known: dict[str, int] = {}
    while not asked.wait(LOOK_S):
        for name, code in cluster.ended().items():
            if name not in known:
                print(
                    f"services: {name} ended with {code}; the others go on. Its log: {cluster.folder / name}.log",
                    file=sys.stderr,
                    flush=True,
                )
        known = cluster.ended()
    return 1 if known else 0


def main() -> None:
    """Run the command; bad input ends with exit code 2 and one message."""
    # a signal during the start stops the parts that run already
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = launch.main(standalone_mode=False)
    except InputError as error:
        print(f"services: {error}", file=sys.stderr)
        code = 2
    except click.ClickException as error:
        wrong = InputError(error.format_message(), value=" ".join(sys.argv[1:]), then="python -m services --help")
        print(f"services: {wrong}", file=sys.stderr)
        code = 2
    except (click.Abort, KeyboardInterrupt):
        print("services: interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
