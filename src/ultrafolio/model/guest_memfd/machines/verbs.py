"""The verbs and facts of machines as the rules see them: names for a type checker. The loader makes the functions and
the tuples (machines.dispatcher(), machines.facts())."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .content import *

prepare: Callable[[Any, int], int]
assign: Callable[[Any, int], int]
guest_access: Callable[[Any, int, int], int]
turn: Callable[[Any, int, int], int]
host_access: Callable[[Any, int, int], int]
unmap: Callable[[Any, int], int]
make_shared: Callable[[Any, int], int]
reclaim: Callable[[Any, int], int]
join: Callable[[Any, int], int]
split: Callable[[Any, int, bool], int]

SPLITS_LATE: Sequence[bool]
TABLE_PER_KIND: Sequence[bool]
