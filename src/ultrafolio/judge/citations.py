"""Which kernel functions the rules cite, and which of them a tree has no more."""

from __future__ import annotations

import re

from ..model.rule import RULES
from .cut import Tree

FOLDERS = ("arch/s390/kernel", "arch/s390/kvm", "arch/s390/mm", "arch/s390/include/asm", "mm", "include/linux", "fs")


def cited() -> dict[str, list[str]]:
    """Names of functions that the rules cite, each with the rules that cite it."""
    found: dict[str, list[str]] = {}
    for pc in sorted(RULES):
        rule = RULES[pc]
        for name in re.findall(r"\b(?:[a-z0-9]+_)+[a-z0-9_]+\b", rule.kernel):
            found.setdefault(name, []).append(rule.name)
    return found


def gone(tree: Tree) -> dict[str, list[str]]:
    """The cited names that stand nowhere in the tree's folders that the rules are about, with the rules."""
    names = cited()
    left = set(names)
    for folder in FOLDERS:
        for file in sorted((tree.root / folder).glob("*.[ch]")):
            if not left:
                break
            text = tree.text(str(file.relative_to(tree.root))) or ""
            left = {name for name in left if not re.search(rf"\b{name}\b", text)}
    return {name: names[name] for name in sorted(left)}
