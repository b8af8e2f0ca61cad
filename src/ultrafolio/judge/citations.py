"""The kernel functions that the rules cite, and those of them that a tree lacks.

A tree has a function if a file of FOLDERS defines or calls it; comments, strings and prototypes do not count.
"""

from __future__ import annotations

import re

from ..model.design import Design
from ..model.designs import GUEST_MEMFD, S390
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


OF_DESIGN = {
    S390.name: FOLDERS,
    GUEST_MEMFD.name: ("arch/x86/kvm/mmu", "virt/kvm", "mm", "include/linux", "fs", "block"),
}
"""Where the functions of a design stand."""


def cited(design: Design = S390) -> dict[str, list[str]]:
    """Function -> the rules of a design that cite it; fields of records are left out."""
    found: dict[str, list[str]] = {}
    for pc in sorted(design.rules):
        rule = design.rules[pc]
        for name in re.findall(r"(?<![\w.])(?:[a-z0-9]+_)+[a-z0-9_]+\b", rule.kernel):
            found.setdefault(name, []).append(rule.name)
    return found


def gone(tree: Tree, design: Design = S390) -> dict[str, list[str]]:
    """The cited names that no file of the design's folders defines or calls, with the rules that cite them."""
    names = cited(design)
    left = set(names)
    for folder in OF_DESIGN[design.name]:
        for file in sorted((tree.root / folder).glob("*.[ch]")):
            if not left:
                break
            text = tree.text(str(file.relative_to(tree.root))) or ""
            near = {name for name in left if name in text}
            left -= _used(bare(text), near) if near else set()
    return {name: names[name] for name in sorted(left)}


def unseen(tree: Tree, design: Design = S390) -> list[str]:
    """The folders of a design that the tree lacks; functions in them are not found."""
    return [folder for folder in OF_DESIGN[design.name] if not any((tree.root / folder).glob("*.[ch]"))]


def _used(text: str, names: set[str]) -> set[str]:
    """Those names that the text, which has no comments, defines or calls."""
    text = re.sub(r"^(?![\s#])[^;{}()]*\([^;{}]*\)[\w\s()]*;", "", text, flags=re.M)  # prototypes
    return {name for name in names if re.search(rf"\b{name}\s*\(", text)}
