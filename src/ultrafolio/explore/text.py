"""A state of a walk as text for a terminal."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator, Sequence

from ultrafolio.export import text_in
from ultrafolio.model.scenario import EVERY_MACHINE
from ultrafolio.nouns import plural
from ultrafolio.screen import columns

from .node import changes, node, properties, stall_line, what
from .shapes import Enabled, InStep, Record, Refused, Skipped, Stalled
from .walk import Trail, Walk, path_text


def record(walk: Walk, trail: Trail, others: Sequence[Walk]) -> Record:
    """The state at the end of a trail as one JSON object: its node, changes, properties, and other policies' walks."""
    here = node(walk, trail.here)
    before = node(walk, trail.states[-2]) if trail.moves else here
    return {
        "scenario": walk.scenario,
        "policy": walk.policy,
        "machine": walk.story.machine,
        "path": path_text(trail.path),
        "steps": len(trail.path),
        "way": [{"what": what(walk, move), "outcome": move.outcome_word} for move in trail.moves],
        **here,
        "changed": [{"field": field, "was": was, "is": now} for field, was, now in changes(walk, before, here)],
        "flags_before": before["flags"],
        "properties": properties(walk, trail.moves, here),
        "in_step": [_in_step(other, trail) for other in others],
        "reproduce": shlex.join(_command(walk, trail, others)),
    }


def _command(walk: Walk, trail: Trail, others: Sequence[Walk]) -> list[str]:
    """Returns the words of the command that shows these walks at the end of a trail of the first."""
    several = len({one.story.machine for one in (walk, *others)}) > 1
    policies = dict.fromkeys(one.policy for one in others if one.policy != walk.policy)
    words = walk.command(trail.path, EVERY_MACHINE if several else walk.machine)
    return [*words, *(word for policy in policies for word in ("--policy", policy))]


def _in_step(other: Walk, lead: Trail) -> InStep:
    """Another policy's state after the moves of a leading trail, and the moves that it could not take."""
    followed = other.in_step(lead)
    here = node(other, other.follow(followed.path).here)
    skipped: list[Skipped] = [{"step": first, "last": last, "why": why} for first, last, why in followed.skipped]
    return {
        "policy": other.policy,
        "machine": other.story.machine,
        "path": path_text(followed.path),
        "flags": here["flags"],
        "actors": here["actors"],
        "stalls": here["stalls"],
        "skipped": skipped,
    }


def shown(walk: Walk, made: Record) -> str:
    """A record as text, wrapped to screen.columns()."""
    return "\n".join(
        [
            f"{made['scenario']} under {_under(walk, made)}: {_where(made)}",
            "",
            *_way(made),
            *_pages(made),
            *_actors(walk, made["actors"]),
            *_stalls(made["stalls"]),
            *_changed(made),
            "",
            *_enabled(walk, made),
            *_refused(made),
            "",
            *_properties(made),
            *_followers(walk, made),
            "",
            textwrap.fill(text_in.of(walk.design.name).LEGEND, columns()),
            f"reproduce: {made['reproduce']}",
        ]
    )


def _under(walk: Walk, made: Record | InStep) -> str:
    """Returns the policy, and the machine of a design that has several."""
    return made["policy"] + (f" on {made['machine']}" if len(walk.design.machines) > 1 else "")


def _where(made: Record) -> str:
    """Returns the path in words."""
    path = made["path"] or "(none)"
    return f"path {path}, {plural(made['steps'], 'step')} from the start"


def _folded(text: str, first: str, rest: str) -> list[str]:
    """Returns a text in lines of the terminal's width; `first` and `rest`: what they begin with."""
    return textwrap.wrap(text, columns(), initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)


def _way(made: Record) -> Iterator[str]:
    """Yields the line of the last step, if there is one."""
    if made["way"]:
        last = made["way"][-1]
        yield f"last step: {last['what']}: {last['outcome']}"


def _pages(made: Record) -> Iterator[str]:
    """A line for each page; a changed page also has its flags before, and a mark under each changed letter."""
    for page, (was, now) in enumerate(zip(made["flags_before"], made["flags"], strict=True)):
        head = made["folio"][page]
        tail = "" if head == page else f"  folio of page {head}"
        if was == now:
            yield f"  page {page:<3} {now}{tail}"
            continue
        yield f"  page {page:<3} {was} -> {now}{tail}"
        marks = "".join("^" if was[i : i + 1] != letter else " " for i, letter in enumerate(now))
        yield " " * (len(f"  page {page:<3} {was} -> ")) + marks.rstrip()


def _actors(walk: Walk, actors: Sequence[str]) -> Iterator[str]:
    """Yields a line for each actor."""
    for who, doing in zip(walk.actors, actors, strict=True):
        yield f"  {who:<14} {doing}"


def _stalls(stalls: Sequence[Stalled]) -> Iterator[str]:
    """A paragraph for each waiting actor: class, holder of the obstacle, releasing step."""
    for some in stalls:
        yield from _folded(stall_line(some), "", "  ")


def _changed(made: Record) -> list[str]:
    """Returns the lines of what the last step changed."""
    if not made["changed"]:
        return []
    listed = "; ".join(f"{c['field']} {c['was']} -> {c['is']}" for c in made["changed"])
    return _folded(f"changed: {listed}", "", "  ")


def _meets(move: Enabled | Refused) -> list[str]:
    """Returns the lines of the obstacle that a move finds, if it finds one."""
    if "meets" not in move:
        return []
    meets = move["meets"]
    return _folded(f"{meets['for']}; held by {meets['held']}; released by {meets['released']}", "       ", "       ")


def _enabled(walk: Walk, made: Record) -> Iterator[str]:
    """Yields the lines of each enabled move: its index, what it does, its source."""
    rules = {rule.name: rule for rule in walk.design.rules.values()}
    yield "enabled:" if made["enabled"] else "enabled: nothing"
    for index, move in enumerate(made["enabled"]):
        broke = f"  breaks property {move['broke']}" if move["broke"] else ""
        yield f"  {index:>2}   {move['what']}: {move['outcome']}{broke}"
        rule = rules[move["rule"]]
        mail = f' - "{rule.seed}"' if rule.seed else ""
        yield from _folded(f"{rule.kernel}{mail}", "       ", "       ")
        yield from _meets(move)


def _refused(made: Record) -> Iterator[str]:
    """Yields the lines of each refused move: what it does, and why it is refused."""
    yield "refused:" if made["refused"] else "refused: nothing"
    for move in made["refused"]:
        condition = f", where {move['condition']}" if move["condition"] else ""
        yield from _folded(f"{move['what']}: {move['guard']}, waits for {move['why']}{condition}", "   -   ", "       ")
        yield from _meets(move)


def _properties(made: Record) -> Iterator[str]:
    """Yields the lines of each property's truth."""
    yield "properties in this state:"
    for one in made["properties"]:
        where = f"; {one['where']}" if one["where"] else ""
        yield from _folded(f"{one['name']}{where}", f"  {one['truth']:<8} ", " " * 11)


def _followers(walk: Walk, made: Record) -> Iterator[str]:
    """Yields the lines of each other policy: its state, and the moves that it could not take."""
    for other in made["in_step"]:
        taken = made["steps"] - sum(skip["last"] - skip["step"] + 1 for skip in other["skipped"])
        yield ""
        yield f"the same under {_under(walk, other)}: took {taken} of {plural(made['steps'], 'step')}"
        yield f"  path {other['path'] or '(none)'}"
        yield from (f"  page {page:<3} {flags}" for page, flags in enumerate(other["flags"]))
        yield from _actors(walk, other["actors"])
        yield from _stalls(other["stalls"])
        for skip in other["skipped"]:
            several = skip["last"] > skip["step"]
            steps = f"steps {skip['step']} to {skip['last']}" if several else f"step {skip['step']}"
            yield from _folded(f"could not take {steps}: {skip['why']}", "  ", "    ")
