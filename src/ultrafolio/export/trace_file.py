"""The trace file: a self-contained counterexample that can be certified again later.

It has the full scenario and policy, the path, the result of each step, and the claim. It is not signed: a file that was
changed into another true story is certified.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from ultrafolio.check.search.packing import MAX_ACTORS
from ultrafolio.check.verdicts import told_in
from ultrafolio.check.verdicts.certificate import certify_story
from ultrafolio.check.verdicts.claim import Claim, WaitKind
from ultrafolio.check.verdicts.minimise import minimise
from ultrafolio.check.verdicts.replay import (
    NotCertified,
    Step,
    certify_lasso,
    certify_violation,
    copied,
    is_pending,
    replay,
)
from ultrafolio.check.verdicts.replay import take as take_step
from ultrafolio.check.verdicts.verdict import Finding, Result
from ultrafolio.engine.interp import to_lists
from ultrafolio.engine.load import digest, interpreted_of
from ultrafolio.errors import InputError, one_of
from ultrafolio.fields import Field, take
from ultrafolio.model import designs, scenario
from ultrafolio.model.layout import SPLIT, State
from ultrafolio.model.policies import AnyPolicy, of_design
from ultrafolio.model.scenario import Scenario, System, document
from ultrafolio.version import __version__
from ultrafolio.waits import load as waits
from ultrafolio.waits import telling
from ultrafolio.waits.tables import BUSY, OBSTACLE_OF, OBSTACLES, PAGE

FORMAT, VERSION = "ultrafolio-trace", 3
"""Files of version 1 have no class of a wait; the words of versions 1 and 2 were not made from the story. Both are
read, and what they lack is not tested."""
ClaimKind = Literal["property", "wait", "stall"]
CLAIMS = get_args(ClaimKind)
"""property: exactly the last step breaks property `number`. wait: actor `number` waits along the loop for ever.
stall: actor `number` meets an obstacle next."""
THEN = "ultrafolio check SCENARIO --policy POLICY --save FILE"
_BYS = Field("ints", ..., 0, 2**31 - 1)
TOP = {
    "format": Field("choice", ..., choices=(FORMAT,)), "version": Field("int", ..., 1, VERSION),
    "made_by": Field("text", ""), "reproduce": Field("text", ""), "rules": Field("text"),
    "scenario": Field("table"), "policy": Field("table"),
    "claim": Field("table"), "path": _BYS, "loop": Field("int", None, 0, 2**31 - 1), "start": Field("text"),
    "steps": Field("texts"), "states": Field("texts"),
}  # fmt: skip
SCENARIO = {"name": Field("text"), "document": Field("table")}
POLICY = {"name": Field("text"), "values": Field("table")}
CLAIM = {
    "kind": Field("choice", ..., choices=CLAIMS),
    "number": Field("int", ..., 0, max(MAX_ACTORS, designs.PROPERTIES_END) - 1),
    "text": Field("text", ""), "class": Field("choice", "", choices=("", *get_args(WaitKind))),
    "page": Field("int", 0, 0, 4095), "whole": Field("bool", False), "named": Field("texts", []),
}  # fmt: skip
"""class, page, whole, named: the fields of claim.Claim for a wait; class is "" in a file without one."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace file as read.

    rules   digest of the rules it was made under
    wait    the class that the file claims for a wait, None where it claims none
    path    actor << 16 | choice; loop: where in it the cycle starts (its end: everything rests), None without one
    start, states  digests of the initial state and of the state after each step; steps: each step in words
    given   the file's own fields
    """

    rules: str
    scenario: str
    policy: str
    system: System
    claim: ClaimKind
    number: int
    text: str
    wait: Claim | None
    path: list[int]
    loop: int | None
    start: str
    steps: list[str]
    states: list[str]
    given: dict[str, Any]


# ---------------------------------------------------------------------------------------------- writing
def trace_file(result: Result, finding: Finding, story: Scenario, policy: AnyPolicy) -> dict[str, Any]:
    """The finding's trace file as a JSON object. `story` and `policy` are those that `result` was made from; the
    finding must have steps."""
    steps = [*finding.steps, *finding.cycle]
    ever = finding.verdict == "violated" and finding.kind != "safety"
    kind: ClaimKind = "property" if finding.kind == "safety" else "wait" if ever else "stall"
    number = finding.steps[-1].broke if kind == "property" else finding.actor
    system, classed = scenario.system(story, policy), finding.claim if ever else None
    text = text_of(
        system, [step.by for step in finding.steps], [step.by for step in finding.cycle], kind, number or 0, classed
    )
    made: dict[str, Any] = {
        "format": FORMAT, "version": VERSION, "made_by": f"ultrafolio {__version__}",
        "reproduce": f"{result.command} --save trace.json", "rules": digest(),
        "scenario": {"name": result.scenario, "document": document(story)},
        "policy": {"name": result.policy, "values": asdict(policy)},
        "claim": {"kind": kind, "number": number, "text": text, **_classed(classed)},
        "start": start_digest(system),
    }  # fmt: skip
    return made | _told(steps, len(finding.steps) if ever else None)


def text_of(
    system: System, stem: Sequence[int], cycle: Sequence[int], kind: ClaimKind, number: int, claim: Claim | None
) -> str:
    """Returns a claim in words, from its story alone."""
    if kind == "property":
        return designs.of(system.state).properties[number]
    _, state = replay(system, stem)
    words = telling.of(state)
    name: str = words.owed(state, number)
    if claim is not None:
        return f"{name}; {told_in.of(state).wait_from_story(system, stem, cycle, claim).line()}"
    run = interpreted_of(state)
    page, whole = int(waits.of(state).waited_page(state, number)), state.task[number].pc == SPLIT
    met = OBSTACLE_OF.get(run.step(copied(state), number, 0, 0), 0)
    return f"{name}; {words.in_words(state, number, met, page, whole).line()}" if met else name


def _classed(claim: Claim | None) -> dict[str, Any]:
    """Returns the class of a wait as fields of the file's claim."""
    if claim is None:
        return {}
    return {"class": claim.kind, "page": claim.page, "whole": claim.whole, "named": list(claim.named)}


def _told(steps: Sequence[Step], loop: int | None) -> dict[str, Any]:
    """Returns the fields that describe the steps."""
    told: dict[str, Any] = {
        "path": [step.by for step in steps],
        "steps": [in_words(step) for step in steps],
        "states": [state_digest(step) for step in steps],
    }
    return told if loop is None else {"loop": loop, **told}


def file_text(made: dict[str, Any]) -> str:
    """Returns the JSON object as text with a line per field, for people who read the file."""
    fields = (f" {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in made.items())
    return "{\n" + ",\n".join(fields) + "\n}\n"


def in_words(step: Step) -> str:
    """Returns a step in words: actor, rule, page, outcome."""
    return f"{step.kind} {step.actor} {step.rule} {step.op} page {step.page}: {step.outcome_word}"


def state_digest(step: Step) -> str:
    """Returns a short digest of the state after a step."""
    return hashlib.blake2b(repr(step.after).encode(), digest_size=8).hexdigest()


def start_digest(system: System) -> str:
    """Returns a short digest of the initial state, the policy's codes, and each actor's choices."""
    parts = [array.tolist() for array in system.state], system.choices
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


# ---------------------------------------------------------------------------------------------- reading
def _document(file: Path) -> Any:
    """Returns the JSON value in a file. Raises InputError if it cannot be read, or is not JSON."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file}: no such file", allowed="a trace file", then=THEN) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{file}: cannot be read", value=str(error), allowed="a readable UTF-8 file", then=THEN
        ) from None
    except (ValueError, RecursionError) as error:  # a number may be too long, lists too deep
        raise InputError(f"{file}: not JSON", value=str(error), allowed="a trace file", then=THEN) from None


def read(file: Path) -> Trace:
    """Returns the trace in a file. Raises InputError with the field, the value and what is allowed."""
    given = _document(file)
    top = take(given, str(file), TOP, then=THEN)
    story = take(top["scenario"], f"{file}: scenario", SCENARIO, then=THEN)
    policy = take(top["policy"], f"{file}: policy", POLICY, then=THEN)
    claim = take(top["claim"], f"{file}: claim", CLAIM, then=THEN)
    path, loop = top["path"], top["loop"]
    _check_lengths(file, top, claim)
    asked = scenario.parse(story["document"], f"{file}: scenario: document")
    system = scenario.system(asked, of_design(asked.design, policy["values"], f"{file}: policy: values"))
    _check_claim(file, top["version"], claim, system)
    wait = Claim(claim["number"], claim["class"], claim["page"], claim["whole"], tuple(claim["named"]))
    return Trace(
        top["rules"],
        story["name"],
        policy["name"],
        system,
        claim["kind"],
        claim["number"],
        claim["text"],
        wait if claim["class"] else None,
        path,
        loop,
        top["start"],
        top["steps"],
        top["states"],
        given,
    )


def _check_lengths(file: Path, top: Mapping[str, Any], claim: Mapping[str, Any]) -> None:
    """Raises InputError unless `steps`, `states` and `loop` fit the path."""
    path, loop = top["path"], top["loop"]
    for name in ("steps", "states"):
        if len(top[name]) != len(path):
            raise InputError(
                f"{file}: {name}",
                value=f"{len(top[name])} of them",
                allowed=f"one for each step of path, in all {len(path)}",
                then=THEN,
            )
    if (claim["kind"] == "wait") != (loop is not None) or (loop or 0) > len(path):
        allowed = f"an integer from 0 to {len(path)}" if claim["kind"] == "wait" else "none: this claim has no loop"
        raise InputError(f"{file}: loop", value="none" if loop is None else loop, allowed=allowed, then=THEN)


def _check_claim(file: Path, version: int, claim: Mapping[str, Any], system: scenario.System) -> None:
    """Raises InputError unless the claim's numbers and names exist, and a wait of version 3 has a class."""
    last = len(designs.of(system.state).properties) - 1
    if claim["kind"] == "property" and not 1 <= claim["number"] <= last:
        raise InputError(
            f"{file}: claim: number", value=claim["number"], allowed=f"a property from 1 to {last}", then=THEN
        )
    for word in claim["named"]:
        if word not in (*OBSTACLES, PAGE):
            raise one_of(f"{file}: claim: named", word, (*OBSTACLES, PAGE), then=THEN)
    last_page = len(system.state.mm) - 1
    if claim["page"] > last_page:
        raise InputError(f"{file}: claim: page", value=claim["page"], allowed=f"0 to {last_page}", then=THEN)
    if version > 2 and claim["kind"] == "wait" and not claim["class"]:
        raise InputError(
            f"{file}: claim: class",
            value=claim["class"],
            allowed=", ".join(get_args(WaitKind)),
            cause="a wait of version 3 has a class",
            then=THEN,
        )


# -------------------------------------------------------------------------------------------- verifying
def verify(trace: Trace) -> str | None:
    """None when the plain interpreter confirms every step and the claim; else the first thing that it does not.

    States are compared only under the rules that the trace was made under; other rules may lay them out differently.
    """
    same_rules = trace.rules == digest()
    if same_rules and start_digest(trace.system) != trace.start:
        return "the initial state is not the one that the trace was made from"
    state = to_lists(trace.system.state)
    for number, by in enumerate(trace.path):
        try:
            step = take_step(trace.system, state, by)
        except NotCertified as error:
            return f"step {number + 1}, {trace.steps[number]!r}, is not possible: {error}"
        if in_words(step) != trace.steps[number]:
            return f"step {number + 1} is {in_words(step)!r} and not {trace.steps[number]!r}"
        if same_rules and state_digest(step) != trace.states[number]:
            return f"step {number + 1}, {in_words(step)!r}, leads to another state"
    return _unproved(trace)


def _unproved(trace: Trace) -> str | None:
    """Returns why the claim does not follow from the path, whose steps are all enabled; None if it follows."""
    system, actor = trace.system, trace.number
    if trace.claim != "property" and actor >= len(system.choices):
        return f"the claim fails: there is no actor {actor}, only 0 to {len(system.choices) - 1}"
    try:
        if trace.claim == "property":
            certify_violation(system, trace.path, trace.number)
        elif trace.claim == "wait":
            stem, cycle = trace.path[: trace.loop], trace.path[trace.loop :]
            # the states of a cycle are tested with it; an empty cycle has only this state
            if not is_pending(replay(system, stem)[1], actor):
                raise NotCertified(f"actor {actor} is not waiting there")
            certify_lasso(system, stem, cycle, actor)
            if trace.wait:
                certify_story(system, stem, cycle, trace.wait)
        else:
            _certify_stall(system, trace.path, actor)
        _certify_text(trace)
    except NotCertified as error:
        return f"the claim fails: {error}"
    return None


def _certify_text(trace: Trace) -> None:
    """Raises NotCertified unless the claim's words are those of its story. Files of versions 1 and 2 are not tested."""
    if trace.given["version"] < 3:
        return
    end = len(trace.path) if trace.loop is None else trace.loop
    right = text_of(trace.system, trace.path[:end], trace.path[end:], trace.claim, trace.number, trace.wait)
    if trace.text != right:
        raise NotCertified(f"its words are {trace.text!r}, and the story's are {right!r}")


def _certify_stall(system: System, path: Sequence[int], actor: int) -> None:
    """Raises NotCertified unless after the path the actor has begun something and its next step meets an obstacle."""
    _, state = replay(system, path)
    if not is_pending(state, actor):
        raise NotCertified(f"actor {actor} is not waiting there")
    outcome = interpreted_of(state).step(copied(state), actor, 0, 0)
    if not (outcome < 0 or outcome in BUSY):
        raise NotCertified(f"actor {actor} meets no obstacle next")


# ------------------------------------------------------------------------------------------- minimising
def minimised(trace: Trace) -> dict[str, Any]:
    """The trace file with fewer steps, then fewer context switches, before its end or its cycle (`minimise`).

    The trace must be one that `verify` confirms; so is what comes back.
    """
    end = len(trace.path) if trace.loop is None else trace.loop
    cycle = trace.path[end:]

    def still_bad(steps: list[Step], _: State) -> bool:
        stem = [step.by for step in steps]
        loop = None if trace.loop is None else len(stem)
        return _unproved(replace(trace, path=[*stem, *cycle], loop=loop)) is None

    stem = minimise(trace.system, trace.path[:end], still_bad)
    steps, _ = replay(trace.system, [*stem, *cycle])
    return trace.given | _told(steps, None if trace.loop is None else len(stem))
