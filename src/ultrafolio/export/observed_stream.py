"""The line that decides, of a folio group of a cluster: what its stream did, as the rules replay it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ultrafolio.check.verdicts.verdict import KINDS
from ultrafolio.model import policies, scenario
from ultrafolio.model.designs import NUMBERS, S390
from ultrafolio.model.layout import State, pack
from ultrafolio.state.sections import Meta
from ultrafolio.state.store import Event
from ultrafolio.state.validate import Replay
from ultrafolio.state.validate import origin as began
from ultrafolio.waits import telling

from .observation import NO_FACTS, hash_of, hashed_text, observation_line, rules_digest, waiting, word_of

Stories = Mapping[str, scenario.Scenario]
"""Scenarios by name."""
_WAITING = "waiting"
_KIND = {_WAITING: "transient", "expected": "permanent"}


def of_stream(replay: Replay, group: str, events: Sequence[Event], stories: Stories) -> str:
    """The line of a group: one run of one.

    Unknown where the rules refuse the stream. Else the worst decides: a broken property; then the waits of the last
    state, in the order of KINDS, an expected one after those that count. Waits: one that a fair step ends, or an import
    that was refused and tried again, since the last checkpoint.

    replay   of `events`, at its end;  stories: where its scenario is looked for
    """
    words: Any = telling.of(replay.live)
    verdict, kind, expected, facts = "holds", None, False, NO_FACTS
    stalls = {stall.kind: stall for stall in reversed(words.stalls(replay.live))}
    met = [kind for kind in (*KINDS, "expected", _WAITING) if kind in stalls]
    if not replay.verdict.accepted:
        verdict = "unknown"
    elif replay.verdict.broken:
        kind, facts = "safety", f"property{NUMBERS[replay.verdict.broken[0][1]]}"
    elif met:
        kind, expected = _KIND.get(met[0], met[0]), met[0] == "expected"
        stall = stalls[met[0]]
        facts = waiting(words.name(replay.live, stall.actor), stall.wait.brief)
    elif replay.refused:
        kind = "transient"
    name, policy, hashed = origin(*began(events), stories)
    return observation_line(name or group, policy, word_of(verdict, kind, expected), 1, 1, facts, hashed, "cluster")


def origin(meta: Meta, first: State, stories: Stories) -> tuple[str, str, str]:
    """(scenario, policy, hash) of a group that began in the state `first`.

    The scenario whose initial state, actors and choices are these, and the first policy with these choices: a preset,
    a kernel, or a table of the scenario. Without one the group's own title, "-" for a policy without a name, and a
    hash over its layout.
    """
    title = meta.scenario
    of_design = {name: _on_machine(meta, name, story) for name, story in stories.items() if story.design == meta.named}
    for name, story in sorted(of_design.items(), key=lambda item: (title not in (item[0], item[1].title), item[0])):
        if policy := _policy(meta, story.tables):
            choices = policies.find_any(policy, story.tables)
            made = scenario.system(story, choices)
            if _laid_out(made.state, made.choices) == _laid_out(first, meta.choices):
                return name, policy, hash_of(story, choices)
    return (
        title,
        _policy(meta, {}) or "-",
        hashed_text({"layout": _laid_out(first, meta.choices), "rules": rules_digest()}),
    )


def _on_machine(meta: Meta, name: str, story: scenario.Scenario) -> scenario.Scenario:
    """Returns a scenario of a group's design on the group's machine."""
    if meta.design is S390:
        return story
    return scenario.on_machine(story, meta.design.machines[int(meta.cfg[0]["machine"])], name)


def _laid_out(state: State, choices: Sequence[Sequence[Sequence[int]]]) -> list[Any]:
    """All that a group is: its constants, its state and what each actor may choose."""
    numbers = [[list(one) for one in some] for some in choices]
    return [state.cfg.tobytes().hex(), state.who.tobytes().hex(), pack(state).hex(), numbers]


def _policy(meta: Meta, tables: Mapping[str, Any]) -> str:
    """The name of the first policy that has the choices of a group's constants; "" if none has them."""
    shipped = policies.names() if meta.design is S390 else policies.presets_of(meta.named)
    for name in [*shipped, *tables]:
        policy = policies.find_any(name, tables)
        if policies.design_of(policy) != meta.named:
            continue
        codes = policy.codes()
        if all(int(meta.cfg[0][field]) == code for field, code in codes.items()):
            return str(name)
    return ""
