"""One owner of a folio group among the replicas of a role: a lease in the store, and an epoch that the store checks.

A replica takes a group (`take`) if nobody owns it, or the owner's lease is over. Each ownership has an epoch, one more
than the last. Every commit and creation under it names the epoch, and the store's script refuses it if another replica
has taken the group since. So the lease says only when another may take the group: a wrong clock lets a group move too
early, never two replicas write.

An owner's commits renew its lease. A turn that it begins carries the epoch in its token (`token`), so that what another
part writes for that turn is refused, too, once the group has another owner.

Contents outside of the store are in files of an epoch: a new owner copies those of the epoch `home`, then says that
its own are complete (`settle`). What a former owner still writes goes to files that nobody reads.
"""

from __future__ import annotations

import os
from typing import NamedTuple


class Ownership(NamedTuple):
    """epoch: of this ownership, from 1;  home: epoch whose files hold the contents, 0: the files of a lone process."""

    epoch: int
    home: int


LONE = Ownership(0, 0)
"""What a process has that is the only one of its role."""


def token(epoch: int) -> str:
    """Returns a fresh name for a turn that is begun under this ownership: EPOCH.RANDOM, or RANDOM without one."""
    return f"{epoch}.{os.urandom(8).hex()}" if epoch else os.urandom(8).hex()


def epoch_of(turn: str) -> int:
    """Returns the epoch in a turn's token, 0 for none."""
    epoch, dot, _ = turn.partition(".")
    return int(epoch) if dot and epoch.isdecimal() else 0
