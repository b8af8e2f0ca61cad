"""Read TOML input field by field. Each error names the field, the value and what is allowed."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import shipped
from .errors import InputError, one_of
from .nouns import plural


@dataclass(frozen=True, slots=True)
class Field:
    """The type and bounds of a field of a table.

    kind     "int", "number", "bool", "text", "choice", "ints", "texts" or "table"
    default  the value when the field is absent; `...` means that it must be present
    low, high  inclusive bounds of a number, or of each number of a list
    choices  the words allowed in a "choice"
    """

    kind: str
    default: Any = ...
    low: float = 0
    high: float = 2**32 - 1
    choices: Sequence[str] = ()


DEEPEST = 16
"""Levels of tables and lists in a TOML text."""
MOST_DOTS = 4000
"""Dots of a line of TOML; of several lines the squares are added. Reading a key of names with dots between takes time
and memory with the square of their number: 60 MB for so many."""
VERSION = 1
"""The version of the TOML files that the lab reads (scenario, plan, policies, costs): `version = 1`, or left out."""


MOST_BYTES = 16 << 20
"""The largest TOML file that is read."""


def read_text(path: Path, form: str = "TOML", most: int = MOST_BYTES) -> str:
    """The text of a file of at most `most` bytes, each line end as a newline. form: the file's format, for the error.
    Raises InputError for a file that is missing, unreadable, larger, or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
        text = data.decode() if len(data) <= most else ""
    except FileNotFoundError:
        raise InputError(
            f"{path}: no such file",
            allowed=f"a {form} file",
            cause=shipped.why_absent(path),
            then=f"ls {next(folder for folder in path.parents if folder.exists())}",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read",
            value=str(error),
            allowed=f"a readable UTF-8 {form} file",
            cause="it is another kind of file, a folder, or somebody else's",
            then=f"file {path}",
        ) from None
    if len(data) > most:
        raise InputError(
            f"{path}: too large",
            value=f"over {plural(most, 'byte')}",
            allowed=f"at most {plural(most, 'byte')}",
            cause="it is another kind of file",
            then=f"file {path}",
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def toml_tables(text: str) -> dict[str, Any]:
    """The tables of a TOML text. Raises ValueError for a text that is not TOML, has a number of thousands of digits, or
    is nested too deeply."""
    if sum(line.count(".") ** 2 for line in text.split("\n")) > MOST_DOTS**2:
        raise ValueError(f"a line of more than {MOST_DOTS} dots, or many long ones; write a list over several lines")
    try:
        tables = tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    level: list[Any] = [tables]
    for _ in range(DEEPEST):
        within = [child for one in level for child in (one.values() if isinstance(one, dict) else one)]
        level = [child for child in within if isinstance(child, dict | list)]
    if level:
        raise ValueError(f"it is nested too deeply, in more than {DEEPEST} levels")
    return tables


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file, without its version. Raises InputError for a file that read_text refuses, that is not
    TOML (with the line), or of another version.
    """
    text = read_text(path)
    try:
        return unversioned(toml_tables(text), str(path))
    except ValueError as error:
        raise InputError(
            f"{path}: not TOML",
            value=str(error),
            allowed="TOML 1.0",
            cause="a missing quote or bracket on or before that line",
        ) from None


def unversioned(document: dict[str, Any], where: str) -> dict[str, Any]:
    """The document without its `version`. Raises InputError for a version other than VERSION."""
    found = document.pop("version", VERSION)
    if found != VERSION or isinstance(found, bool):
        raise InputError(
            f"{where}: version",
            value=found,
            allowed=f"{VERSION}, or no version",
            cause="the file was written for another ultrafolio",
            then="ultrafolio --version, and docs/formats.md for what it reads",
        )
    return document


def take(table: Mapping[str, Any], where: str, fields: Mapping[str, Field], *, then: str = "") -> dict[str, Any]:
    """The validated values of `table`, defaults filled in. `where` is the file and table, for the error.

    Raises InputError for an unknown field (with the nearest name), a missing one, a wrong kind, a value out of bounds.
    """
    if not isinstance(table, Mapping):
        raise InputError(f"{where}: not a table", value=table, allowed=f"a table with {', '.join(fields)}", then=then)
    for name in table:
        if name not in fields:
            raise one_of(f"{where}: unknown field {name!r}", name, fields, then=then)
    values = {}
    for name, field in fields.items():
        if name in table:
            values[name] = _value(table[name], f"{where}: {name}", field, then)
        elif field.default is ...:
            raise InputError(f"{where}: field {name!r} is missing", allowed=_allowed(field), then=then)
        else:
            values[name] = field.default
    return values


def told(values: Mapping[str, Any], fields: Mapping[str, Field]) -> dict[str, Any]:
    """The values that are not the defaults of their fields: those that have to be written."""
    return {name: value for name, value in values.items() if value != fields[name].default}


def _allowed(field: Field) -> str:
    """Returns in words what a field takes."""
    if field.kind == "choice":
        return ", ".join(field.choices)
    if field.kind in ("int", "number"):
        return f"a{'n integer' if field.kind == 'int' else ' number'} from {field.low:g} to {field.high:.10g}"
    if field.kind == "ints":
        return f"a list of integers from {field.low:g} to {field.high:.10g}"
    return {"bool": "true or false", "text": "a string", "texts": "a list of strings", "table": "a table"}[field.kind]


def _value(value: Any, what: str, field: Field, then: str) -> Any:
    """Returns a field's value, checked for type and bounds. Raises InputError."""
    kind = field.kind
    if kind == "choice":
        if value not in field.choices:
            raise one_of(what, value, field.choices, then=then)
        return value
    items = value if kind in ("ints", "texts") and isinstance(value, list) else [value]
    wanted: tuple[type, ...] = {
        "int": (int,),
        "ints": (int,),
        "number": (int, float),
        "bool": (bool,),
        "text": (str,),
        "texts": (str,),
        "table": (dict,),
    }[kind]
    right = all(isinstance(v, wanted) and (kind == "bool" or not isinstance(v, bool)) for v in items)
    right = right and (kind not in ("ints", "texts") or isinstance(value, list))
    if right and kind in ("int", "number", "ints"):
        right = all(field.low <= v <= field.high for v in items)
    if not right:
        raise InputError(what, value=value, allowed=_allowed(field), then=then)
    return value
