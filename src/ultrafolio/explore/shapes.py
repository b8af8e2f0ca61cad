"""The form of a state as plain data, and of a record of `ultrafolio explore --json`."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from ultrafolio.waits.words import WaitClass

Met = TypedDict("Met", {"for": str, "held": str, "released": str})
"""What a step waits for, the holders, and their releasing steps, in words."""


class Offered(TypedDict):
    """A move of one actor: its next step, or one of its choices.

    what   the move in words;  op, page: the choice, if the actor is idle and has one
    meets  the obstacle that its step finds; absent without a holder
    """

    what: str
    actor: int
    rule: str
    op: str
    page: int
    meets: NotRequired[Met]


class Enabled(Offered):
    """A move that can be taken. broke: the number of the property that its step breaks, or 0."""

    outcome: str
    broke: int


class Refused(Offered):
    """A move that cannot be taken. guard: the W_ name of the reason; why: the reason in words; condition: in the rule's
    source, "" if a called function refuses."""

    guard: str
    why: str
    condition: str


class Stalled(TypedDict):
    """An actor that waits, and for what, in words."""

    actor: int
    kind: WaitClass
    waiter: str
    waits_for: str
    held_by: str
    released_by: str


class Node(TypedDict):
    """One state, the same for the terminal, the served page and the exported file.

    id        a digest of the state
    state     section -> rows of integers, fields in the order of layout.SECTIONS
    flags     a page's flags as page-types would print them, one string a page
    folio     the head page of each page's folio
    actors    what each actor is at, in words
    enabled   the enabled moves in index order;  refused: the others
    broken    [number, page] of the properties that the state itself breaks (1 and 2)
    pending   [leads-to, actor] of what has begun and not ended
    stalls    who waits, as waits.words.stalls tells it
    """

    id: str
    state: dict[str, list[list[int]]]
    flags: list[str]
    folio: list[int]
    actors: list[str]
    enabled: list[Enabled]
    refused: list[Refused]
    broken: list[list[int]]
    pending: list[list[int]]
    stalls: list[Stalled]


class Judged(TypedDict):
    """A property at the end of a path. where: the pages, the step or the actors; "" if there is nothing to name."""

    name: str
    truth: Literal["holds", "broken", "waiting"]
    where: str


class Taken(TypedDict):
    """A move that was taken, and its outcome, in words."""

    what: str
    outcome: str


Changed = TypedDict("Changed", {"field": str, "was": str, "is": str})
"""A field of the state, such as "uv[1].state", before and after the last step."""


class Skipped(TypedDict):
    """Moves of the leading policy, numbered from 1, that another policy could not take."""

    step: int
    last: int
    why: str


class InStep(TypedDict):
    """The state of another policy or machine after the same moves."""

    policy: str
    machine: str
    path: str
    flags: list[str]
    actors: list[str]
    stalls: list[Stalled]
    skipped: list[Skipped]


class Record(Node):
    """The state at the end of a path: its node, and how it was reached.

    steps      the number of steps;  way: each of them
    changed    by the last step;  flags_before: those before it
    in_step    the other policies' states
    reproduce  the command that prints this record
    """

    scenario: str
    policy: str
    machine: str
    path: str
    steps: int
    way: list[Taken]
    changed: list[Changed]
    flags_before: list[str]
    properties: list[Judged]
    in_step: list[InStep]
    reproduce: str
