"""A name's scenario as a TOML file, and the tables of words as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from ultrafolio.markdown import table
from ultrafolio.nouns import plural

from .grammar import Name, document
from .words import DOES, HOW, MORE, OBSTACLES, WHERE


def toml(name: Name) -> str:
    """The scenario file of a name."""
    made = document(name)
    lines = ["# " + sentence(name), f"title = {json.dumps(made.pop('title'))}"]
    for title, values in made.items():
        for fields in values if isinstance(values, list) else [values]:
            head = f"[[{title}]]" if isinstance(values, list) else f"[{title}]"
            lines += ["", head, *(f"{field} = {json.dumps(value)}" for field, value in fields.items())]
    return "\n".join(lines) + "\n"


def sentence(name: Name) -> str:
    """The words of a name, each by its meaning."""
    told = [str(OBSTACLES[name.first.word]), *(HOW[word].about for word in name.first.how), WHERE[name.where][2]]
    told += [DOES[name.does][1]] if name.does else []
    told += [MORE[name.more]] if name.more else []
    for term in name.others:
        told += [str(OBSTACLES[term.word]), *(HOW[word].about for word in term.how)]
    return "; ".join(told)


def words() -> str:
    """The tables of words as Markdown."""
    rows: list[tuple[str, list[str], Iterable[Sequence[Any]]]] = [
        (
            "OBSTACLE",
            ["word", "what it is", "actor", "its page at the start", "where", "takes"],
            [
                (word, one, one.kind or "-", one.start, " ".join(one.places), " ".join(one.takes) or "-")
                for word, one in OBSTACLES.items()
            ],
        ),
        (
            "how",
            ["word", "place", "what it says"],
            [(word, ("backing", "kind", "count", "when")[how.place], how.about) for word, how in HOW.items()],
        ),
        ("WHERE", ["word", "folios", "what it says"], [(w, plural_of(f), about) for w, (f, _, about) in WHERE.items()]),
        ("what the vCPU does", ["word", "what it says"], [(word, about) for word, (_, about) in DOES.items()]),
        ("more vCPUs", ["word", "what it says"], list(MORE.items())),
    ]
    return "\n\n".join("\n".join([f"### {title}", "", *table(head, body)]) for title, head, body in rows)


def plural_of(orders: Sequence[int]) -> str:
    """The folios of a WHERE in words."""
    pages = {1 << order for order in orders}
    return f"{plural(len(orders), 'folio')} of {plural(pages.pop(), 'page')}"
