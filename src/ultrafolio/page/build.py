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
from ultrafolio.export.observation import rules_digest
from ultrafolio.model import policies, scenario, toml
from ultrafolio.model.designs import DESIGNS
from ultrafolio.version import __version__

from . import link, sources, tables
from .names import literal

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
STATE = ("C", "W", "nPages", "nActors", "nVms", "o_uv", "o_mm", "o_vm", "o_task", "o_actor", "o_io", "o_pt")
"""Variables that the system under test sets: its constant sections, its numbers of records, where sections begin."""
_NAMED = re.compile(r"^(?:const|let|class|(?:async )?function\*?) (\w+)", re.MULTILINE)
"""The names of what a script has outside of functions: lines without indentation."""
_WORD = re.compile(r"[A-Za-z_]\w*")
_FOLDER = Path(__file__).parent / "js"


def asset(name: str) -> str:
    """The text of one of the page's files."""
    return (_FOLDER / name).read_text(encoding="utf-8")


def script(changed: Mapping[str, str] | None = None, *, page: bool = True) -> str:
    """The whole script, within one function, so that none of its names is the browser's. Without `page`: the checker
    alone, which gives `checkText` and others to whoever runs it. changed: see sources.translated."""
    hand = [asset(f"{name}.js") for name in (*CHECKER, *(DRAWN if page else ("alone",)))]
    parts = sources.translated(changed)
    common = parts.pop("")
    common.names.used |= _same([part.names.used for part in parts.values()])
    shared = {**tables.of_all(), "SHIPPED": shipped_texts(), "MOST_STATES": MOST_STATES, "MOST_WORDS": MOST_WORDS,
              "MOST_ACTORS": MOST_ACTORS}  # fmt: skip
    top = [*_constants(shared), common.names.constants(), *common.written.values(), *hand]
    text = "\n".join(top)
    words, taken, closures = set(_WORD.findall(text)) - set(_NAMED.findall(text)), set[str](), []
    for name, part in parts.items():
        own = tables.of_design(DESIGNS[name], hand)
        given = ((part.defined() | set(own)) - set(common.names.used)) & words
        taken |= given
        lines = [*_constants(own), part.names.constants(common.names.used | own), *part.written.values()]
        closures.append(f"function of_{name}() {{\n{_apart(lines)}\nreturn {{ {', '.join(sorted(given))} }};\n}}")
    common_text = _apart([*_used(sorted(taken), [*parts]), *top])
    return _short("\n".join(['(() => {\n"use strict";', common_text, *closures, "})();\n"]))


def _used(taken: list[str], designs: list[str]) -> list[str]:
    """Returns the variables that stand for what the design in use has, and `useDesign(name)`, which sets them."""
    makers = ", ".join(f"{name}: of_{name}" for name in designs)
    return [*(f"let {name};" for name in (*STATE, *taken)),
            f"const MADE = {{}};\nfunction useDesign(design) {{\nMADE[design] ??= {{ {makers} }}[design]();\n"
            f"({{ {', '.join(taken)} }} = MADE[design]);\n}}"]  # fmt: skip


def _same(some: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the constants that all of these have, with one value."""
    first, *others = some
    return {name: value for name, value in first.items() if all(name in one and one[name] == value for one in others)}


def _apart(parts: list[str]) -> str:
    """Returns the parts of a function as one text. ValueError where it has two things of one name."""
    text = "\n".join(parts)
    if twice := [name for name, n in Counter(_NAMED.findall(text)).items() if n > 1]:
        raise ValueError(f"two things of one name in the page's script: {', '.join(twice)}")
    return text


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


def _constants(values: Mapping[str, Any]) -> list[str]:
    """Returns tables as JavaScript: those with numbers as keys, and words by place, as names.literal has them."""
    return [
        f"const {name} = {literal(value) if _is_numbered(value) else _json(value)};" for name, value in values.items()
    ]


def _is_numbered(value: Any) -> bool:
    """Whether a table's keys are numbers."""
    return isinstance(value, dict) and any(isinstance(key, int) for key in value)


def shipped_texts() -> str:
    """The shipped scenarios as a link has them, {name: [text, {policy: what a policy of its own adds}]}, packed."""
    texts = {}
    for file in shipped.shipped("scenarios", below=True):
        story = scenario.read(file)
        text = "\n".join(toml.lines(story)) + "\n"
        own = {name: link.scenario_text(story, policies.find_any(name, story.tables), name) for name in story.tables}
        texts[file.stem] = [text, {name: whole.removeprefix(text) for name, whole in own.items()}]
    return link.packed(_json(texts))


def _json(value: Any) -> str:
    """Returns a value as JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
