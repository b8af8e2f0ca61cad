"""One line that decides, the same from every engine, as herd7 prints one for a litmus test:

    Observation 03-virtio whole-folio Hangs 62 110 vcpu0<-pin:virtio1@0 Hash=… by=check

The two numbers are states and edges where a graph was explored; else runs that ended so, and all runs. The hash is over
the scenario, the policy and the rules, and over no name: equal hashes are the same question.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ultrafolio.check.verdicts.verdict import KINDS, Finding, Result
from ultrafolio.engine.load import digest
from ultrafolio.model.bounds import fits
from ultrafolio.model.designs import DESIGNS, NUMBERS, S390
from ultrafolio.model.policies import AnyPolicy
from ultrafolio.model.scenario import Scenario

WORDS = {
    "safety": "Unsafe",
    "fatal": "Fatal",
    "permanent": "Hangs",
    "livelock": "Livelocks",
    "vmm-bound": "VmmBound",
    "transient": "Waits",
}
"""Per kind of finding the word of the line. Besides: Holds, Expected, Unknown."""
_WORDLESS = [kind for kind in KINDS if kind not in WORDS]
fits(
    f"kinds of findings, of which no observation has a word for {', '.join(_WORDLESS)}",
    len(KINDS),
    len(KINDS) - len(_WORDLESS),
    "export/observation.py: WORDS",
)
NO_FACTS = "-"
"""The facts of a line where nothing fails and nobody waits."""


def word_of(verdict: str, kind: str | None, expected: bool) -> str:
    """The word of a verdict and the kind of its worst finding."""
    if verdict == "unknown":
        return "Unknown"
    if kind is None:
        return "Holds"
    return "Expected" if expected else WORDS[kind]


def facts_of(finding: Finding) -> str:
    """Who waits for what and who holds it, as one word; or which property a step broke, whose step, on which page."""
    if finding.kind == "safety":
        step = finding.steps[-1]
        return f"property{NUMBERS[finding.name]}:{step.kind}{step.actor}@{step.page}"
    if finding.wait is None:
        return NO_FACTS
    return waiting(finding.waiter, finding.wait.brief)


def waiting(waiter: str, brief: str) -> str:
    """ "vcpu0<-pin:virtio1@0", of a waiter by name ("vcpu 0") and of a wait's brief form."""
    return f"{''.join(waiter.split(' '))}<-{brief or 'nobody'}"


def observation_line(
    name: str, policy: str, word: str, first: int, second: int, facts: str, hashed: str, by: str
) -> str:
    """The line. A space in a name or a policy becomes "-"."""
    names = f"{'-'.join(name.split(' '))} {'-'.join(policy.split(' '))}"
    return f"Observation {names} {word} {first} {second} {facts} Hash={hashed} by={by}"


def of_result(result: Result, name: str, hashed: str, by: str) -> str:
    """The line of an explored graph. name: the scenario's; hashed: hash_of its scenario and policy."""
    word = word_of(result.verdict, result.worst.kind, result.worst.expected)
    return observation_line(name, result.policy, word, result.states, result.edges, facts_of(result.worst), hashed, by)


def hash_of(story: Scenario, policy: AnyPolicy) -> str:
    """16 digits that are equal where memory, features, actors, the policy's choices and the rules are."""
    return hashed_text({**_asked(story, policy), "rules": rules_digest()})


def question_of(story: Scenario, policy: AnyPolicy) -> str:
    """As hash_of, without the rules."""
    return hashed_text(_asked(story, policy))


def _asked(story: Scenario, policy: AnyPolicy) -> dict[str, Any]:
    actors = [[DESIGNS[story.design].kinds[kind], fields] for kind, fields in story.actors]
    asked = {"memory": story.memory, "features": story.features, "actors": actors, "policy": policy.codes()}
    return asked if story.design == S390.name else {"design": story.design, "machine": story.machine, **asked}


def hash_of_cell(settings: Mapping[str, Any]) -> str:
    """16 digits that are equal where a simulated workload's configuration (sim.config.resolve) and the rules are."""
    return hashed_text({**settings, "rules": rules_digest()})


def hashed_text(asked: dict[str, Any]) -> str:
    """16 digits of SHA-256 of an object as JSON, its names in order, without spaces."""
    text = json.dumps(asked, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@functools.cache
def rules_digest() -> str:
    """The digest of all that decides: rules, and what a wait is."""
    return digest("model", "engine", "waits")
