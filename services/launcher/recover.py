"""An operator's decision about folio groups that are refused because the shared state has lost writes.

    python -m services.launcher.recover URL                  which groups are refused
    python -m services.launcher.recover URL accept GROUP     go on from what the state has of GROUP
    python -m services.launcher.recover URL delete GROUP     remove GROUP
    python -m services.launcher.recover URL accept-machine   go on from what the state has of the ultravisor's machine

A part that has seen a revision which is not there any more marks the group, and from then on every part refuses it. To
accept it means to live with what the state says now: contents of pages, which the parts keep in files, may be newer.
"""

from __future__ import annotations

import sys
import time

import click

from services.ultravisor.machine import BEHIND, KEY
from services.ultravisor.machine_state import Machine, decode
from ultrafolio.errors import InputError
from ultrafolio.state.acl import ADMIN, group_name
from ultrafolio.state.redis import PASSED, RedisStore


@click.command()
@click.argument("url")
@click.argument("decision", type=click.Choice(["list", "accept", "delete", "accept-machine"]), default="list")
@click.argument("group", required=False)
def main(url: str, decision: str, group: str | None) -> None:
    """Decide about groups of the shared state at URL, with the admin's rights."""
    store = RedisStore(url, ADMIN)
    try:
        refused = store.behind()
        behind = store.get(BEHIND) is not None
        if decision == "list":
            named = [*refused, *(["the ultravisor's machine"] if behind else [])]
            print("\n".join(named) or "no folio group is refused")
            return
        if decision == "accept-machine":
            _accept_machine(store, behind)
            return
        if group is None or group_name(group) not in refused:
            raise InputError(
                "folio group",
                value=group,
                allowed=", ".join(refused) or "none is refused",
                then="python -m services.launcher.recover URL list",
            )
        {"accept": store.accept, "delete": store.delete}[decision](group)
        print(f"{group}: {decision}ed" if decision == "accept" else f"{group}: deleted")
    except InputError as error:
        print(f"services.launcher.recover: {error}", file=sys.stderr)
        sys.exit(2)
    finally:
        store.close()


def _accept_machine(store: RedisStore, behind: bool) -> None:
    """Let the machine's number of changes pass all that were seen. InputError: it is not refused."""
    kept = store.get(KEY)
    if not behind:
        raise InputError(
            "the ultravisor's machine", allowed="one that is refused", then="python -m services.launcher.recover URL"
        )
    machine = decode(kept) if kept else Machine()
    # nobody knows how often a machine changed of which nothing is left
    changes = machine.changes + PASSED if kept else time.time_ns()
    if not store.swap(KEY, kept, machine.replace(changes=changes).encode()):
        raise InputError("the ultravisor's machine", value="it changed meanwhile", then="repeat the command")
    store.remove(BEHIND)
    print("the ultravisor's machine: accepted")


if __name__ == "__main__":
    main()
