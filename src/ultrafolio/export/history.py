"""The verdict lines of one version of the rules as a text file, and what differs between two of them.

    ultrafolio history 1
    rules 5f0c…
    0123456789abcdef Observation 03-virtio whole-folio Hangs 62 110 vcpu0<-pin:virtio1@0 Hash=… by=check

The first word of a line is a hash over scenario and policy without the rules: where it is equal, the same question was
asked under both versions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from ultrafolio.errors import InputError

VERSION = 1
MOST_BYTES = 64 << 20
"""The largest file that is read."""
KINDS = {
    "verdict": "another word decides",
    "facts": "the same word, of another waiter, holder or step",
    "graph": "the same word and facts, from a graph of other size",
    "question": "the same result, of another scenario or policy",
    "new": "not in the earlier version",
    "gone": "not in the later version",
}
"""What can differ in a line, the weightiest first."""
_HEAD = f"ultrafolio history {VERSION}"
_RULES = re.compile(r"rules ([0-9a-f]{32})")
_LINE = re.compile(
    r"([0-9a-f]{16}) (Observation (\S+) (\S+) ([A-Z][A-Za-z]+) (\d{1,12}) (\d{1,12}) (\S+) Hash=[0-9a-f]{16} by=check)"
)


class Pair(NamedTuple):
    """What a line is about."""

    scenario: str
    policy: str


@dataclass(frozen=True, slots=True)
class Told:
    """A line without its names and hash."""

    word: str
    states: int
    edges: int
    facts: str

    def __str__(self) -> str:
        return f"{self.word} {self.states} {self.edges} {self.facts}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A line: the hash of what was asked, the line, and what it tells."""

    question: str
    line: str
    told: Told


@dataclass(frozen=True, slots=True)
class History:
    """The lines of one version of the rules, by scenario and policy."""

    rules: str
    entries: dict[Pair, Entry]

    def text(self) -> str:
        """The file, its lines in the order of their names."""
        lines = [f"{entry.question} {entry.line}" for _, entry in sorted(self.entries.items())]
        return "\n".join([_HEAD, f"rules {self.rules}", *lines]) + "\n"


@dataclass(frozen=True, slots=True)
class Change:
    """A pair of which the two versions differ. kind: of KINDS; before, after: None where it is absent.

    anew    the scenario or the policy is another, too
    """

    kind: str
    pair: Pair
    before: Told | None
    after: Told | None
    anew: bool = False

    def __str__(self) -> str:
        told = f"{self.pair.scenario} {self.pair.policy}: {self.before or '-'} -> {self.after or '-'}"
        return f"{self.kind:<9}{told}{' (another question)' if self.anew else ''}"

    def record(self) -> dict[str, Any]:
        """The change as JSON fields."""
        return {
            "kind": self.kind,
            **self.pair._asdict(),
            "before": asdict(self.before) if self.before else None,
            "after": asdict(self.after) if self.after else None,
            "another_question": self.anew,
        }


def history(rules: str, lines: Iterable[tuple[str, str]]) -> History:
    """The history of (hash of what was asked, line) pairs. Raises InputError where two are about the same names."""
    entries: dict[Pair, Entry] = {}
    for question, line in lines:
        pair, entry = _entry(f"{question} {line}")
        if pair in entries:
            raise InputError(
                "--history: two scenarios of one name",
                value=" ".join(pair),
                allowed="each name once",
                cause="a file is named by its last part, without .toml",
                then="give one of them another name",
            )
        entries[pair] = entry
    return History(rules, entries)


def read(text: str, where: str) -> History:
    """The history in a file's text. Raises InputError that names the line."""
    lines = text.split("\n")
    if lines[0] != _HEAD:
        other = lines[0].startswith("ultrafolio history ")
        raise _unreadable(where, 1, lines[0], _HEAD, "another ultrafolio wrote it" if other else "another kind of file")
    found = _RULES.fullmatch(lines[1]) if len(lines) > 1 else None
    if not found:
        raise _unreadable(where, 2, "".join(lines[1:2]), "rules and 32 digits", "the file is cut or edited")
    if lines[-1]:
        raise _unreadable(where, len(lines), lines[-1], "a line end after every line", "the file is cut")
    entries: dict[Pair, Entry] = {}
    for number, line in enumerate(lines[2:-1], 3):
        if not _LINE.fullmatch(line):
            raise _unreadable(where, number, line, "a hash and an Observation of check", "the file is cut or edited")
        pair, entry = _entry(line)
        if pair in entries:
            raise _unreadable(where, number, line, "each scenario and policy once", "the file is edited")
        entries[pair] = entry
    return History(found.group(1), entries)


def changes(before: History, after: History) -> list[Change]:
    """What differs from one version to the next, the weightiest first, then by name."""
    found = [
        Change(
            kind,
            pair,
            old.told if old else None,
            new.told if new else None,
            bool(old and new and old.question != new.question),
        )
        for pair in {**before.entries, **after.entries}
        for old, new in [(before.entries.get(pair), after.entries.get(pair))]
        if (kind := _kind(old, new))
    ]
    return sorted(found, key=lambda change: (list(KINDS).index(change.kind), change.pair))


def _kind(old: Entry | None, new: Entry | None) -> str:
    """The kind of the difference; "" where only the hash over the rules differs."""
    if old is None or new is None:
        return "new" if old is None else "gone"
    if old.told.word != new.told.word:
        return "verdict"
    if old.told.facts != new.told.facts:
        return "facts"
    if old.told != new.told:
        return "graph"
    return "question" if old.question != new.question else ""


def _entry(line: str) -> tuple[Pair, Entry]:
    found = _LINE.fullmatch(line)
    if not found:
        raise InputError(
            "--history: no line of check",
            value=line,
            allowed="names of letters, digits and signs",
            cause="the name of a scenario or of a policy has a tab or a newline in it, or nothing",
            then="give it another name",
        )
    question, whole, name, policy, word, states, edges, facts = found.groups()
    return Pair(name, policy), Entry(question, whole, Told(word, int(states), int(edges), facts))


def _unreadable(where: str, number: int, line: str, allowed: str, cause: str) -> InputError:
    return InputError(
        f"{where}, line {number}: no history",
        value=line[:80],
        allowed=allowed,
        cause=cause,
        then="move the file out of the folder, then the same again",
    )
