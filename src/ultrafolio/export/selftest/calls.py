"""The calls of a story that user space can make, one after the other, with the answers that the rules give then.

A story interleaves steps of several threads. One process makes its calls one by one, so each call of the story stands
where the story ends it, and the rules are run again in that order: an answer is that of the rules for these calls in
this order, and what it was in the story is said where it differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ultrafolio.check.verdicts.replay import NotCertified, Step, take
from ultrafolio.engine.interp import to_lists
from ultrafolio.model import layout as model
from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.model.guest_memfd import layout as memfd
from ultrafolio.model.layout import State
from ultrafolio.model.scenario import System

TOUCH, PIN, UNPIN, CONVERT, HOLE, BATCH, REFERENCE, PUT = (
    "touch", "pin", "unpin", "convert", "hole", "batch", "reference", "put",
)  # fmt: skip
_PINNED = (memfd.DMA_END, memfd.DMA_STANDS, memfd.DMA_ASKED)
BEGINS = {
    memfd.USER_IDLE: TOUCH, model.DEVICE_IDLE: PIN, **dict.fromkeys(_PINNED, UNPIN), memfd.CONVERT_LOCK: CONVERT,
    memfd.HOLE_IDLE: HOLE, model.LRU_IDLE: BATCH, model.SPECULATIVE_IDLE: REFERENCE, model.PUT: PUT,
    memfd.PIPE_READ: PUT,
}  # fmt: skip
"""Place of a rule -> the call that begins there. A page that vmsplice puts into a pipe is a reference, not a pin."""
ENDS = {
    TOUCH: (memfd.USER_IDLE,), PIN: (*_PINNED, model.DEVICE_IDLE), UNPIN: (model.DEVICE_IDLE,),
    CONVERT: (memfd.VMM_RETRY, memfd.VMM_IDLE, model.AGAIN), HOLE: (memfd.HOLE_IDLE,), BATCH: (model.LRU_IDLE,),
    REFERENCE: (model.PUT, memfd.PIPE_READ, model.DEVICE_IDLE), PUT: (model.SPECULATIVE_IDLE, model.DEVICE_IDLE),
}  # fmt: skip
"""Call -> where its thread stands when it has returned."""
_PIPE = GUEST_MEMFD.kinds[memfd.SPLICE]
SUCCESS, EAGAIN, SIGBUS, EFAULT = "0", "-EAGAIN", "SIGBUS", "-EFAULT"
_ANSWERS = (SUCCESS, EAGAIN, SIGBUS, EFAULT)
_ON_PRIVATE = "a reference on a private page, which no call takes"
_MOST_STEPS = 10_000
_WORSE = range(memfd.E_BUSY, memfd.E_LEVEL + 1)
"""Outcomes of machines, and of allocations."""
_TASK, _PC = tuple(model.OWNERS).index("task"), (model.TASK.names or ()).index("pc")


@dataclass(frozen=True, slots=True)
class Call:
    """A call of user space.

    what      one of BEGINS;  actor, name: whose, such as 1 and "vmm 1"
    page, pages  of what;  private: what a conversion asks for;  process, cpu, locked: of the actor
    answer    by the rules; at: the page that a refusal names, or -1
    story     the answer in the story, where it is another one;  inside: actors that have steps inside the call there
    steps     the steps of the call by the rules;  attributes: whether each page is private after it
    changes   whether an attribute is another one then
    missing   why user space cannot make it, or ""
    """

    what: str
    actor: int
    name: str
    page: int
    pages: int
    private: bool
    process: int
    cpu: int
    locked: bool
    answer: str
    at: int
    story: str
    inside: tuple[str, ...]
    steps: tuple[Step, ...]
    attributes: tuple[bool, ...]
    changes: bool
    missing: str


@dataclass(frozen=True, slots=True)
class Other:
    """A step that is no part of a call: of the guest, of KVM for the guest, or a decision of the VMM. why: "" or why a
    call of the story is not made."""

    name: str
    rule: str
    why: str = ""


@dataclass(slots=True)
class _Span:
    """A call in the story: its steps by their places; ended: whether it returned there."""

    what: str
    actor: int
    places: list[int]
    ended: bool = False


def name_of(state: Any, actor: int) -> str:
    """An actor as reports call it."""
    return f"{GUEST_MEMFD.kinds[int(state.who[actor].kind)]} {actor}"


def calls(system: System, story: Sequence[Step]) -> list[Call | Other]:
    """The calls of a story in the order in which they are made, and the other steps between them."""
    state = to_lists(system.state)
    made: list[Call | Other] = []
    for span in _ordered(story):
        if isinstance(span, _Span):
            made.append(_call(system, state, span, story))
        elif (step := _taken(system, state, span)) is not None:
            made.append(Other(f"{step.kind} {step.actor}", step.rule))
    return made


def _place(step: Step, states: Any) -> int:
    """Returns where the step's thread stands in the state before or after it."""
    return int(states[_TASK][step.actor][_PC])


def _begins(place: int, kind: str) -> str | None:
    """Returns the call that an actor of a kind begins at a place, or None."""
    what = BEGINS.get(place)
    return REFERENCE if what == PIN and kind == _PIPE else what


def _ordered(story: Sequence[Step]) -> list[_Span | Step]:
    """Returns the calls and the other steps, a call at its last step; calls that do not end in the story come last."""
    open_calls: dict[int, _Span] = {}
    placed: list[tuple[int, _Span | Step]] = []
    for at, step in enumerate(story):
        span = open_calls.get(step.actor)
        if span is None and (what := _begins(_place(step, step.before), step.kind)):
            span = open_calls[step.actor] = _Span(what, step.actor, [])
        if span is None:
            placed.append((at, step))
            continue
        span.places.append(at)
        if _place(step, step.after) in ENDS[span.what]:
            span.ended = True
            placed.append((at, open_calls.pop(step.actor)))
    rest = sorted(open_calls.values(), key=lambda span: span.places[0])
    return [item for _, item in placed] + list(rest)


def _taken(system: System, state: State, step: Step) -> Step | None:
    """Take a step of the story, if its thread stands where it did; None where it does not, or must wait."""
    if state.task[step.actor].pc != _place(step, step.before):
        return None
    try:
        return take(system, state, step.by)
    except NotCertified:
        return None


def _call(system: System, state: State, span: _Span, story: Sequence[Step]) -> Call | Other:
    """Run a call to its end. Returns it; or why it is not made."""
    first, actor, name = story[span.places[0]], span.actor, name_of(state, span.actor)
    if _begins(int(state.task[actor].pc), first.kind) != span.what:
        return Other(name, first.rule, "these calls in this order do not come to it")
    before, private = _about(state, span, first), _attributes(state)
    steps: list[Step] = []
    try:
        while len(steps) < _MOST_STEPS:
            steps.append(take(system, state, actor << 16 if steps else first.by))
            if state.task[actor].pc in ENDS[span.what]:
                break
    except NotCertified as error:
        return Other(name, first.rule, f"it would wait: {error}")
    answer, told = answer_of(span.what, steps), answer_of(span.what, [story[at] for at in span.places])
    walker = span.what in (REFERENCE, PUT) and first.kind != _PIPE
    return Call(
        **before,
        answer=answer,
        at=int(state.task[actor].failed) - 1 if answer == EAGAIN else -1,
        story=told if span.ended and told != answer else "" if span.ended else "no answer",
        inside=_inside(span, story),
        steps=tuple(steps),
        attributes=_attributes(state),
        changes=_attributes(state) != private,
        missing=_ON_PRIVATE if walker and private[before["page"]] else "" if answer in _ANSWERS else answer,
    )


def _attributes(state: State) -> tuple[bool, ...]:
    """Returns whether each page is private."""
    return tuple(bool(page.private) for page in state.mm)


def _about(state: State, span: _Span, first: Step) -> dict[str, Any]:
    """Returns the fields of a call that are known before it is made."""
    task, actor, who = state.task[span.actor], state.actor[span.actor], state.who[span.actor]
    page, pages = first.page, int(actor.n)
    if span.what == CONVERT:
        page, pages = int(task.start), int(task.end - task.start)
    elif span.what == UNPIN:
        page = int(actor.page)
    elif span.what in (TOUCH, BATCH, REFERENCE, PUT):
        pages = 1
    return {
        "what": span.what, "actor": span.actor, "name": name_of(state, span.actor), "page": page, "pages": pages,
        "private": span.what == CONVERT and task.call == model.UNSHARE, "process": int(who.process),
        "cpu": int(who.cpu), "locked": bool(who.locks),
    }  # fmt: skip


def answer_of(what: str, steps: Sequence[Step]) -> str:
    """Returns the answer of a call with these steps; another outcome in the words of the rules."""
    for step in steps:
        if step.outcome == memfd.E_SIGBUS:
            return EFAULT if what in (PIN, REFERENCE) else SIGBUS
        if step.outcome == memfd.E_AGAIN and what == CONVERT:
            return EAGAIN
        if step.outcome in _WORSE:
            return step.outcome_word
    return SUCCESS


def _inside(span: _Span, story: Sequence[Step]) -> tuple[str, ...]:
    """Returns the actors that take steps between the first and the last step of a call."""
    between = story[span.places[0] : span.places[-1]]
    return tuple(dict.fromkeys(f"{step.kind} {step.actor}" for step in between if step.actor != span.actor))
