"""The explorer's page: one HTML template, style and scripts, for the server and for a self-contained file."""

from __future__ import annotations

import html
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ultrafolio.export import text_in
from ultrafolio.model.designs import GUEST_MEMFD, S390
from ultrafolio.web.pages import ELEMENTS, script

from .expression import ALLOWED, constants
from .node import STATE_OF, sections_of, words_of
from .walk import MAX_STEPS, Walk

SCRIPTS, STYLE = (ELEMENTS, "source.js", "question.js", "show.js", "page.js"), "page.css"
EXAMPLES = {
    S390.name: "uv[1].state == EXPORTED and mm[0].longs > 0",
    GUEST_MEMFD.name: "mm[0].private == 0 and mm[0].longs > 0",
}
"""Per design an expression that the page shows where one is typed."""
_FOLDER = Path(__file__).parent
_ALONE = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def asset(name: str) -> str:
    """The text of one of the page's files."""
    return script() if name == ELEMENTS else (_FOLDER / name).read_text(encoding="utf-8")


def meta(walks: Sequence[Walk], command: str) -> dict[str, Any]:
    """The page's data beside states: names, words, rules, and the command that shows each policy's walk. state: as
    STATE_OF of a design."""
    walk, design = walks[0], walks[0].design
    return {
        "title": title(walk),
        "scenario": walk.scenario + (f" on {walk.story.machine}" if _on_one_of_several(walks) else ""),
        "policies": names(walks),
        "commands": [shlex.join(w.command()) for w in walks],
        "command": command,
        "actors": walk.actors,
        "sections": sections_of(walk),
        "words": words_of(design.name),
        "state": STATE_OF[design.name],
        "legend": text_in.of(design.name).LEGEND,
        "rules": {r.name: {"about": r.about, "kernel": r.kernel, "seed": r.seed} for r in design.rules.values()},
        "properties": list(design.properties),
        "leads_to": list(design.leads_to),
        "constants": constants(design),
        "allowed": ALLOWED,
        "example": EXAMPLES[design.name],
        "max_steps": MAX_STEPS,
    }


def names(walks: Sequence[Walk]) -> list[str]:
    """The names of walks on the page and in its links: their policies, with the machine if there are several."""
    several = len({walk.story.machine for walk in walks}) > 1
    return [walk.policy + (f" on {walk.story.machine}" if several else "") for walk in walks]


def _on_one_of_several(walks: Sequence[Walk]) -> bool:
    """Whether the walks are on one machine, of a design that has several."""
    return len(walks[0].design.machines) > 1 and len({walk.story.machine for walk in walks}) == 1


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
