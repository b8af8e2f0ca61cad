"""`ultrafolio rules`: the rule table, the properties and the page states as Markdown, generated from the rules."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import click

from ultrafolio.engine.interp import to_lists
from ultrafolio.engine.load import interpreted
from ultrafolio.fields import Field
from ultrafolio.markdown import table
from ultrafolio.model.design import Design
from ultrafolio.model.designs import DESIGNS, S390
from ultrafolio.model.guest_memfd import scenario as memfd
from ultrafolio.model.layout import (
    ALLOWED,
    EXPORTED,
    NON_SECURE,
    PAGE_STATES,
    PGM_3D,
    PGM_3E,
    PGM_3F,
    UV_BUSY,
    UV_ERROR,
    UV_EXIT,
    UV_INTEGRITY,
    UV_OK,
    State,
    blank,
)
from ultrafolio.model.properties import PROPERTIES, SEED

OWNER, OTHER = 0, 1
_RESULT = {UV_ERROR: "error", UV_BUSY: "busy", UV_INTEGRITY: "integrity error", UV_EXIT: "exit to the host"}
_VIEW = {ALLOWED: "allowed", PGM_3D: "0x3d", PGM_3E: "0x3e", PGM_3F: "0x3f"}
Call = Callable[[Any, Any, int, int], int]
CALLS: dict[str, tuple[Call, bool]] = {
    "import (host)": (lambda run, s, vm, misc: run.uv_import(s, vm, 0, misc), False),
    "export (host)": (lambda run, s, vm, misc: run.uv_export(s, 0), False),
    "pin shared (host)": (lambda run, s, vm, misc: run.uv_pin(s, 0), False),
    "unpin (host)": (lambda run, s, vm, misc: run.uv_unpin(s, vm, 0), False),
    "unshare all and destroy (host)": (lambda run, s, vm, misc: run.uv_reset(s, vm), False),
    "share (guest)": (lambda run, s, vm, misc: run.uv_share(s, vm, 0), True),
    "unshare (guest)": (lambda run, s, vm, misc: run.uv_unshare(s, vm, 0), True),
}
"""Call of the ultravisor -> (function, whether the guest calls it: then the hardware must first allow the page)."""
CONDITIONS = {
    "altered": ("unchanged", "a byte changed"),
    "shared": ("secure when exported", "shared when exported"),
    "misc": ("no ownership transfer", "ownership transfer"),
}
"""The other conditions of an outcome, and their two values in words; the first two for an exported page only."""


@click.command("rules")
@click.option("--json", "as_json", is_flag=True, help="The rules alone, one JSON object a line.")
@click.option("--design", "name", type=click.Choice(list(DESIGNS)), default=S390.name, show_default=True,
              help="The design whose rules to print.")  # fmt: skip
def rules(as_json: bool, name: str) -> None:
    """Print every rule, the properties and the page states as Markdown (docs/rules.md is this output).

    \b
    ultrafolio rules | less
    ultrafolio rules --json | grep '"releases": \\["refs"'

    Exit code: 0 always.
    """
    design = DESIGNS[name]
    if not as_json:
        click.echo(markdown() if design is S390 else _of_design(design))
        return
    for pc in sorted(design.rules):
        made = design.rules[pc]
        click.echo(
            json.dumps(
                {
                    "pc": pc,
                    "rule": made.name,
                    "about": made.about,
                    "actor": made.actor,
                    "fairness": made.fairness or "none",
                    "chooses": made.chooses,
                    "releases": made.releases,
                    "traced": made.traced,
                    "kernel": made.kernel,
                    "seed": made.seed,
                }
            )
        )


def markdown() -> str:
    """The page docs/rules.md."""
    return "\n".join(
        [
            "# The rules",
            "",
            "Printed by `ultrafolio rules` from the rules themselves; do not edit. A rule is one atomic step, and any",
            "other part may run between two. `weak`: a step that stays enabled is taken in the end. `strong`: one that",
            "is enabled again and again is; its thread sleeps in a queue, and the kernel hands over what it waits for.",
            "Of the others none need ever be taken.",
            "`releases`: what a waiter may wait for and this step ends. `recorded as`: the events by which",
            "`ultrafolio trace validate --scenario` knows the step in a recording of the kernel.",
            "",
            *_rules(),
            "",
            "## Properties",
            "",
            *_properties(),
            "",
            "## Page states",
            "",
            "Each call run on a page in each state: the state after it, or what the caller gets. `=`: it succeeds, and",
            "the state stays. A guest's call needs the hardware's leave first; 0x3e leads to an import.",
            "",
            *_call_table("for the page's owner", OWNER),
            "",
            *_call_table("for another guest", OTHER),
            "",
            *_view_table(),
            "",
            "```mermaid",
            *_diagram(),
            "```",
        ]
    )


def _of_design(design: Design) -> str:
    """The page docs/rules-guest-memfd.md."""
    rows = [[str(design.first + n), name] for n, name in enumerate(design.properties) if n]
    fields = [
        [f"`[{'[' * (where in memfd.ACTORS)}{where}]{']' * (where in memfd.ACTORS)}`", f"`{name}`", _default(field)]
        for where, some in {"memory": memfd.MEMORY, **memfd.ACTORS}.items()
        for name, field in some.items()
    ]
    return "\n".join(
        [
            f"# The rules of {design.name}",
            "",
            f"Printed by `ultrafolio rules --design {design.name}`; do not edit.",
            "[model.md](model.md#9-designs-and-machines) states the design, [rules.md](rules.md) explains the columns.",
            "",
            *rule_table(design),
            "",
            "## Properties",
            "",
            *table(["#", "always"], rows),
            "",
            *table(["leads-to"], [[name] for name in design.leads_to]),
            "",
            "## Scenarios",
            "",
            f'`design = "{design.name}"`, `machine` one of {", ".join(design.machines)}. What the words mean is as in',
            "[reference.md](reference.md); `process` is whose page table an actor uses, `locked` a VM_LOCKED",
            "mapping, `to` what a request asks for, `mapped` whether KVM maps the pages at the start, `allocated`",
            "whether they hold data.",
            "",
            *table(["table", "field", "default"], fields),
        ]
    )


def _default(field: Field) -> str:
    """The default of a field in words."""
    if field.default is ...:
        return "must be said"
    return ", ".join(map(str, field.default)) or "none" if isinstance(field.default, list) else str(field.default)


def _rules() -> list[str]:
    return rule_table(S390)


def rule_table(design: Design) -> list[str]:
    """The rules of a design as a table."""
    heading = ["#", "rule", "what it does", "actor", "fair", "releases", "kernel", "recorded as", "the mail"]
    return table(
        heading,
        [
            [
                str(rule.pc),
                f"`{rule.name}`",
                rule.about,
                rule.actor,
                rule.fairness or "no",
                ", ".join(rule.releases),
                rule.kernel,
                ", ".join(dict.fromkeys(f"`{name}`" for name in rule.shown)),
                rule.seed,
            ]
            for rule in (design.rules[pc] for pc in sorted(design.rules))
        ],
    )


def _properties() -> list[str]:
    rows = [[str(n), PROPERTIES[n], SEED[n]] for n in range(1, len(PROPERTIES))]
    return table(["#", "always", "the mail"], rows)


# ------------------------------------------------------------------------------------------- page states
def page(state: int, shared: int = 0, altered: int = 0) -> State:
    """A state, for the interpreter, of one page that guest OWNER of two owns.

    shared, altered  for an exported page: it was shared before; the host has changed its bytes since.
    """
    made = to_lists(blank(1, 1, 2))
    made.uv[0].state, made.uv[0].owner, made.uv[0].shared = state, OWNER, shared
    made.mm[0].altered = altered
    return made


def outcome(call: str, state: int, vm: int, altered: int, shared: int, misc: int) -> tuple[str, int, int]:
    """(result in words, "" for success; new state; new owner) of `call` by or for guest `vm` on a page."""
    run, made = interpreted(), page(state, shared, altered)
    function, by_guest = CALLS[call]
    view = run.hw_guest(made, vm, 0) if by_guest else ALLOWED
    code = UV_OK if view != ALLOWED else function(run, made, vm, misc)
    said = f"{_VIEW[view]} first" if view != ALLOWED else "" if code == UV_OK else _RESULT[code]
    return said, made.uv[0].state, made.uv[0].owner


def outcomes(call: str, state: int, vm: int) -> dict[tuple[int, ...], tuple[str, int, int]]:
    """The outcome of a call on a page for each combination of CONDITIONS that is possible in this state."""
    both = (0, 1) if state == EXPORTED else (0,)
    return {values: outcome(call, state, vm, *values) for values in itertools.product(both, both, (0, 1))}


def cell(call: str, state: int, vm: int) -> str:
    """The outcome of a call on a page, with the conditions that it depends on."""

    def told(said: str, after: int, owner: int) -> str:
        if said or after == state:
            return said or "="
        return PAGE_STATES[after] + (" of that guest" if owner == OTHER else "")

    cases = _cases({values: told(*found) for values, found in outcomes(call, state, vm).items()}, 0)
    return "; ".join(word + (f" ({', '.join(given)})" if given else "") for word, given in cases)


def _cases(words: dict[tuple[int, ...], str], at: int) -> list[tuple[str, list[str]]]:
    """(text, conditions) for each different text; a condition without effect is left out. `at`: the number of
    conditions that are already fixed."""
    if len(set(words.values())) == 1:
        return [(next(iter(words.values())), [])]
    halves = [{values: word for values, word in words.items() if values[at] == value} for value in (0, 1)]
    if list(halves[0].values()) == list(halves[1].values()) or not halves[1]:
        return _cases(halves[0], at + 1)
    name = list(CONDITIONS.values())[at]
    return [(word, [name[value], *given]) for value in (0, 1) for word, given in _cases(halves[value], at + 1)]


def _call_table(title: str, vm: int) -> list[str]:
    """Returns the table of what each call by or for guest `vm` does to a page in each state."""
    rows = [[call, *(cell(call, state, vm) for state in range(len(PAGE_STATES)))] for call in CALLS]
    return table([title, *PAGE_STATES], rows)


def _view_table() -> list[str]:
    """Returns the table of what an access by each party meets in each state of a page."""
    run, states = interpreted(), range(len(PAGE_STATES))
    guests = [
        [who, *(_VIEW[run.hw_guest(page(s), vm, 0)] for s in states)]
        for who, vm in (("the owner", OWNER), ("another guest", OTHER))
    ]
    host = ["the host", *(_VIEW[run.hw_host(page(s), 0)] for s in states)]
    return table(["access by", *PAGE_STATES], [*guests, host])


def _diagram() -> list[str]:
    """Every change of a page's state, and the calls that can make it."""
    edges: dict[tuple[int, int], dict[str, None]] = {}
    for state, call, vm in itertools.product(range(len(PAGE_STATES)), CALLS, (OWNER, OTHER)):
        for _, after, owner in outcomes(call, state, vm).values():
            if after != state:
                moved = " for another guest" if owner == OTHER and state != NON_SECURE else ""
                edges.setdefault((state, after), {})[call.split(" (")[0] + moved] = None
    return [
        "stateDiagram-v2",
        f"    [*] --> {PAGE_STATES[NON_SECURE]}",
        *(f"    {PAGE_STATES[a]} --> {PAGE_STATES[b]}: {', '.join(calls)}" for (a, b), calls in edges.items()),
    ]
