"""The call search: all policies of a design on scenarios, as `ultrafolio search`."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ultrafolio import shipped
from ultrafolio.check.verdicts.verdict import MAX_STATES
from ultrafolio.errors import InputError, one_of
from ultrafolio.export.observation import facts_of, word_of
from ultrafolio.export.prose import finding_prose
from ultrafolio.model import scenario as scenarios_of
from ultrafolio.model.designs import DESIGNS, S390
from ultrafolio.names.find import stem
from ultrafolio.search import files, words
from ultrafolio.search import space as spaces
from ultrafolio.search.answer import Found
from ultrafolio.search.asked import Asked
from ultrafolio.search.table import Table

from .calls import check
from .named import Policy, Scenario, no_such_type
from .results import Search
from .searching import Made, Told, tables

SWEPT = "sweep"
"""The folder of the runs of survivors, beside the tables."""


def search(
    *scenarios: str | Path | Scenario,
    design: str = "",
    machine: str = "",
    require: Sequence[str] = (),
    start: str | Policy | None = None,
    set_aside: Sequence[str] = (),
    out: str | Path | None = None,
    sweep: str | Path | None = None,
    max_states: int = MAX_STATES,
    workers: int | None = None,
    executor: Made | None = None,
    told: Told | None = None,
) -> Search:
    """Ask every policy of a design about scenarios, as `ultrafolio search`; without scenarios, about all of the design.

    design      the design of all scenarios; "" is that of the scenarios, or s390
    machine     another machine than the scenarios name; only policies that it can enforce are searched
    require     words CHOICE=VALUE|VALUE: only policies with one of these values
    start       a policy whose smallest changes are told, after which it passes; bugs of a kernel are left out
    set_aside   names of scenarios that survivors are not asked about
    out         a folder that keeps the verdicts, from which the same call resumes, and the answer
    sweep       a plan on whose workloads the survivors are simulated; needs `out`
    max_states  the limit of one exploration; the verdict is then unknown
    workers     number of processes; None is one for each core, 0 computes in this process
    executor    from a folder to what computes there, instead of `workers` processes of this machine
    told        called with the name and the table of each scenario that is done

    >>> found = uf.search("g38-removal-fails", start="gmem-7.4", workers=0)
    >>> found.policies, found.survivors
    (5760, 4320)
    >>> [cure["changes"] for cure in found.record["from"]["survives_after"]]
    [{'convert': 'two-backings'}, {'stuck': 'kept'}]
    """
    stories, sources = _stories(scenarios, design, machine)
    space = spaces.of(stories[0][1].design)
    if not isinstance(max_states, int) or not 1 <= max_states <= 2**31 - 2:
        raise InputError("search: max_states", value=max_states, allowed=f"1 to {2**31 - 2}")
    folder = Path(out) if out else None
    asked = Asked(space.design, stories, space.box(_required(require)), folder, max_states)
    if not asked.wanted.any():
        raise InputError("no policy is left to search", value=" ".join(require),
                         allowed="a machine that can enforce one of them", then="ultrafolio policies")  # fmt: skip
    names, aside = [name for name, _ in stories], [stem(str(one)) for one in set_aside]
    unknown = [one for one in aside if one not in names]
    if unknown:
        raise InputError("--set-aside names a scenario that is not searched", value=unknown[0],
                         allowed="one of the scenarios", then="ultrafolio search --help")  # fmt: skip
    if sweep and not folder:
        raise InputError("--sweep keeps its results", value=str(sweep), allowed="--out DIR beside it",
                         then="ultrafolio search --help")  # fmt: skip
    given = _start(asked, start, require)
    typed = _command(sources if scenarios else {}, space.design, machine, require, set_aside, start, max_states)
    made_by = executor or _processes(workers)
    found = Found(space, names, tables(asked, made_by, told or _silent), asked.wanted, asked.within, aside)
    question = words.Asked(space.design, machine, tuple(require), tuple(aside), typed, sources, *given)
    said = words.record(found, question, _story(asked))
    if sweep and folder and found.rest and found.surviving.any():
        from .survivors import swept

        said["sweep"] = swept(found, Path(sweep), folder / SWEPT, made_by)
    if folder:
        files.write_answer(folder, said)
    return Search(said)


def _silent(name: str, made: Table) -> None:
    """Say nothing of a table."""


def _command(
    sources: Mapping[str, str], design: str, machine: str, require: Sequence[str], aside: Sequence[str],
    start: str | Policy | None, max_states: int,
) -> str:  # fmt: skip
    """Returns the command that asks the same; "" where a scenario or a policy has no name that a command takes."""
    policy = start.source if isinstance(start, Policy) else start
    if not all(sources.values()) or policy == "":
        return ""
    return shlex.join([
        "ultrafolio", "search", *(sources.values() or ("--design", design)),
        *(["--machine", machine] if machine else []),
        *(word for one in require for word in ("--require", one)),
        *(["--from", policy] if policy else []),
        *(word for one in aside for word in ("--set-aside", one)),
        *(["--max-states", str(max_states)] if max_states != MAX_STATES else []),
    ])  # fmt: skip


def _processes(workers: int | None) -> Made:
    """Returns the function that gives `workers` processes of this machine. InputError as executor_of()."""
    from ultrafolio.sweep.local.processes import executor_of

    made = executor_of(workers)
    return lambda folder: made


def _stories(
    given: Sequence[str | Path | Scenario], design: str, machine: str
) -> tuple[list[tuple[str, scenarios_of.Scenario]], dict[str, str]]:
    """The scenarios with their names, of one design, on the machine; per name what a command takes for it. InputError
    for none, for two designs, or for two scenarios of one name."""
    if design and design not in DESIGNS:
        raise one_of("search: design", design, DESIGNS)
    made = [_named(one) for one in given or shipped.shipped("scenarios", below=True)]
    sources = {name: (story.source if given else name) for name, story in made}
    wanted = design or (made[0][1].story.design if given else S390.name)
    others = [name for name, story in made if story.story.design != wanted]
    if given and others:
        raise InputError("scenarios of two designs", value=others[0], allowed=f"scenarios of the design {wanted}",
                         then=f"ultrafolio search --design {wanted}")  # fmt: skip
    if len(sources) < len(made):
        raise InputError("two scenarios of one name", value=", ".join(name for name, _ in made),
                         allowed="each name once", then="ultrafolio search --help")  # fmt: skip
    some = [(name, story.story) for name, story in made if story.story.design == wanted]
    return [(name, _on(story, machine, name)) for name, story in some], sources


def _named(given: str | Path | Scenario) -> tuple[str, Scenario]:
    """Returns a scenario with its name in the answer."""
    story = given if isinstance(given, Scenario) else Scenario.find(given)
    return stem(story.name), story


def _on(story: scenarios_of.Scenario, machine: str, name: str) -> scenarios_of.Scenario:
    if not machine:
        return story
    scenarios_of.several_machines(story, machine, name)
    return scenarios_of.on_machine(story, machine, name)


def _required(required: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The choices and values of --require. InputError for a word of another form."""
    made = []
    if isinstance(required, str):
        raise no_such_type("search: require", required, 'a list of words, such as ["refs=folio"]')
    for word in required:
        choice, _, values = str(word).partition("=")
        if not values:
            raise InputError("--require", value=word, allowed="CHOICE=VALUE, or CHOICE=VALUE|VALUE",
                             then="ultrafolio policies")  # fmt: skip
        made.append((choice, values.split("|")))
    return made


def _start(
    asked: Asked, start: str | Policy | None, required: Sequence[str]
) -> tuple[tuple[str, spaces.Values] | None, bool]:
    """The policy of --from with its values, and whether bugs of it are left out. InputError where it is not one of
    those that are searched."""
    if start is None:
        return None, False
    given = start if isinstance(start, Policy) else Policy.find(start)
    values = asked.space.values_of(given.choices, given.name)
    if not asked.wanted.reshape(-1)[asked.space.counted[values]]:
        raise InputError("--from is not one of the policies that are searched", value=given.name,
                         allowed="a policy with " + " ".join(required or ("a machine that can enforce it",)),
                         then="ultrafolio policies")  # fmt: skip
    return (given.name, values), bool(given.choices.variants)


def _story(asked: Asked) -> words.Story:
    """The function that says what the story of a failure is, by its check: the word of its kind, the property, who
    waits for what or which property breaks, and the paragraphs that tell it."""
    stories = dict(asked.stories)

    @functools.cache
    def story(scenario: str, values: spaces.Values) -> dict[str, Any]:
        policy = Policy("searched", "", asked.space.policy(values))
        worst = check(Scenario(scenario, "", stories[scenario]), policy=policy).worst
        word = word_of("violated", worst.kind, worst.expected)
        told = [" ".join(paragraph.split()) for paragraph in finding_prose(worst)]
        return {"word": word, "property": worst.name, "facts": facts_of(worst), "told": told}

    return lambda fails: story(fails.scenario, fails.example)
