"""docs/running-kernel.md: what one kernel did where the rules of guest_memfd say something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ultrafolio.markdown import table

from . import memfd_rows
from .probes import Finding

INTRO = """\
# What a running kernel says of guest_memfd

Printed by `{command} --markdown` on {machine}; do not edit.
`ultrafolio calibrate --kernel --no-costs` asks your kernel.

*agrees*, *differs*: the kernel did what the rules say, or something else. *missing*: this kernel lacks the capability
that is named. *not possible here*: the reason stands beside it. Each row is asked in a process of its own, which ends
within thirty seconds. Cases are those of [conformance.md](conformance.md#conversion-in-guest_memfd), rules those of
[rules-guest-memfd.md](rules-guest-memfd.md).
"""


def page(found: Sequence[Finding], capabilities: Mapping[str, int], machine: str, command: str) -> str:
    """The page, from the findings of memfd_rows.findings()."""
    ours = [one for one in found if one.design == memfd_rows.DESIGN.name]
    rows = [
        (one.case or "–", ", ".join(f"`{name}`" for name in one.rules) or "–", one.says or "–", one.saw, one.verdict)
        for one in ours
    ]
    return "\n".join(
        [
            INTRO.format(machine=machine, command=command),
            "## Capabilities",
            "",
            *table(("capability", "answer"), ((f"`{name}`", answer) for name, answer in capabilities.items())),
            "",
            "## Rows",
            "",
            *table(("case", "rules", "the rules say", "the kernel", "result"), rows),
            "",
            "## Rules",
            "",
            *table(("rule", "result"), ((f"`{name}`", said) for name, said in memfd_rows.by_rule(ours).items())),
            "",
        ]
    )
