"""What the pages of hangs say, and whether a wait that the checker calls permanent agrees with it."""

import re
from pathlib import Path

from ultrafolio.check.verdicts.verdict import check
from ultrafolio.model import scenario
from ultrafolio.prove.hangs import judge, words

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| ([a-z-]+) \| ([A-Za-z ]+) \| (\w+) \| ([\d, ]*) \| ([\w-]*) \| (.+) \|$", re.MULTILINE)


def told(design):
    """What the page of a design says: (label of systems, rule, resource) -> (verdict, notes)."""
    text = (ROOT / words.PAGES[design]).read_text()
    notes = dict(re.findall(r"^(\d+)\. (.+)$", text, re.MULTILINE))
    asked, found = list(words.systems_of(design)), {}
    for rule, name, verdict, numbers, _, names in ROW.findall(text):
        said = verdict, {notes[n] for n in re.findall(r"\d+", numbers)}
        for systems in asked if names == "all" else among(asked, names):
            found[systems.label, rule, name] = said
    return found


def among(asked, names):
    """The systems that a cell names: policies, and of some the machines."""
    for policy, machines in re.findall(r"`([\w.-]+)`(?: on ([a-z ]+))?", names):
        some = machines.split(" and ") if machines else None
        yield from (one for one in asked if one.name == policy and (some is None or one.machine in some))


def wrong(story, systems, verdicts, states):
    """The permanent waits of a scenario that are said to be proved, but for exceptions that the scenario has not; how
    many permanent waits there are; None where there are too many states."""
    result = check(story, "drawn", systems.policy, systems.name, judge.extent(systems, states))
    if not result.complete:
        return None
    waits = {
        wait
        for finding in result.findings if finding.kind in ("permanent", "vmm-bound")
        for wait in judge.permanent(finding, scenario.system(story, systems.policy))
    }  # fmt: skip
    return [wait for wait in waits if not allowed(verdicts.get((systems.label, *wait)), story, systems)], len(waits)


def allowed(verdict, story, systems):
    """Whether a permanent wait agrees with what is said of it: it is refuted or open, or an exception covers it.

    A wait that is not on the page is one that a step only tells of.
    """
    if verdict is None:
        return True
    said, notes = verdict
    but = {note.removeprefix("but for ") for note in notes}
    return said != "proved" or judge.excepted(but, judge.lasting(story), systems)


def of_answers(systems, answers):
    """Answers of judge.ranked() as told() says them."""
    return {
        (systems.label, *wait): ("open", set(answer.open)) if answer.open
        else ("proved", {f"but for {one}" for one in answer.but})
        for wait, answer in answers.items()
    }  # fmt: skip
