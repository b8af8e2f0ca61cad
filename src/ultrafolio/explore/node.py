"""One state as plain data for display: pages, actors, enabled and refused moves, broken properties.

The form of a node is that of shapes.Node.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import textwrap
from collections.abc import Sequence

from ultrafolio.check.verdicts.replay import frozen
from ultrafolio.check.verdicts.truth import broken_pages
from ultrafolio.export import text_in
from ultrafolio.model import designs, layout
from ultrafolio.model.designs import GUEST_MEMFD, S390
from ultrafolio.model.guest_memfd.layout import HW_WORDS
from ultrafolio.model.layout import OPS, OWNERS, State
from ultrafolio.waits import load as waits
from ultrafolio.waits import telling
from ultrafolio.waits.tables import OBSTACLE_OF
from ultrafolio.waits.words import Stall

from .shapes import Enabled, Judged, Met, Node, Refused, Stalled
from .walk import Move, Walk, is_idle

STATE_OF = {S390.name: ("uv", "state", "NSHPE"), GUEST_MEMFD.name: ("mm", "private", "HS")}
"""Per design: section and field that say what a page is, and the colour of each of its values in page.css."""
_WORDS: dict[str, dict[str, list[str]]] = {
    S390.name: {
        "uv.state": list(layout.PAGE_STATES),
        "mm.backing": list(layout.BACKINGS),
        "mm.writeback": ["no", "flagged", "writing"],
        "vm.life": ["alive", "rebooting", "gone", "killed"],
        "actor.op": list(OPS),
        "pt.present": ["unmapped", "mapped", "swapped"],
    },
    GUEST_MEMFD.name: {
        "uv.state": list(HW_WORDS),
        "uv.shared": ["private", "shared"],
        "mm.private": ["shared", "private"],
        "actor.op": list(OPS),
        "pt.present": ["unmapped", "mapped as shared", "mapped as private"],
        "task.back": ["no answer", "converted", "refused"],
    },
}
"""Per design: field -> the names of its numbers, but for places of rules."""
GUARDS = {value: name for name, value in vars(layout).items() if name.startswith("W_")}
"""Outcome of a step that is not enabled -> the name of its reason."""


def node(walk: Walk, state: State, moves: Sequence[Move] = ()) -> Node:
    """The node of a state (as lists). `moves`: all its moves, if the caller has them."""
    packed, moves = frozen(state), moves or walk.moves(state)
    run, pages, told = waits.of(state), range(len(state.mm)), telling.of(state)
    pending = [t for t in range(len(walk.actors)) if run.is_pending(state, t)]
    return {
        "id": hashlib.blake2b(repr(packed).encode(), digest_size=8).hexdigest(),
        "state": {name: [list(row) for row in rows] for name, rows in zip(OWNERS, packed, strict=True)},
        "flags": [text_in.of(walk.design.name).page_flags(packed, p) for p in pages],
        "folio": [run.head(state, p) for p in pages],
        "actors": [_doing(walk, state, t) for t in range(len(walk.actors))],
        "enabled": [_enabled(walk, state, move) for move in moves if move.index is not None],
        "refused": [_refused(walk, state, move) for move in moves if move.index is None],
        "broken": [[number, page] for number, page in broken_pages(state)],
        "pending": [[walk.design.leads_to.index(told.owed(state, t)), t] for t in pending],
        "stalls": [_stalled(some) for some in told.stalls(state)],
    }


def _stalled(some: Stall) -> Stalled:
    """A stall as fields, in the words of waits.words."""
    wait = some.wait
    return {
        "actor": some.actor,
        "kind": some.kind,
        "waiter": wait.waiter,
        "waits_for": wait.waits_for,
        "held_by": wait.held_by,
        "released_by": wait.released_by,
    }


def stall_line(some: Stalled) -> str:
    """A stall of a node as one line, its class first."""
    return (
        f"{some['kind']}: {some['waiter']} waits for {some['waits_for']}; held by {some['held_by']}; "
        f"released by {some['released_by']}"
    )


def _doing(walk: Walk, state: State, t: int) -> str:
    """An actor in words: its rule, and its operation."""
    k, a = state.task[t], state.actor[t]
    if is_idle(state, t):
        left = "any number of" if a.budget == layout.ENDLESS else a.budget
        return "running" if state.who[t].kind == layout.VCPU else f"idle, {left} start{'s' * (a.budget != 1)} left"
    wish = f", to {OPS[a.op]} page {a.page}" if a.op else f", page {k.page or a.page}"
    rule = walk.design.rules.get(k.pc)
    return (f"at {rule.name}" if rule else "dead") + wish


def what(walk: Walk, move: Move) -> str:
    """A move in words: "vcpu 0 touch page 1", "vcpu 0 import-freeze"."""
    who = walk.actors[move.actor]
    if move.op != OPS[0] and move.pc in (layout.RUN, layout.ACCESS_IDLE):
        return f"{who} {move.op} page {move.page}"
    return f"{who} {move.rule}" + (f" page {move.page}" if move.op != OPS[0] else "")


def _enabled(walk: Walk, state: State, move: Move) -> Enabled:
    """An enabled move. `meets`: the obstacle that its step finds, and the holders."""
    made: Enabled = {
        "what": what(walk, move), "actor": move.actor, "rule": move.rule, "op": move.op, "page": move.page,
        "outcome": move.outcome_word, "broke": move.step.broke if move.step else 0,
    }  # fmt: skip
    if meets := _met(state, move):
        made["meets"] = meets
    return made


def _refused(walk: Walk, state: State, move: Move) -> Refused:
    """A refused move: the guard's word, its condition in the rule, and the holders, if any."""
    made: Refused = {
        "what": what(walk, move), "actor": move.actor, "rule": move.rule, "op": move.op, "page": move.page,
        "guard": GUARDS[move.outcome], "why": move.outcome_word + _no_start(walk, state, move),
        "condition": guard_source(move.pc, GUARDS[move.outcome], walk.design.name),
    }  # fmt: skip
    meets = None if is_idle(state, move.actor) else _met(state, move)
    if meets:
        made["meets"] = meets
    return made


def _no_start(walk: Walk, state: State, move: Move) -> str:
    """Why an actor cannot start, if the state shows it; else ""."""
    t, run = move.actor, waits.of(state)
    if move.outcome != layout.W_IDLE or not is_idle(state, t):
        return ""
    if not state.actor[t].budget and not (state.who[t].kind == layout.VCPU and move.op == OPS[layout.TOUCH]):
        return ": no starts left"
    if run.waits_its_turn(state, t):
        return f": {walk.actors[state.who[t].after - 1]} has not finished yet"
    if (
        walk.design is S390
        and state.who[t].kind in (layout.RING, layout.INTERRUPT)
        and not run.all_shared(state, t, move.page)
    ):
        return ": the guest does not share the page"
    return ""


def _met(state: State, move: Move) -> Met | None:
    """The obstacle that the move's step finds, its holders and their releasing steps; None without a holder."""
    obstacle, t = OBSTACLE_OF.get(move.outcome, 0), move.actor
    if not obstacle:
        return None
    run = waits.of(state)
    page = run.waited_page(state, t)
    whole = bool(run.is_vcpu(state, t) and run.to_split(state, page))
    if not run.present(state, t, page, whole) & obstacle:
        return None
    wait = telling.of(state).in_words(state, t, obstacle, page, whole)
    told: Met = {"for": wait.waits_for, "held": wait.held_by, "released": wait.released_by}
    return told if wait.held_by else None


@functools.cache
def guard_source(pc: int, guard: str, design: str = S390.name) -> str:
    """The conditions in a rule's source under which it refuses with `guard`; "" if a called function refuses."""
    rules = designs.DESIGNS[design].rules
    if pc not in rules:
        return ""
    tree = ast.parse(textwrap.dedent(inspect.getsource(rules[pc].function)))
    found = [
        ast.unparse(branch.test)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If)
        for inner in branch.body
        if isinstance(inner, ast.Return) and isinstance(inner.value, ast.Name) and inner.value.id == guard
    ]
    return " or ".join(f"({test})" if len(found) > 1 else test for test in found)


@functools.cache
def words_of(design: str) -> dict[str, list[str]]:
    """Field -> the names of its numbers, in the design of this name."""
    known = designs.DESIGNS[design]
    places = [known.rules[pc].name if pc in known.rules else "dead" for pc in range(known.last_rule + 1)]
    return {"task.pc": places, "task.then": places, "task.back": places, **_WORDS[design]}


def word(section: str, field: str, value: int, design: str) -> str:
    """A field's value as text, by name if words_of() the design has the field."""
    names = words_of(design).get(f"{section}.{field}", [])
    return names[value] if value < len(names) else str(value)


def sections_of(walk: Walk) -> dict[str, list[str]]:
    """The names of the fields of each section of a walk's states."""
    return {name: list(getattr(walk.system.state, name).dtype.names) for name in OWNERS}


def changes(walk: Walk, before: Node, after: Node) -> list[tuple[str, str, str]]:
    """The differences between two nodes: (field, value before, value after), such as ("uv[1].state", "SECURE", …)."""
    name = walk.design.name
    return [
        (f"{section}[{i}].{field}", word(section, field, old, name), word(section, field, new, name))
        for section, fields in sections_of(walk).items()
        for i, rows in enumerate(zip(before["state"][section], after["state"][section], strict=True))
        for field, old, new in zip(fields, *rows, strict=True)
        if old != new
    ]


def properties(walk: Walk, moves: Sequence[Move], here: Node) -> list[Judged]:
    """Every property's truth at the end of a path.

    An always-property is broken by the last step or by the state; if only an earlier step broke it, it holds and
    `where` names that step. A leads-to is waiting while an operation is pending.
    """
    made: list[Judged] = []
    names = walk.design.properties
    for number in range(1, len(names)):
        at = [i for i, move in enumerate(moves, 1) if move.step and move.step.broke == number]
        pages = [f"page {page}" for n, page in here["broken"] if n == number]
        now = bool(pages) or bool(at and at[-1] == len(moves))
        where = ", ".join(pages) or ("by the step that led here" if now else f"broken by step {at[-1]}" if at else "")
        made.append({"name": names[number], "truth": "broken" if now else "holds", "where": where})
    for n, name in enumerate(walk.design.leads_to):
        waiting = [f"{walk.actors[t]} ({here['actors'][t]})" for m, t in here["pending"] if m == n]
        made.append({"name": name, "truth": "waiting" if waiting else "holds", "where": "; ".join(waiting)})
    return made
