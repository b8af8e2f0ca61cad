"""The scope of a verdict: size of the system, budgets, variants, injected faults, assumptions."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ultrafolio.model.designs import DESIGNS, S390
from ultrafolio.model.layout import ENDLESS
from ultrafolio.model.policies import AnyPolicy
from ultrafolio.model.scenario import Scenario, System

STEPS = "steps are atomic and seen by all in one order"


def scope_of(story: Scenario, made: System, policy: AnyPolicy) -> dict[str, Any]:
    """Returns the scope as JSON: folios and their orders, pages, actors by kind with their budgets, variants, faults.

    A budget is a number of starts, or "endless"; a vCPU's touches are always endless.
    """
    actors: dict[str, list[int | str]] = {}
    names = DESIGNS[story.design].kinds
    for kind, fields in story.actors:
        starts = fields.get("starts", 1)
        actors.setdefault(names[kind], []).append("endless" if starts == ENDLESS else starts)
    orders = Counter(story.memory["folios"])
    design = {} if story.design == S390.name else {"design": story.design, "machine": story.machine}
    return {
        **design,
        "folios": len(story.memory["folios"]),
        "orders": {str(order): n for order, n in sorted(orders.items())},
        "pages": len(made.state.mm),
        "actors": actors,
        "variants": list(policy.variants),
        "faults": _faults(story),
        "assumes": STEPS,
    }


def _faults(story: Scenario) -> list[str]:
    """Returns the faults that the scenario injects, in words."""
    made = []
    if story.memory.get("refuses"):
        pages = ", ".join(map(str, story.memory["refuses"]))
        made.append(f"the ultravisor refuses every call for page {pages}")
    for kind, fields in story.actors:
        if not fields.get("completes", True):
            made.append(f"the I/O of a {DESIGNS[story.design].kinds[kind]} never completes")
        if DESIGNS[story.design].kinds[kind] == "tamper":
            made.append("a hostile host changes a byte")
    return list(dict.fromkeys(made))


def scope_text(scope: dict[str, Any]) -> str:
    """Returns the scope as one line."""
    orders = ", ".join(f"{n} of order {order}" for order, n in scope["orders"].items())
    actors = "; ".join(
        f"{len(starts)} {kind}{'s' if len(starts) > 1 else ''} ({', '.join(map(str, starts))})"
        for kind, starts in scope["actors"].items()
    )
    extra = [f"variants: {', '.join(scope['variants'])}"] if scope["variants"] else []
    extra += [f"injected: {fault}" for fault in scope["faults"]]
    more = "".join(f"{part}; " for part in extra)
    return f"scope: folios: {orders}; actors and their starts (touches are endless): {actors}; {more}{scope['assumes']}"
