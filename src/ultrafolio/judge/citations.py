"""The kernel functions that the rules cite, and those of them that a tree lacks.

A tree has a function if a file of FOLDERS defines or calls it; comments, strings and prototypes do not count.
"""

from __future__ import annotations

import re

from ..model.rule import RULES
from .cut import Tree, bare

FOLDERS = (
    "arch/s390/kernel",
    "arch/s390/kvm",
    "arch/s390/mm",
    "arch/s390/include/asm",
    "mm",
    "include/linux",
    "fs",
    "block",
    "drivers/s390/virtio",
)


def cited() -> dict[str, list[str]]:
    """Function -> the rules that cite it; fields of records are left out."""
    found: dict[str, list[str]] = {}
    for pc in sorted(RULES):
        rule = RULES[pc]
        for name in re.findall(r"(?<![\w.])(?:[a-z0-9]+_)+[a-z0-9_]+\b", rule.kernel):
            found.setdefault(name, []).append(rule.name)
    return found


def gone(tree: Tree) -> dict[str, list[str]]:
    """The cited names that no file of the tree's folders defines or calls, with the rules that cite them."""
    names = cited()
    left = set(names)
    for folder in FOLDERS:
        for file in sorted((tree.root / folder).glob("*.[ch]")):
            if not left:
                break
            text = tree.text(str(file.relative_to(tree.root))) or ""
            near = {name for name in left if name in text}
            left -= _used(bare(text), near) if near else set()
    return {name: names[name] for name in sorted(left)}


def unseen(tree: Tree) -> list[str]:
    """The folders of FOLDERS that the tree lacks; functions in them are not found."""
    return [folder for folder in FOLDERS if not any((tree.root / folder).glob("*.[ch]"))]


def _used(text: str, names: set[str]) -> set[str]:
    """Those names that the text, which has no comments, defines or calls."""
    text = re.sub(r"^(?![\s#])[^;{}()]*\([^;{}]*\)[\w\s()]*;", "", text, flags=re.M)  # prototypes
    return {name for name in names if re.search(rf"\b{name}\s*\(", text)}
