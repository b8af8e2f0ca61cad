"""The fixes that a tree has: by its version, and, for fixes of stable kernels, by the text of its functions.

A fix of its version is expected whatever the text says, so that its loss is a difference. The text only adds fixes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import InputError
from ..model import kernels
from ..model.fixes import Fix, fix, order, standing
from .cut import Tree, bare
from .pieces import GUP, HUGE, UV, Place


@dataclass(frozen=True, slots=True)
class Sign:
    """Detects a fix from a tree's text: a function with the fix matches `having`, one without it `lacking`.

    `places` are alternatives; the first that the tree has is used. Comments are ignored.
    """

    commit: str
    places: tuple[Place, ...]
    having: str
    lacking: str


def _in(path: str, *functions: str) -> tuple[Place, ...]:
    """Returns the places of these functions in a file."""
    return tuple(Place(path, function) for function in functions)


_LOOP = _in(UV, "gmap_make_secure")
SIGNS = (
    Sign("46c22ffd2772", _LOOP, r"\bvma_lookup\(", r"\bfind_vma\("),
    Sign("f0a1a0615a6f", _in(UV, "make_folio_secure", "make_page_secure", "make_secure_pte"),
         r"\b__uv_call\(", r"\buv_call\("),
    Sign("380d97bd02fc", _in(UV, "uv_convert_from_secure_folio", "uv_convert_owned_from_secure"),
         r"\bclear_bit\(", r"\buv_convert_from_secure\("),
    Sign("a52c25848e31", _in("arch/s390/mm/fault.c", "do_secure_storage_violation"),
         r"\bgmap_destroy_page\(", r"\bsend_sig\("),
    Sign("72b1daff2671", _LOOP, r"\bshould_export_before_import\(", r"\bmake_\w*(secure|pte)\("),
    Sign("c148dc8e2fa4", _LOOP, r"\b\w*trylock\w*\(", r"\block_page\("),
    Sign("259e660d91d0", _LOOP, r"\bfolio_test_large\(", r"\b(page_folio|make_\w*(secure|pte)|apply_to_page_range)\b"),
    Sign("3f29f6537f54", _LOOP, r"\bfolio_get\(folio\)", r"\b\w*wait\w*_writeback\("),
    Sign("eef88fe45ac9", _LOOP, r"\bsplit_folio\(", r"\b(page_folio|make_\w*(secure|pte)|apply_to_page_range)\b"),
    Sign("ab73b29efd36", (*_in(UV, "s390_wiggle_split_folio"), *_LOOP),
         r"\bfilemap_write_and_wait_range\(", r"\bsplit_folio\("),
    Sign("98c6d259319e", _in(GUP, "collect_longterm_unpinnable_folios", "collect_longterm_unpinnable_pages"),
         r"\bfolio_expected_ref_count\(", r"!folio_test_lru\("),
    Sign("d16a74f0f266", _in(GUP, "gup_fast_pte_range", "gup_pte_range"),
         r"if \(arch_make_(page|folio)_accessible\(", r"\bret = arch_make_(page|folio)_accessible\("),
    Sign("cff47b9e39a6", _in(HUGE, "split_huge_page_to_list_to_order"),
         r"!is_anon && !folio->mapping\b", r"\bshmem_mapping\(folio->mapping\)"),
)  # fmt: skip

_PV = "it changes arch/s390/kvm/pv.c, where no judged function stands"
_GMAP = "it changes arch/s390/mm/gmap.c, where no judged function stands"
_LATER = "the bug is younger than the versions that are judged"
UNTOLD = {
    "1e2aa46de526": _PV, "fb491d5500a7": _PV, "292a7d6fca33": _PV, "5ff92181577a": _PV, "185d903064f8": _PV,
    "c2fceb59bbda": _GMAP,
    "90a7592da149": "it changes mm/userfaultfd.c, where no judged function stands",
    "d8dfda5af0be": _LATER, "3ec8a8330a1a": _LATER, "f303406efd0b": _LATER, "3ffe5eb4a5f2": _LATER,
    "42546fc642e9": _LATER, "9a1dfbbd3506": _LATER, "6ae67dcac742": _LATER, "5670b7f927f8": _LATER,
    "d4bb00704a66": _LATER, "866d03de6def": _LATER,
    "c9a568838086": "it changes how an adapter interrupt finds its page, in no judged function",
}  # fmt: skip
"""Fix that cannot be detected from the text -> the reason."""


def told(tree: Tree, sign: Sign) -> bool | None:
    """Whether the text has a fix; None if it has neither form."""
    for place in sign.places:
        cut = tree.function(place.path, place.function)
        if cut is None:
            continue
        text = bare(cut.text)
        return True if re.search(sign.having, text) else False if re.search(sign.lacking, text) else None
    return None


def due(tree: Tree, row: Fix) -> bool:
    """Whether the tree's version has a fix: the mainline version, or a release of its own stable series."""
    stable = (one for one in row.stable if re.fullmatch(rf"{re.escape(tree.base)}\.\d+", one))
    return standing(row, tree.base) == "has the fix" or any(order(tree.release) >= order(one) for one in stable)


def preset(tree: Tree) -> tuple[str, list[str]]:
    """(policy of a tree, lines about its fixes). The policy is its version's, with the further fixes that its text has.
    The lines name fixes beyond its version, later ones that it lacks, and missing ones that its version has."""
    name, said = f"linux-{tree.base}", []
    for sign in SIGNS:
        row, has = fix(sign.commit), told(tree, sign)
        wanted = bool(has) or due(tree, row)
        changed = _changes(name, sign.commit, wanted)
        if changed:
            name = changed
        beyond = standing(row, tree.base) != "has the fix"
        if has is False and due(tree, row):
            said.append(f"lacks {row.commit} ({row.subject}), which Linux {tree.release} has")
        elif changed or (has and beyond):
            said.append(f"{'carries' if wanted else 'lacks'} {row.commit} ({row.subject})")
    return name, said


def _changes(name: str, commit: str, wanted: bool) -> str:
    """The policy's name with a fix, or without it; "" if the fix does not change the policy."""
    other = name + ("+" if wanted else "~") + commit
    try:
        kernels.find(other)
    except InputError:
        return ""
    return other
