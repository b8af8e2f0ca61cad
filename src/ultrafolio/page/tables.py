"""The tables of the model that the page uses: fields with their bounds and words, policies, places, outcomes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ultrafolio.check.search.packing import REFUSALS
from ultrafolio.check.verdicts import certificate, scope
from ultrafolio.engine.load import constants
from ultrafolio.export.observation import rules_digest
from ultrafolio.fields import Field
from ultrafolio.model import policies, scenario
from ultrafolio.model.design import Design
from ultrafolio.model.designs import DESIGNS, S390
from ultrafolio.model.guest_memfd import machines
from ultrafolio.model.guest_memfd import policy as memfd
from ultrafolio.model.policy import VARIANTS
from ultrafolio.screen import MAIL
from ultrafolio.waits import load as waits


def of_all() -> dict[str, Any]:
    """The tables that the reader of scenarios needs before it knows the design, and those of no design: name ->
    value."""
    return {
        "DESIGNS": {name: _said(design) for name, design in DESIGNS.items()},
        "TOP": [*scenario.TOP, "version"], "LISTS": scenario.PAGE_LISTS,
        "MEMORY_LISTS": scenario.MEMORY_LISTS, "REFUSALS": REFUSALS, "MAIL": MAIL,
        "MANY": certificate.MAX_ASKED, "LASTING": certificate.LASTING, "STEPS": scope.STEPS, "DIGEST": rules_digest(),
    }  # fmt: skip


def of_design(design: Design, hand: Iterable[str]) -> dict[str, Any]:
    """The tables that the scripts `hand` take from the design in use. K: the constants that they name."""
    known = constants(waits.MODULES[design.name][0]) | dict(design.constants)
    wanted = sorted({name for text in hand for name in re.findall(r"\bK\.([A-Z_0-9a-z]+)", text)})
    return {
        "DESIGN": design.name,
        "K": {name: known[name] for name in wanted},
        "SECTIONS": {name: list(record.names or ()) for name, record in known["SECTIONS"].items()},
        "KIND_NAMES": design.kinds, "IDLE_PC": design.idle, "OUTCOMES": design.outcomes, "LEADS_TO": design.leads_to,
        "PROPERTIES": design.properties, "SECOND": design.second, "LAST_RULE": design.last_rule,
        "RULES": dict(design.rules), "TAKERS": {pc: rule.takers for pc, rule in sorted(design.rules.items())},
    }  # fmt: skip


def _said(design: Design) -> dict[str, Any]:
    """What scenarios and policies of a design may say. turns: whether the guest of each machine converts by itself."""
    tables, memfds = scenario.TABLES[design.name], design is not S390
    names = policies.presets_of(design.name) if memfds else policies.names()
    chosen = {name: policies.find_any(name).codes() for name in names}
    variants = memfd.VARIANTS if memfds else VARIANTS
    return {
        "kinds": design.kinds, "machines": design.machines, "states": tables.states,
        "memory": _fields(tables.memory), "features": _fields(tables.features),
        "actors": {name: _fields(table) for name, table in tables.actors.items()},
        "policy": _fields(memfd.FIELDS if memfds else policies.FIELDS),
        "codes": list(chosen[names[0]]), "policies": {name: list(codes.values()) for name, codes in chosen.items()},
        "variants": {name: code for name, (code, _) in variants.items()},
        "turns": machines.facts()["GUEST_TURNS"] if memfds else [],
    }  # fmt: skip


def _fields(table: Mapping[str, Field]) -> dict[str, Any]:
    """Returns kind, bounds, words and default of each field."""
    made = {}
    for name, field in table.items():
        said: dict[str, Any] = {"kind": field.kind}
        said |= {"needed": True} if field.default is ... else {"default": field.default}
        said |= {"choices": list(field.choices)} if field.choices else {}
        made[name] = said | ({"low": field.low, "high": field.high} if field.kind in ("int", "ints") else {})
    return made
