"""An automaton as a model of the kernel's runtime verification: the DOT file for dot2k, and its page as .rst.

Sources: Documentation/trace/rv, and tools/verification of Linux 6.12: models/wip.dot, and dot2/automata.py, which reads
the DOT file line by line; for clocks models/stall.dot of 2026.
"""

from __future__ import annotations

import re
from collections import deque

from ultrafolio.errors import InputError

from .automaton import Automaton

MOST_NAME = 24
"""Longest name of a monitor: MAX_DA_NAME_LEN."""
PROBES: dict[str, tuple[str, str]] = {
    "page_ref_freeze": ("tracepoint page_ref_freeze", "tracepoint page_ref_freeze"),
    "page_ref_unfreeze": ("tracepoint page_ref_unfreeze", "tracepoint page_ref_unfreeze"),
    "try_grab_folio": ("kprobe try_grab_page", "kprobe try_grab_folio"),
    "unpin_user_page": ("kprobe unpin_user_page", "kprobe unpin_user_page"),
    "folio_wait_writeback": ("tracepoint folio_wait_writeback", "tracepoint folio_wait_writeback"),
    "folio_start_writeback": ("kprobe __folio_start_writeback", "kprobe __folio_start_writeback"),
    "folio_end_writeback": ("kprobe folio_end_writeback", "kprobe folio_end_writeback"),
    "uv_pin_shared": ("kretprobe uv_pin_shared (static)", "kretprobe uv_pin_shared"),
    "uv_convert_from_secure": ("kretprobe uv_convert_from_secure", "kretprobe uv_convert_from_secure (static)"),
    "split_folio": (
        "kretprobe split_huge_page_to_list", "kretprobe split_huge_page_to_list_to_order",
    ),
}  # fmt: skip
"""Event -> where Linux 6.1 and 6.12 show it. A static function may be inlined; its caller then has no such probe."""
KERNELS = ("6.1", "6.12")
TIMED = frozenset({"frozen", "in_writeback"})
"""Facts of a state in which something has begun that must end: there a clock runs."""
INVARIANT, RESET = "\\nclk < threshold_jiffies", ";reset(clk)"


def name_of(scenario: str, policy: str) -> str:
    """Returns the name of a monitor: letters, digits and _, at most MOST_NAME."""
    return re.sub(r"\W+", "_", f"uf_{scenario}_{policy}").lower()[:MOST_NAME].rstrip("_")


def dot(model: Automaton, *, clock: bool = False) -> str:
    """Returns the DOT file. Every state is final: whatever happened so far is allowed. Raises InputError for an
    automaton without an event.

    clock: a hybrid automaton, which rvgen reads since 2026: where a freeze or a writeback has begun, the time since
    then must stay below a threshold.
    """
    if not model.edges:
        raise InputError(
            "the monitor has no event", cause="no step of this system shows one", allowed="another scenario"
        )
    first = model.names[0]
    timed = [clock and bool(facts & TIMED) for facts in model.facts]
    lines = ["digraph state_automaton {", "\tcenter = true;", '\tsize = "7,11";']
    lines += [f'\t{{node [shape = circle] "{name}"}};' for name in model.names]
    lines += [f'\t{{node [shape = plaintext, style=invis, label=""] "__init_{first}"}};']
    lines += [f'\t{{node [shape = doublecircle] "{name}"}};' for name in model.names]
    lines += [f'\t"__init_{first}" -> "{first}";']
    for number, name in enumerate(model.names):
        lines.append(f'\t"{name}" [label = "{name}{INVARIANT if timed[number] else ""}"];')
        for (source, symbol), target in model.edges.items():
            if source == number:
                begins = RESET if timed[target] and not timed[source] else ""
                lines.append(f'\t"{name}" -> "{model.names[target]}" [ label = "{symbol}{begins}" ];')
    lines += ["\t{ rank = min ;", f'\t\t"__init_{first}";', f'\t\t"{first}";', "\t}", "}"]
    return "\n".join(lines) + "\n"


def drawn(model: Automaton) -> list[str]:
    """The automaton as a tree from its first state, in lines of ASCII: each edge once, the events of a state below the
    shortest way to it."""
    after: dict[int, list[tuple[str, int]]] = {}
    for (source, symbol), target in model.edges.items():
        after.setdefault(source, []).append((symbol, target))
    way, queue = {0: (-1, "")}, deque([0])
    while queue:
        source = queue.popleft()
        for symbol, target in after.get(source, []):
            if target not in way:
                way[target] = source, symbol
                queue.append(target)

    def below(state: int, indent: str) -> list[tuple[str, int, str, int, bool]]:
        """What stands below a state, the last line first."""
        own = after.get(state, [])
        return [(indent, state, symbol, target, n + 1 == len(own)) for n, (symbol, target) in enumerate(own)][::-1]

    lines, left = [model.names[0]], below(0, "")
    while left:
        indent, source, symbol, target, is_last = left.pop()
        first = way[target] == (source, symbol)
        name = model.names[target] if first else f"({model.names[target]})"
        lines.append(f"{indent}{'`' if is_last else '|'}-- {symbol} --> {name}")
        if first:
            left += below(target, indent + ("    " if is_last else "|   "))
    return lines


def rst(model: Automaton, name: str, scenario: str, policy: str, command: str) -> str:
    """Returns the monitor's page: what it is of, the automaton drawn as a tree, and the probes by kernel version."""
    title = f"Monitor {name}"
    lines = [
        title,
        "=" * len(title),
        "",
        f"- Name: {name} - what {policy} shows in scenario {scenario}",
        "- Type: deterministic automaton over the folios of the scenario",
        f"- Made by: {command}",
        "",
        "Description",
        "-----------",
        "",
        "A path of the automaton is what some execution of the scenario shows, and no other sequence is one. An",
        "event that a state does not have is one that the policy forbids there. A name says what is true there; a",
        "name in brackets is of a state whose own events stand elsewhere.",
        "",
        "::",
        "",
        *(f"  {line}" for line in drawn(model)),
    ]
    events = sorted({symbol.removesuffix("_fails") for symbol in model.symbols})
    lines += ["", "Probes", "------", ""]
    rows = [("event", *(f"Linux {kernel}" for kernel in KERNELS)), *((event, *PROBES[event]) for event in events)]
    sizes = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    rule = "  ".join("=" * size for size in sizes)
    told = ["  ".join(cell.ljust(size) for cell, size in zip(row, sizes, strict=True)).rstrip() for row in rows]
    lines += [rule, told[0], rule, *told[1:], rule, ""]
    lines += [
        "An event with _fails is the same with a failing result: a freeze that returns 0, a function that returns",
        "an error. A pin or an unpin may be told by page_ref_mod and page_ref_mod_and_test too, with 1024.",
    ]
    return "\n".join(lines) + "\n"
