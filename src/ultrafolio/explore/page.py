"""The explorer's page: one HTML template, style and scripts, for the server and for a self-contained file."""

from __future__ import annotations

import html
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ultrafolio.export.text import LEGEND
from ultrafolio.model.designs import S390
from ultrafolio.model.properties import PROPERTIES
from ultrafolio.model.rule import RULES
from ultrafolio.waits.words import LEADS_TO
from ultrafolio.web.pages import ELEMENTS, script

from .expression import ALLOWED, CONSTANTS
from .node import SECTIONS, words_of
from .walk import MAX_STEPS, Walk

SCRIPTS, STYLE = (ELEMENTS, "source.js", "question.js", "show.js", "page.js"), "page.css"
_FOLDER = Path(__file__).parent
_ALONE = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def asset(name: str) -> str:
    """The text of one of the page's files."""
    return script() if name == ELEMENTS else (_FOLDER / name).read_text(encoding="utf-8")


def meta(walks: Sequence[Walk], command: str) -> dict[str, Any]:
    """The page's data beside states: names, words, rules, and the command that shows each policy's walk."""
    walk = walks[0]
    return {
        "title": title(walk),
        "scenario": walk.scenario,
        "policies": [w.policy for w in walks],
        "commands": [shlex.join(w.command()) for w in walks],
        "command": command,
        "actors": walk.actors,
        "sections": SECTIONS,
        "words": words_of(S390.name),
        "legend": LEGEND,
        "rules": {r.name: {"about": r.about, "kernel": r.kernel, "seed": r.seed} for r in RULES.values()},
        "properties": list(PROPERTIES),
        "leads_to": list(LEADS_TO),
        "constants": CONSTANTS,
        "allowed": ALLOWED,
        "max_steps": MAX_STEPS,
    }


def title(walk: Walk) -> str:
    return walk.story.title or walk.scenario


def served(walks: Sequence[Walk]) -> str:
    """The page for the server; it loads style and scripts as separate files."""
    scripts = "\n".join(f'<script src="{name}" defer></script>' for name in SCRIPTS)
    return _filled(title(walks[0]), f'<link rel="stylesheet" href="{STYLE}">', "", scripts)


def alone(walks: Sequence[Walk], data: dict[str, Any]) -> str:
    """The page as one file with the data in it; it loads nothing."""
    style = f'<meta http-equiv="Content-Security-Policy" content="{_ALONE}">\n<style>\n{asset(STYLE)}</style>'
    # a "<" in the data could end the script element
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    embedded = f'<script type="application/json" id="data">{text}</script>'
    scripts = "\n".join(f"<script>\n{asset(name)}</script>" for name in SCRIPTS)
    return _filled(title(walks[0]), style, embedded, scripts)


def _filled(heading: str, style: str, data: str, script: str) -> str:
    """The template with its four placeholders replaced in one pass, so that inserted text is not replaced again."""
    parts = {"title": html.escape(heading), "style": style, "data": data, "script": script}
    first, *rest = asset("page.html").split("{{")
    return first + "".join(parts[name] + text for name, text in (piece.split("}}", 1) for piece in rest))
