"""What a search found, as text and as JSON."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ultrafolio.nouns import plural
from ultrafolio.search import space as spaces
from ultrafolio.search.answer import Core, Cure, Fails, Found
from ultrafolio.search.rows import rows
from ultrafolio.search.space import Array, Values

MOST_LINES = 12
"""Rows, fronts, cores and cures of one kind that the text has; JSON has all."""


Story = Callable[[Fails], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked, for the words: names; the words of --require; the names of --set-aside; the command that asks it;
    per scenario what a command takes for it, "" if none can; the name, and the values, of --from."""

    design: str
    machine: str
    required: tuple[str, ...]
    aside: tuple[str, ...]
    command: str
    sources: Mapping[str, str]
    start: tuple[str, Values] | None = None
    without_bugs: bool = False


def record(found: Found, asked: Asked, story: Story) -> dict[str, Any]:
    """The answer as a JSON object. story: what the story of a failure is, by names of its fields."""
    made: dict[str, Any] = {
        "design": asked.design,
        "machine": asked.machine or None,
        "require": list(asked.required),
        "set_aside": list(asked.aside),
        "command": asked.command,
        "scenarios": found.names,
        "policies": found.searched,
        "verdicts": found.pairs,
        "nobody_passes": [_fails(found, one, asked, story) for one in found.nobody_passes()],
        "left": [found.names[n] for n in found.rest],
        "survivors": int(found.surviving.sum()) if found.rest else 0,
        "undecided": found.undecided,
        "front": [_front(found, scenarios, some) for scenarios, some in found.front()],
        "cores": [_core(found, core, asked, story) for core in found.cores(asked.start[1] if asked.start else None)],
    }
    if asked.start:
        name, values = asked.start
        made["from"] = {"policy": name, "without_bugs": asked.without_bugs, "fails": [
            {"scenario": found.names[n], "cures": _cures(found, values, found.cures(values, n))}
            for n in found.failed_by(values) if n in found.rest
        ], "survives_after": _cures(found, values, found.cures(values, None))}  # fmt: skip
    return made


def _front(found: Found, scenarios: Sequence[int], some: Array) -> dict[str, Any]:
    covered = rows(found.space, found.table_of(some), found.within)
    return {
        "fails": [found.names[n] for n in scenarios],
        "policies": int(some.sum()),
        "rows": [{"policies": n, "choices": choices_of(found, box)} for box, n in covered],
    }


def choices_of(found: Found, box: int) -> dict[str, list[Any]]:
    """The choices that a box restricts within what was searched, with their values."""
    said = found.space.words(box)
    searched = found.space.words(found.within)
    return {name: list(values) for name, values in said.items() if searched.get(name) != values}


def _fails(found: Found, fails: Fails, asked: Asked, story: Story) -> dict[str, Any]:
    policy = spaces.policy_name(found.space.policy(fails.example))
    said = {"scenario": fails.scenario, "policies": fails.policies, "policy": policy}
    return said | story(fails) | {"command": command(fails, asked, policy)}


def command(fails: Fails, asked: Asked, policy: str) -> str:
    """The command that prints the story of a failure under a policy; "" for a scenario without a file."""
    source = asked.sources[fails.scenario]
    if not source:
        return ""
    machine = ["--machine", asked.machine] if asked.machine else []
    return shlex.join(["ultrafolio", "check", source, "--policy", policy, *machine])


def _core(found: Found, core: Core, asked: Asked, story: Story) -> dict[str, Any]:
    return {
        "choices": choices_of(found, core.box),
        "policies": core.policies,
        "fails": [_fails(found, one, asked, story) for one in core.fails],
    }


def _cures(found: Found, values: Values, cures: Sequence[Cure]) -> list[dict[str, Any]]:
    made = []
    for cure in cures:
        changes = {axis.name: axis.values[new] for axis, new, old in
                   zip(found.space.axes, cure.values, values, strict=True) if new != old}  # fmt: skip
        made.append({"changes": changes, "then_fails": list(cure.worse)})
    return made


# ------------------------------------------------------------------------------------------------------------- text
def text(said: dict[str, Any]) -> str:
    """The JSON object as text for a reader."""
    where = f", machine {said['machine']}" if said["machine"] else ""
    require = f" with {' '.join(said['require'])}" if said["require"] else ""
    lines = [f"{said['design']}{where}: {plural(said['policies'], 'policy', 'policies')}{require}, "
             f"{plural(len(said['scenarios']), 'scenario')}, {plural(said['verdicts'], 'verdict')}"]  # fmt: skip
    if said["nobody_passes"]:
        lines += ["", "every policy fails, and set aside:"]
        for one in said["nobody_passes"]:
            lines += [f"  {one['scenario']}: {story_line(one)}", f"    {one['command']}"]
    if not said["left"]:
        return "\n".join([*lines, "", "no scenario is left to ask"])
    lines += ["", *_survivors(said)]
    if said["cores"]:
        lines += ["", "choices that no survivor has (policies with them): a scenario that they fail (how many)"]
        lines += _few([_core_lines(core) for core in said["cores"]])
    if "from" in said:
        lines += ["", *_from(said["from"])]
    if "sweep" in said:
        lines += ["", *_swept(said["sweep"])]
    return "\n".join(lines)


def _few(blocks: Sequence[list[str]]) -> list[str]:
    lines = [line for block in blocks[:MOST_LINES] for line in block]
    return lines + ([f"  and {len(blocks) - MOST_LINES} more: --json"] if len(blocks) > MOST_LINES else [])


def _survivors(said: dict[str, Any]) -> list[str]:
    lines = [f"no more is known of {plural(said['undecided'], 'policy', 'policies')}: a limit was reached"] * bool(
        said["undecided"]
    )
    if said["survivors"]:
        lines += [f"{plural(said['survivors'], 'policy passes', 'policies pass')} all else (rows may share some):"]
        return lines + _few([_row(row) for row in said["front"][0]["rows"]])
    lines += ["no policy passes all else; the least that one fails:"]
    for one in said["front"][:MOST_LINES]:
        lines += [f"  {', '.join(one['fails'])}: {plural(one['policies'], 'policy', 'policies')}"]
        lines += [f"  {line}" for line in _few([_row(row) for row in one["rows"]])]
    left = len(said["front"]) - MOST_LINES
    return lines + ([f"  and {left} more: --json"] if left > 0 else [])


def choice_words(choices: dict[str, Any]) -> str:
    """What a row, or a core, says of choices, in words."""
    return " ".join(f"{name}={'|'.join(map(str, values))}" for name, values in choices.items()) or "any"


def _row(row: dict[str, Any]) -> list[str]:
    return [f"  {row['policies']:>7}  {choice_words(row['choices'])}"]


def _core_lines(core: dict[str, Any]) -> list[str]:
    lines = [f"  {choice_words(core['choices'])} ({core['policies']})"]
    for one in core["fails"]:
        lines += [f"    {one['scenario']} ({one['policies']}): {story_line(one)}", f"      {one['command']}"]
    return lines


def story_line(one: dict[str, Any]) -> str:
    """The line of a failure: its word, and who waits for what or which property breaks."""
    return f"{one['word']} {one['facts']}"


def _from(said: dict[str, Any]) -> list[str]:
    bugs = ", without its bugs," if said["without_bugs"] else ""
    if not said["fails"]:
        return [f"{said['policy']}{bugs} passes all else"]
    lines = [f"{said['policy']}{bugs} fails, and what cures it alone:"]
    for one in said["fails"]:
        lines += [f"  {one['scenario']}: {cure_words(one['cures'])}"]
    return [*lines, f"  all of them: {cure_words(said['survives_after'])}"]


def _swept(said: dict[str, Any]) -> list[str]:
    lines = [f"on {said['plan']}, {plural(said['cells'], 'run')}, no other one beats:"]
    for one in said["front"]:
        measures = ", ".join(f"{name} {value:,.10g}" for name, value in one["measures"].items())
        lines += [f"  {measures}", *(f"  {line}" for line in _few([_row(row) for row in one["rows"]]))]
    if said["failed_in_runs"]:
        lines += [f"  {plural(len(said['failed_in_runs']), 'policy', 'policies')} hung or broke a property in a run"]
    return lines


def cure_words(cures: Sequence[dict[str, Any]], most: int = 4) -> str:
    """Cures in words, `most` of them; for none, that there is none."""
    if not cures:
        return "no change of up to four choices"
    said = [change_words(cure["changes"]) + _worse(cure["then_fails"]) for cure in cures[:most]]
    more = [f"{len(cures) - most} more"] if len(cures) > most else []
    return "; or ".join(said + more)


def change_words(changes: dict[str, Any]) -> str:
    """Changes of choices in words."""
    return " ".join(f"{name}={value}" for name, value in changes.items())


def _worse(names: Sequence[str]) -> str:
    """Returns, in words, that a changed policy fails scenarios that it passed before; names of three at most."""
    if not names:
        return ""
    more = [f"{len(names) - 3} more"] if len(names) > 3 else []
    return f" (then fails {', '.join([*names[:3], *more])})"
