"""Cuts streams to a window: a checkpoint, the state after entries that the rules accepted, replaces these entries.

So a stream's length is bounded for any lifetime of its group. `trace validate` starts from the checkpoint.
"""

from __future__ import annotations

from typing import Any

from .events import Kept, decode, encode
from .redis import RedisStore, number_of
from .validate import Replay, begin

WINDOW = 10_000
"""Entries of a stream after its checkpoint."""
LONGEST = 2 * WINDOW
"""A stream of more entries is cut to the window."""


def cut(store: RedisStore, group: str, window: int = WINDOW, longest: int = LONGEST) -> str:
    """Cut a group's stream to `window` entries if it has more than `longest`. Returns why it cannot be cut, or ""."""
    length = store.length(group)
    if length <= longest:
        return ""
    replay, started, last = None, list[Any](), 0
    left = length - window
    for event in store.events(group):
        entry = decode(event.data)
        if isinstance(entry, Kept):
            replay = Replay.after(entry)
            continue
        if left == 0:
            break
        left, last = left - 1, number_of(event.id)
        if replay is not None and not replay.entry(event.id, entry):
            return f"the rules refuse entry {event.id}: {replay.verdict.why}"
        if replay is not None:
            replay.undo_log.clear()
        else:
            started.append(entry)
            replay = begin(started)
    if replay is None:
        return "no part of it says how the group was laid out"
    store.cut(group, last, encode(replay.kept()))
    return ""
