"""The short form of a scenario, a line a table; nothing of the TOML form is lost but its comments.

    UF LPIN+neigh
    memory { folios(1); state(shared, secure); }
    vcpu { touch(1); }
    virtio { page(0); }
    expect whole-folio { verdict(violated); kind(permanent); }

The first line has the title; of another design than s390 the second one is design { name(…); machine(…); }. A field
that is left out has its default. A word is bare if it begins with a letter or `_`, has letters, digits, `_`, `.`, `+`
and `-` only, and is neither `true` nor `false`; else it stands in quotes, as in JSON. A line that starts with # is a
comment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ultrafolio.errors import InputError, one_of
from ultrafolio.fields import Field, read_text, told
from ultrafolio.model.designs import DESIGNS, S390
from ultrafolio.model.policies import FIELDS as POLICY
from ultrafolio.model.scenario import EVERY_ACTOR, FEATURES, MEMORY, TABLES, Scenario, parse

SUFFIX = ".uf"
MOST_BYTES = 65_536
_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_.+-]*")
_INTEGER = re.compile(r"-?[0-9]{1,4300}")  # as many digits as int() takes
_STRING = r'"(?:[^"\\\n]|\\.)*"'
_VALUE = rf"(?:{_STRING}|[A-Za-z0-9_.+-]+)"
_FIELD = re.compile(rf"\s*([a-z_]+)\(\s*((?:{_VALUE}\s*(?:,\s*{_VALUE}\s*)*)?)\);")
_LINE = re.compile(rf"([a-z]+)(?: ({_VALUE}))? \{{(.*)\}}")
_HEADS = {
    "design": {"name": Field("text", ""), "machine": Field("text", "")},
    "memory": MEMORY,
    "features": FEATURES,
    "policy": POLICY,
    "expect": None,
}
"""The tables beside those of actors."""
_THEN = "ultrafolio scenario LPIN+neigh --short prints an example"


def write(story: Scenario) -> str:
    """The short form of a scenario, with its policies and expectations. Raises InputError for an expectation whose
    value is none of an integer, a word, true or false, or whose field is no word of small letters and `_`."""
    tables, design = TABLES[story.design], DESIGNS[story.design]
    lines = [f"UF {_title(story.title)}"]
    if design is not S390:
        lines.append(_block("design", {"name": design.name, "machine": story.machine}))
    lines.append(_block("memory", told(story.memory, tables.memory)))
    if features := told(story.features, tables.features):
        lines.append(_block("features", features))
    actors = ((design.kinds[kind], fields) for kind, fields in story.actors)
    lines += [_block(word, told(fields, tables.actors[word])) for word, fields in actors]
    lines += [_block(f"policy {_value(name)}", table) for name, table in story.tables.items()]
    for name, table in story.expect.items():
        for field, value in table.items():
            if isinstance(value, list) or not re.fullmatch("[a-z_]+", field):
                raise _wrong(f"[expect] {name}", f"{field} = {value}", "FIELD = a number, a word, true or false")
        lines.append(_block(f"expect {_value(name)}", table))
    return "\n".join(lines) + "\n"


def read(file: Path) -> Scenario:
    """The scenario in a file of the short form. Raises InputError that names the line."""
    return parse(document(read_text(file, "short-form", MOST_BYTES), str(file)), str(file))


def document(text: str, where: str) -> dict[str, Any]:
    """The TOML document that a short form means. Raises InputError that names the line."""
    made: dict[str, Any] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if "title" not in made:
            made["title"] = _read_title(line, f"{where}, line {number}")
        else:
            _add(made, line.rstrip(), f"{where}, line {number}")
    if "title" not in made:
        raise _wrong(f"{where}: empty", "", "UF TITLE as the first line")
    return made


def _add(made: dict[str, Any], line: str, where: str) -> None:
    found = _LINE.fullmatch(line)
    if not found:
        raise _wrong(f"{where}: no table", line, "TABLE { field(value, …); … }")
    word, name, body = found.groups()
    known = {**_HEADS, **EVERY_ACTOR}
    if word not in known:
        raise _wrong(f"{where}: unknown table", word, ", ".join(known))
    if (name is not None) != (word in ("policy", "expect")):
        raise _wrong(f"{where}: {word}", line, "policy NAME, expect NAME, and no name behind another table")
    design = TABLES[str(made.get("design", S390.name))]
    fields = _read_fields(body, {**known, "memory": design.memory, **design.actors}[word], where)
    if word in EVERY_ACTOR:
        made.setdefault(word, []).append(fields)
        return
    if word == "design":
        made["design"], made["machine"] = fields.get("name", ""), fields.get("machine", "")
        if made["design"] not in DESIGNS:
            raise one_of(f"{where}: design", made["design"], DESIGNS, then=_THEN)
        return
    tables = made.setdefault(word, {}) if name is not None else made
    key = str(_read_value(name)) if name is not None else word
    if key in tables:
        raise _wrong(f"{where}: {key} stands twice", line, "each table once")
    tables[key] = fields


def _read_fields(body: str, fields: Mapping[str, Field] | None, where: str) -> dict[str, Any]:
    made: dict[str, Any] = {}
    at = 0
    while body[at:].strip():
        found = _FIELD.match(body, at)
        if not found:
            raise _wrong(f"{where}: no field", body[at:].strip(), "field(value, …);")
        name, values = found[1], [_read_value(one) for one in re.findall(_VALUE, found[2])]
        several = bool(fields and name in fields and fields[name].kind in ("ints", "texts"))
        if name in made or (not several and len(values) != 1):
            raise _wrong(f"{where}: {name}", found[0].strip(), "each field once, with one value where it is no list")
        made[name] = values if several else values[0]
        at = found.end()
    return made


def _block(head: str, values: Mapping[str, Any]) -> str:
    """The line of a table."""
    return " ".join([head, "{", *(f"{name}({_arguments(value)});" for name, value in values.items()), "}"])


def _arguments(value: Any) -> str:
    return ", ".join(map(_value, value if isinstance(value, list) else [value]))


def _value(value: Any) -> str:
    if isinstance(value, bool | int):
        return json.dumps(value)
    if not isinstance(value, str):
        raise _wrong("a value that the short form lacks", str(value), "a number, a word, true or false")
    bare = _BARE.fullmatch(value) and value not in ("true", "false")
    return value if bare else json.dumps(value)


def _read_value(text: str) -> Any:
    if text.startswith('"'):
        try:
            return json.loads(text)
        except ValueError:
            raise _wrong("a word in quotes", text, "a string as in JSON") from None
    if text in ("true", "false"):
        return text == "true"
    return int(text) if _INTEGER.fullmatch(text) else text


def _title(title: str) -> str:
    plain = title == " ".join(title.split()) and title.isprintable() and title and not title.startswith('"')
    return title if plain else json.dumps(title)


def _read_title(line: str, where: str) -> str:
    word, _, title = line.partition(" ")
    if word != "UF" or not title:
        raise _wrong(f"{where}: no short form", line, "UF TITLE as the first line")
    return str(_read_value(title)) if title.startswith('"') else title.rstrip()


def _wrong(what: str, value: str, allowed: str) -> InputError:
    return InputError(what, value=value[:80], allowed=allowed, then=_THEN)
