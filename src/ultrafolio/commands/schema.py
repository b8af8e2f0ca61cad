"""JSON Schemas of the TOML files, for editors and other programs, generated from the tables that the readers use.

A schema has the kind and bounds of each field. A reader also refuses values that a schema accepts, such as a page that
does not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from ultrafolio.fields import VERSION, Field
from ultrafolio.model import policies, scenario, words
from ultrafolio.model.design import Design
from ultrafolio.model.designs import GUEST_MEMFD, S390
from ultrafolio.model.guest_memfd import policy as memfd_policy
from ultrafolio.model.guest_memfd import words as memfd_words
from ultrafolio.model.policy import MEANING, VARIANTS
from ultrafolio.sim import config, costs, memfd_config
from ultrafolio.sim.memfd_words import MEMFD_AXIS_MEANING, PATIENCE_MEANING
from ultrafolio.sim.words import AXIS_MEANING

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def of_field(field: Field, meaning: str = "") -> Schema:
    """The schema of a field."""
    number = {"minimum": field.low, "maximum": field.high}
    kinds: dict[str, Schema] = {
        "int": {"type": "integer", **number}, "number": {"type": "number", **number}, "bool": {"type": "boolean"},
        "text": {"type": "string"}, "choice": {"enum": list(field.choices)}, "table": {"type": "object"},
        "ints": {"type": "array", "items": {"type": "integer", **number}},
        "texts": {"type": "array", "items": {"type": "string"}},
    }  # fmt: skip
    made = dict(kinds[field.kind])
    if meaning:
        made["description"] = meaning
    if field.default not in (..., None):
        made["default"] = field.default
    return made


def of_table(fields: Mapping[str, Field], meaning: Mapping[str, str], about: str = "") -> Schema:
    """The schema of a table with exactly these fields."""
    return _table(
        {name: of_field(field, meaning.get(name, "")) for name, field in fields.items()},
        [name for name, field in fields.items() if field.default is ...],
        about,
    )


def _table(properties: Schema, required: list[str] | None = None, about: str = "") -> Schema:
    made: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return made | ({"required": required} if required else {}) | ({"description": about} if about else {})


def _named(inner: Schema, about: str = "") -> Schema:
    """The schema of tables [x.NAME] with free names."""
    return {"type": "object", "additionalProperties": inner} | ({"description": about} if about else {})


def _policy() -> Schema:
    made = of_table(policies.FIELDS, {"base": "a preset or a kernel", **MEANING}, "what differs from its base")
    made["properties"]["variants"]["items"] = {"enum": list(VARIANTS)}
    return _named(made | {"propertyNames": {"minLength": 1}}, "policies, by name")


def _costs() -> Schema:
    known = costs.defaults_of(GUEST_MEMFD)
    fields = {name: Field("int", ns, 0, costs.MOST_NS) for name, (ns, _) in known.items()}
    return of_table(fields, {name: text for name, (_, text) in known.items()}, "ns of each step")


def _scenario() -> Schema:
    features = of_table(scenario.FEATURES, words.FIELDS, words.TABLES["features"])
    memfd = _scenario_of(GUEST_MEMFD, memfd_words, {"policy": _memfd_policy()})
    return {
        "anyOf": [
            _scenario_of(S390, words, {"features": features, "policy": _policy()}),
            memfd | {"required": ["memory", "design"]},
        ]
    }


def _scenario_of(design: Design, meaning: ModuleType, tables: Schema) -> Schema:
    """The schema of a scenario of a design. tables: what it has beside memory, actors, expectations and names."""
    known = scenario.TABLES[design.name]
    memory = of_table(known.memory, meaning.FIELDS, meaning.TABLES["memory"])
    memory["properties"]["state"]["items"] = {"enum": list(known.states)}
    entry = _table(
        {
            name: {"type": "integer" if name in ("depth", "states", "edges") else "string", "description": text}
            for name, text in words.EXPECT.items()
        }
    )
    actors: Schema = {
        name: {
            "type": "array",
            "minItems": 1,
            "description": meaning.TABLES[name],
            "items": of_table(fields, meaning.FIELDS),
        }
        for name, fields in known.actors.items()
    }
    return _table(
        {
            "title": {"type": "string"},
            "design": {"const": design.name},
            "machine": {"enum": ["", *design.machines]},
            "memory": memory,
            **tables,
            **actors,
            "expect": _named(entry, "per policy, what check --expect compares with"),
        },
        ["memory"],
    ) | {"anyOf": [{"required": [name]} for name in known.actors]}


def _plan() -> Schema:
    patience = _named(of_table(memfd_config.PATIENCE_FIELDS, PATIENCE_MEANING), "what a VMM does, by name")
    return {
        "anyOf": [
            _plan_of(S390, config.AXES, config.WORKLOAD, AXIS_MEANING, {"policy": _policy()}),
            _plan_of(GUEST_MEMFD, memfd_config.AXES, memfd_config.WORKLOAD, MEMFD_AXIS_MEANING,
                     {"policy": _memfd_policy(), "patience": patience}) | {"required": ["grid", "design"]},
        ]
    }  # fmt: skip


def _memfd_policy() -> Schema:
    made = of_table(memfd_policy.FIELDS, {"base": "a preset", **memfd_policy.MEANING}, "what differs from its base")
    made["properties"]["variants"]["items"] = {"enum": list(memfd_policy.VARIANTS)}
    return _named(made, "policies, by name")


def _plan_of(
    design: Design, own: Mapping[str, Field], load: Mapping[str, Field], meaning: Mapping[str, str], tables: Schema
) -> Schema:
    """The schema of a plan of a design. own: its axes; load: the fields of a workload; tables: its definitions beside
    costs and workloads."""
    axes = {name: of_field(field, meaning[name]) for name, field in {**own, **load}.items() if name != "tables"}
    grid: Schema = {}
    for name, inner in axes.items():
        several: list[Schema] = [
            {"type": "array", "items": {k: v for k, v in inner.items() if k != "default"}, "minItems": 1}
        ]
        if inner.get("type") in ("integer", "number"):
            several.append({"type": "string", "pattern": r"^\s*-?\d+\s*-\s*-?\d+\s*$"})
        grid[name] = {"anyOf": several, "description": inner["description"]}
    skip = {
        "type": "array",
        "items": _table({name: {} for name in axes}) | {"minProperties": 1},
        "description": "cells that are left out: those with all of these values",
    }
    return _table(
        {
            "title": {"type": "string"},
            "fixed": _table(axes, about="one value for all cells"),
            "grid": _table(grid, about='a list of values, or a range such as "1-20"') | {"minProperties": 1},
            "skip": skip,
            "design": {"const": design.name},
            **tables,
            "costs": _named(_costs(), "cost profiles, by name"),
            "workload": _named(of_table(load, meaning), "workloads, by name"),
        },
        ["grid"],
    )


def _policies() -> Schema:
    either = {"anyOf": [made["additionalProperties"] for made in (_policy(), _memfd_policy())]}
    return _table({"policy": _named(either, "policies, by name")}, ["policy"]) | {"additionalProperties": True}


def _profile() -> Schema:
    return _table({"costs": _costs()}, ["costs"]) | {"additionalProperties": True}


KINDS: dict[str, tuple[str, Callable[[], Schema]]] = {
    "scenario": ("a scenario of ultrafolio check and run", _scenario),
    "plan": ("a plan of ultrafolio sweep and run", _plan),
    "policy": ("policies for --policy FILE.toml#NAME", _policies),
    "costs": ("a cost profile for --costs FILE.toml", _profile),
}
"""Kind of file -> (description, function that returns its schema)."""


def schema(kind: str) -> Schema:
    """The JSON Schema of a kind of file."""
    about, make = KINDS[kind]
    made = make()
    for part in [made] if "properties" in made else made["anyOf"]:
        part["properties"]["version"] = {"const": VERSION, "description": "the version of the file's form"}
    return {"$schema": DIALECT, "title": about, **made}
