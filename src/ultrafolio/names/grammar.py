"""Names and their scenarios: OBSTACLE[.how]…+WHERE[+what the vCPU does][+more vCPUs][+OBSTACLE…]…

One scenario has one name: a word that changes nothing is refused, and words stand in the order of their tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ultrafolio.errors import InputError, one_of
from ultrafolio.model.scenario import ACTORS, EXPORTED_SHARED, Scenario, parse

from .words import BACKING, COUNT, DOES, EXPORTED, HOW, KIND, MORE, NON_SECURE, OBSTACLES, SECURE, SHARED, WHEN, WHERE

_NAME = re.compile(r"[A-Z]+[.+][a-z0-9.+A-Z]*")
_THEN = "ultrafolio scenario --words"
MOST_LETTERS = 200


@dataclass(frozen=True, slots=True)
class Term:
    """An obstacle with the words behind it."""

    word: str
    how: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ".".join((self.word, *self.how))

    def at(self, place: int) -> str:
        """The word of a place; "" for none."""
        return next((word for word in self.how if HOW[word].place == place), "")

    @property
    def kind(self) -> str:
        """The table of its actor."""
        pinned = self.word == "LPIN" and ("buf" in self.how or "early" in self.how)
        return "pin" if pinned else OBSTACLES[self.word].kind

    @property
    def needs(self) -> str:
        """The state without which its actor does nothing."""
        return "" if self.kind == "pin" else OBSTACLES[self.word].needs


@dataclass(frozen=True, slots=True)
class Name:
    """A name in its parts. does: of DOES or ""; more: of MORE or ""; others: the later obstacles."""

    first: Term
    where: str
    does: str = ""
    more: str = ""
    others: tuple[Term, ...] = ()

    def __str__(self) -> str:
        return "+".join(str(part) for part in (self.first, self.where, self.does, self.more, *self.others) if part)

    @property
    def words(self) -> int:
        """The number of its words."""
        return len(re.split(r"[.+]", str(self)))


def is_name(text: str) -> bool:
    """Whether a text has the form of a name."""
    return len(text) <= MOST_LETTERS and bool(_NAME.fullmatch(text)) and "+" in text


def read(text: str) -> Name:
    """The parts of a name. Raises InputError that names the word and the words that could stand there."""
    if not is_name(text):
        raise InputError("not a name", value=text[:80], allowed="OBSTACLE[.how]+WHERE[+more]", then=_THEN)
    terms = text.split("+")
    first, where, rest = _term(terms[0]), terms[1], terms[2:]
    if where not in WHERE:
        raise one_of(f"{text}: where", where, WHERE, then=_THEN)
    does = rest.pop(0) if rest and rest[0] in DOES else ""
    more = rest.pop(0) if rest and rest[0] in MORE else ""
    for word in rest:
        if word.partition(".")[0] not in OBSTACLES:
            known = [*DOES, *MORE, *(one for one, obstacle in OBSTACLES.items() if obstacle.joins)]
            raise one_of(f"{text}: behind {where}", word, known, then=_THEN)
    name = Name(first, where, does, more, tuple(map(_term, rest)))
    if wrong := refused(name):
        raise InputError(f"{text}: {wrong}", then=_THEN)
    return name


def _term(text: str) -> Term:
    word, *how = text.split(".")
    if word not in OBSTACLES:
        raise one_of("a name's obstacle", word, OBSTACLES, then=_THEN)
    for one in how:
        if one not in HOW:
            raise one_of(f"behind {word}", one, HOW, then=_THEN)
    return Term(word, tuple(how))


def refused(name: Name) -> str:
    """Why a name is none, in words; "" for a name."""
    order = [list(OBSTACLES).index(term.word) for term in name.others]
    if order != sorted(set(order)) or any(term.kind == name.first.kind for term in name.others):
        return "later obstacles stand once each, in the order of the table, and none of the kind of the first"
    if wrong := next(filter(None, map(_refused_term, (name.first, *name.others))), ""):
        return wrong
    return _refused_first(name) or next(filter(None, (_refused_other(name, term) for term in name.others)), "")


def _refused_term(term: Term) -> str:
    obstacle = OBSTACLES[term.word]
    places = [HOW[word].place for word in term.how]
    if places != sorted(set(places)):
        return f"the words behind {term.word} stand in the order backing, kind, count, when, one of each at most"
    own = term.at(KIND)
    if own and own not in obstacle.takes:
        return f"{term.word} takes no {own}"
    if obstacle.must and not own:
        return f"{term.word} is one of {', '.join(f'{term.word}.{word}' for word in obstacle.takes)}"
    if term.at(COUNT) and not obstacle.kind:
        return f"nothing starts with {term.word}, so it takes no {term.at(COUNT)}"
    if own == "stuck" and term.at(COUNT):
        return "what never completes starts once"
    return ""


def _refused_first(name: Name) -> str:
    first, obstacle, when = name.first, OBSTACLES[name.first.word], name.first.at(WHEN)
    own = name.where in ("self", "large")
    if name.where not in obstacle.places:
        return f"{first.word} stands at {' or '.join(obstacle.places)}"
    if first.at(BACKING) and (first.at(BACKING) == obstacle.memory.get("backing") or obstacle.memory):
        return f"{first.word} has its backing"
    if when == "after":
        return "after is of a later obstacle"
    if first.at(KIND) == "buf" and when == "early":
        return "LPIN.early is no ring: say it without buf"
    if when and (obstacle.owner or obstacle.start == NON_SECURE):
        return f"{first.word} takes no {when}"
    if first.word == "IMP" and when == "early" and first.at(BACKING) == "iomap":
        return "a dirty folio before its first import is DIRTY"
    if when == "early" and first.needs:
        return f"{first.word} needs a page that is {first.needs}"
    if when and when == _default(name, own):
        return f"{when} is so without the word"
    if when == "in" and own and first.needs:
        return f"{first.word} needs a page that is {first.needs}"
    if name.does and (when in ("early", "in") or _non_secure(first) or obstacle.owner):
        return "the page to unshare is not shared"
    return ""


def _refused_other(name: Name, term: Term) -> str:
    obstacle = OBSTACLES[term.word]
    if not obstacle.joins:
        return f"{term.word} stands first"
    if not OBSTACLES[name.first.word].kind and not OBSTACLES[name.first.word].owner:
        return f"{name.first.word} is without obstacles; {term.word} stands first"
    words, same = list(OBSTACLES), _wanted(name)[-1] == 0
    if same and OBSTACLES[name.first.word].joins and words.index(term.word) < words.index(name.first.word):
        return f"obstacles of one page stand in the order of the table: {term.word} first"
    if term.at(BACKING) or term.at(WHEN) not in ("", "after"):
        return f"backing and when are the first obstacle's, except after: {term}"
    if term.at(WHEN) == "after" and not OBSTACLES[name.first.word].kind:
        return f"nothing of {name.first.word} finishes, so none comes after it"
    return ""


def _default(name: Name, own: bool) -> str:
    """The word of WHEN that changes nothing."""
    if name.does:
        return ""
    start = OBSTACLES[name.first.word].start if own else SECURE
    return {EXPORTED: "out", SECURE: "in"}.get(start, "")


def _non_secure(first: Term) -> bool:
    """Whether every page is non-secure at the start."""
    return first.at(WHEN) == "early" or OBSTACLES[first.word].start == NON_SECURE


def scenario(name: Name) -> Scenario:
    """The scenario of a name; its title is the name."""
    return parse(document(name), str(name))


def document(name: Name) -> dict[str, Any]:
    """The TOML document of a name's scenario."""
    folios, obstacle, wanted = WHERE[name.where][0], OBSTACLES[name.first.word], _wanted(name)
    apart = [0] if name.more == "vcpu.apart" else []
    states = _states(name, sum(1 << order for order in folios), bool(apart))
    memory: dict[str, Any] = {"folios": [*folios, *apart], "state": states, **obstacle.memory}
    if name.first.at(BACKING):
        memory["backing"] = name.first.at(BACKING)
    if obstacle.owner:
        memory["owner"] = [1, *[0] * (len(states) - 1)]
    made: dict[str, Any] = {"title": str(name), "memory": memory}
    if "moves" in name.first.how:
        made["features"] = {"ownership_transfer": True}
    does = DOES[name.does][0] if name.does else ("touch",)
    pages = [*wanted, len(states) - 1] if apart else wanted
    made["vcpu"] = [{"cpu": cpu, **{op: [page] for op in does}} for cpu, page in enumerate(pages)]
    for term, page in [(name.first, 0), *((term, wanted[-1]) for term in name.others)]:
        if term.kind:
            made.setdefault(term.kind, []).append(_actor(term, page, name.first.kind))
    return made


def _wanted(name: Name) -> list[int]:
    """The page of each vCPU but that of `vcpu.apart`. Later obstacles are on the last of them."""
    first = WHERE[name.where][1]
    return [first] + [1 if name.where == "large" else first] * (name.more == "2vcpu")


def _states(name: Name, pages: int, apart: bool) -> list[str]:
    """The state of each page at the start."""
    first, wanted = name.first, WHERE[name.where][1]
    obstacle, when = OBSTACLES[first.word], first.at(WHEN)
    if _non_secure(first):
        return [NON_SECURE] * (pages + apart)
    states = [obstacle.start] + [SECURE] * (pages - 1)
    for page in _wanted(name) if name.does else ():
        states[page] = SHARED
    if when == "out":
        needed = name.does or (wanted == 0 and first.needs)
        states[wanted] = EXPORTED_SHARED if needed else EXPORTED
    elif when == "in":
        states[wanted] = SECURE
    if apart:
        states.append(SHARED if name.does else SECURE if states[wanted] == SHARED else states[wanted])
    return states


def _actor(term: Term, page: int, after: str) -> dict[str, Any]:
    """The table of an obstacle's actor."""
    fields: dict[str, Any] = {}
    for word in term.how:
        fields.update(HOW[word].sets)
        if word == "after":
            fields["after"] = after
    if term.kind == "access":
        return {**fields, term.at(KIND): [page]}
    if term.kind == "reboot":
        return fields
    return {**fields, "page": page if ACTORS[term.kind]["page"].kind == "int" else [page]}


def names(most: int) -> Iterator[Name]:
    """All names of at most so many words, the shortest first, else in the order of the tables."""
    found = [name for name in _candidates(most) if name.words <= most and not refused(name)]
    yield from sorted(found, key=lambda name: name.words)


def _candidates(most: int) -> Iterator[Name]:
    for first in _terms(list(OBSTACLES), most - 1):
        for where in WHERE:
            left = most - 2 - len(first.how)
            for does in ("", *DOES):
                for more in ("", *MORE):
                    yield from _with_others(
                        Name(first, where, does, more), left - bool(does) - len(more.split(".")) * bool(more)
                    )


def _with_others(name: Name, left: int) -> Iterator[Name]:
    """A name with every set of later obstacles of at most `left` words."""
    if left < 0:
        return
    yield name
    words = list(OBSTACLES)
    begin = words.index(name.others[-1].word) + 1 if name.others else 0
    for term in _terms(words[begin:], left):
        longer = Name(name.first, name.where, name.does, name.more, (*name.others, term))
        if not _refused_term(term) and not _refused_other(name, term):
            yield from _with_others(longer, left - 1 - len(term.how))


def _terms(words: Sequence[str], most: int) -> Iterator[Term]:
    """Terms of at most so many words that _refused_term lets pass."""
    for word in words:
        stack = [Term(word)]
        while stack:
            term = stack.pop(0)
            if 1 + len(term.how) > most:
                continue
            if not _refused_term(term):
                yield term
            last = HOW[term.how[-1]].place if term.how else -1
            stack += [Term(word, (*term.how, how)) for how in HOW if HOW[how].place > last]
