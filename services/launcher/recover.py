"""An operator's decision about folio groups that are refused because the shared state has lost writes.

    python -m services.launcher.recover URL                  list the refused groups
    python -m services.launcher.recover URL accept GROUP     continue from the present state of GROUP
    python -m services.launcher.recover URL delete GROUP     delete GROUP
    python -m services.launcher.recover URL accept-machine   continue from the present state of the ultravisor's machine

A part that has seen a higher revision than the store has marks the group, and then every part refuses it. After
`accept` the contents of pages, which the parts store in files, may be newer than the state.
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
    """List the refused groups of the shared state at URL, or apply a DECISION; with the admin's rights."""
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
    """Set the machine's change counter above every value seen. Raises InputError if the machine is not refused."""
    kept = store.get(KEY)
    if not behind:
        raise InputError(
            "the ultravisor's machine", allowed="one that is refused", then="python -m services.launcher.recover URL"
        )
    machine = decode(kept) if kept else Machine()
    # the counter of a machine that is lost entirely is unknown
    changes = machine.changes + PASSED if kept else time.time_ns()
    if not store.swap(KEY, kept, machine.replace(changes=changes).encode()):
        raise InputError("the ultravisor's machine", value="it changed meanwhile", then="repeat the command")
    store.remove(BEHIND)
    print("the ultravisor's machine: accepted")


if __name__ == "__main__":
    main()
