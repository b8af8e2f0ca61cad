"""An operator's decision about folio groups that are refused because the shared state has lost writes.

    python -m services.recover URL                  which groups are refused
    python -m services.recover URL accept GROUP     go on from what the state has of GROUP
    python -m services.recover URL delete GROUP     remove GROUP

A part that has seen a revision which is not there any more marks the group, and from then on every part refuses it. To
accept it means to live with what the state says now: contents of pages, which the parts keep in files, may be newer.
"""

from __future__ import annotations

import sys

import click

from ultrafolio.errors import InputError
from ultrafolio.state.acl import ADMIN, group_name
from ultrafolio.state.redis import RedisStore


@click.command()
@click.argument("url")
@click.argument("decision", type=click.Choice(["list", "accept", "delete"]), default="list")
@click.argument("group", required=False)
def main(url: str, decision: str, group: str | None) -> None:
    """Decide about groups of the shared state at URL, with the admin's rights."""
    store = RedisStore(url, ADMIN)
    try:
        refused = store.behind()
        if decision == "list":
            print("\n".join(refused) or "no folio group is refused")
            return
        if group is None or group_name(group) not in refused:
            raise InputError("folio group", value=group, allowed=", ".join(refused) or "none is refused",
                             then="python -m services.recover URL list")  # fmt: skip
        {"accept": store.accept, "delete": store.delete}[decision](group)
        print(f"{group}: {decision}ed" if decision == "accept" else f"{group}: deleted")
    except InputError as error:
        print(f"services.recover: {error}", file=sys.stderr)
        sys.exit(2)
    finally:
        store.close()


if __name__ == "__main__":
    main()
