"""The page's script and the page: what is translated, the tables of the model, and the code of folder `js`."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ultrafolio import shipped
from ultrafolio.check.search.packing import REFUSALS
from ultrafolio.check.verdicts import certificate, scope
from ultrafolio.engine.load import constants
from ultrafolio.export.observation import rules_digest
from ultrafolio.fields import Field
from ultrafolio.model import layout, policies, policy, scenario
from ultrafolio.model.designs import DESIGNS, S390
from ultrafolio.model.rule import RULES
from ultrafolio.screen import MAIL
from ultrafolio.version import __version__
from ultrafolio.waits import tables

from . import link
from .names import FIELDS, literal
from .sources import translated

CHECKER = ("python", "toml", "scenario", "system", "explore", "ways", "judge", "verdict", "link")
"""Scripts that check a scenario; they run without a page, too."""
DRAWN = ("draw", "player", "page")
"""Scripts of the page itself."""
MOST_STATES = 200_000
"""States up to which the page explores a system."""
MOST_WORDS = 24_000_000
"""Words of 32 bits up to which states are kept: 96 MB."""
MOST_ACTORS = 30
"""Actors up to which it does: one bit each in a word of 32."""
_NAMED = re.compile(r"^(?:const|let|class|(?:async )?function\*?) (\w+)", re.MULTILINE)
"""The names of what a script has outside of functions: lines without indentation."""
_FOLDER = Path(__file__).parent / "js"


def asset(name: str) -> str:
    """The text of one of the page's files."""
    return (_FOLDER / name).read_text(encoding="utf-8")


def script(changed: Mapping[str, str] | None = None, *, page: bool = True) -> str:
    """The whole script, within one function, so that none of its names is the browser's. Without `page`: the checker
    alone, which gives `checkLink` and `checkText` to whoever runs it. changed: see sources.translated."""
    hand = [asset(f"{name}.js") for name in (*CHECKER, *(DRAWN if page else ("alone",)))]
    parts = ['(() => {\n"use strict";', *tables_for(hand), translated(changed), *hand, "})();\n"]
    names = Counter(_NAMED.findall("\n".join(parts)))
    if twice := [name for name, n in names.items() if n > 1]:
        raise ValueError(f"two things of one name in the page's script: {', '.join(twice)}")
    return "\n".join(map(_short, parts))


def _short(text: str) -> str:
    """A script without indentation and without the lines that are comments; none of ours has a text over lines."""
    lines = (line.strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line and not line.startswith(("//", "/**", "*")))


def page() -> str:
    """The page: one HTML file that loads nothing and runs this script alone."""
    code = "\n" + script()
    allowed = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    parts = {
        "policy": f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{allowed}'; base-uri 'none'",
        "style": asset("page.css"), "script": code,
        "about": f"ultrafolio {__version__}, rules {rules_digest()[:12]}; works offline.",
    }  # fmt: skip
    first, *rest = asset("page.html").split("{{")
    return first + "".join(parts[name] + text for name, text in (piece.split("}}", 1) for piece in rest))


def tables_for(hand: list[str]) -> list[str]:
    """The tables of the model that the scripts `hand` use, as JavaScript."""
    known = constants(layout) | constants(tables)
    wanted = sorted({name for text in hand for name in re.findall(r"\bK\.([A-Z_0-9a-z]+)", text)})
    made = {
        "K": {name: known[name] for name in wanted},
        "SECTIONS": {section: list(places) for section, places in FIELDS.items()},
        "FIELDS_OF": fields_of(), "CODES": list(policy.Policy().codes()),
        "POLICIES": {name: list(policies.find(name).codes().values()) for name in policies.names()},
        "VARIANTS": {name: code for name, (code, _) in policy.VARIANTS.items()},
        "REFUSALS": REFUSALS, "MOST_STATES": MOST_STATES, "MOST_WORDS": MOST_WORDS, "MOST_ACTORS": MOST_ACTORS,
        "SHIPPED": shipped_texts(), "MANY": certificate.MAX_ASKED, "MAIL": MAIL, "STEPS": scope.STEPS,
        "DIGEST": rules_digest(),
    }  # fmt: skip
    takers = {pc: RULES[pc].takers for pc in sorted(RULES)}
    maps = {"TAKERS": takers, "OUTCOMES": layout.OUTCOMES}
    return [f"const {name} = {_json(value)};" for name, value in made.items()] + [
        f"const {name} = {literal(value)};" for name, value in maps.items()
    ]


def shipped_texts() -> str:
    """The shipped scenarios as a link has them, {name: [text, {policy: what a policy of its own adds}]}, packed."""
    default, texts = policies.PRESETS["per-page"][1], {}
    for file in shipped.shipped("scenarios"):
        story = scenario.read(file)
        text = link.scenario_text(story, default, "per-page")
        own = {name: link.scenario_text(story, policies.find(name, story.tables), name) for name in story.tables}
        texts[file.stem] = [text, {name: whole.removeprefix(text) for name, whole in own.items()}]
    return link.packed(_json(texts))


def fields_of() -> dict[str, Any]:
    """The fields of scenario files and of policies: kind, bounds, words and default of each. only: what the page takes
    of two of them, since it has one design; designs: the others, with the first machine of each."""
    return {
        "top": {name: True for name in (*scenario.TOP, "version")},
        "designs": {name: design.machines[0] for name, design in DESIGNS.items() if design is not S390},
        "only": {"design": [S390.name], "machine": ["", *S390.machines]},
        "memory": _fields(scenario.MEMORY),
        "features": _fields(scenario.FEATURES),
        "actors": {name: _fields(table) for name, table in scenario.ACTORS.items()},
        "policy": _fields(policies.FIELDS),
        "states": scenario.STATES,
        "lists": scenario.PAGE_LISTS,
    }


def _fields(table: Mapping[str, Field]) -> dict[str, Any]:
    made = {}
    for name, field in table.items():
        said: dict[str, Any] = {"kind": field.kind}
        said |= {"needed": True} if field.default is ... else {"default": field.default}
        said |= {"choices": list(field.choices)} if field.choices else {}
        made[name] = said | ({"low": field.low, "high": field.high} if field.kind in ("int", "ints") else {})
    return made


def _json(value: Any) -> str:
    """Returns a value as JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
