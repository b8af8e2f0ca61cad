"""The line that decides, of operations of the kernel's C: all their ends from one start.

    Observation import+pin@secure linux-6.12.117 Waits 2 6 import0:again Hash=… by=judge

The two numbers are the ends with this result, and all ends. An operation ends at its return, so a line says less than
one of check: where a thread waits, or is refused beside a reference that the start has from elsewhere, the judge cannot
say whether it goes on, and the word is Unknown.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass

from ultrafolio.export.observation import NO_FACTS, hashed_text, observation_line, rules_digest
from ultrafolio.model.layout import NO_WRITEBACK
from ultrafolio.model.policy import Policy

from .concurrent import Ends, Words
from .starts import Start

_AGAIN = "again"
_WORDS = {"late": "Unsafe", "fatal": "Fatal", "waits": "Unknown", "skipped": "Unknown", _AGAIN: "Waits",
          "done": "Holds", "refused": "Holds", "kept": "Holds"}  # fmt: skip
"""Per word with which a thread ends (runs.c_end) that of the line; the worst first."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Operations from a start. told: the number of ends of the C by the words of their threads; empty if there were too
    many states. differs: an end that the rules lack has no explanation."""

    operations: Words
    start: Start
    told: Counter[Words]
    differs: bool = False


def seen(operations: Words, start: Start, in_c: Ends | None, *, differs: bool = False) -> Seen:
    """What one search found; None: it had too many states."""
    return Seen(operations, start, Counter(told for told, _ in in_c.ends) if in_c else Counter(), differs)


def line(one: Seen, place: str, kernel: str, asked: str) -> str:
    """The line of operations from the start that is called `place`. asked: the result of `question`."""
    name = f"{'+'.join(one.operations)}@{place}"
    hashed = hashed_text({"asked": asked, "operations": one.operations, "start": asdict(one.start)})
    told = [min(words, key=list(_WORDS).index) for words in one.told.elements()]
    if one.differs or not told:
        return observation_line(name, kernel, "Unknown", 0, len(told), NO_FACTS, hashed, "judge")
    worst = min(told, key=list(_WORDS).index)
    word = "Unknown" if worst == _AGAIN and _held(one.start) else _WORDS[worst]
    words = next(words for words in sorted(one.told) if worst in words)
    at = words.index(worst)
    facts = NO_FACTS if word == "Holds" else f"{one.operations[at]}{at}:{worst}"
    same = sum(1 for end in told if _WORDS[end] == _WORDS[worst])
    return observation_line(name, kernel, word, same, len(told), facts, hashed, "judge")


def question(text: str, policy: Policy) -> str:
    """A digest of what every line of a judgement asks about: the C program, the policy and the rules."""
    program = hashlib.sha256(text.encode()).hexdigest()
    return hashed_text({"program": program, "policy": policy.codes(), "rules": rules_digest()})


def _held(start: Start) -> bool:
    """Whether somebody who is none of the threads holds the folio at the start."""
    return bool(start.locked) or start.writeback != NO_WRITEBACK or start.references != "none"
