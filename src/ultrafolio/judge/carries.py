"""Which fixes a tree carries, read off the functions themselves: stable kernels have more than their version says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import InputError
from ..model import kernels
from ..model.fixes import fix
from .cut import Cut


@dataclass(frozen=True, slots=True)
class Sign:
    """A fix is in a tree where its piece has text that matches `pattern`."""

    commit: str
    piece: str
    pattern: str


SIGNS = (
    Sign("72b1daff2671", "export-first", r"protected_count"),
    Sign("259e660d91d0", "import-loop", r"folio_test_large"),
    Sign("3f29f6537f54", "import-loop", r"folio_get\(folio\)"),
    Sign("eef88fe45ac9", "import-loop", r"split_folio\("),
)


def carried(cuts: Mapping[str, Cut]) -> list[str]:
    """The commits of SIGNS that the pieces show, in their order."""
    return [s.commit for s in SIGNS if s.piece in cuts and re.search(s.pattern, cuts[s.piece].text)]


def preset(base: str, cuts: Mapping[str, Cut]) -> tuple[str, list[str]]:
    """The policy that a tree is held to: its version's preset, with each fix that it carries beyond it, and with each
    that its version has and the tree has not taken away. And these fixes, with their subjects."""
    name, said = f"linux-{base}", []
    found = carried(cuts)
    for sign in SIGNS:
        for mark in "+~":
            if (mark == "+") != (sign.commit in found):
                continue
            try:
                kernels.find(name + mark + sign.commit)
            except InputError:
                continue  # the preset has it, or lacks it, already
            name += mark + sign.commit
            said.append(f"{'carries' if mark == '+' else 'lacks'} {sign.commit} ({fix(sign.commit).subject})")
    return name, said
