"""Assemble one C program from the pieces of a tree: the shim, the pieces that operations need, and their drivers.

An operation is left out, with the reason, if a piece that it needs, directly or through calls, is missing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from .cut import Cut, Tree, bare
from .pieces import OPERATIONS, PIECES, Operation, Piece

SPLIT = ("split-writeback", "split-release", "split-count")
"""The pieces that together are split_folio()."""
_MAIN = """
#line 1 "main"
static long (*const operations[])(int) = { %s };

int main(void)
{
	long run[3]; /* operation, subject, number of answers */

	while (fread(run, sizeof(run), 1, stdin) == 1) {
		given = run[2];
		used = 0;
		subject = run[1];
		if (given > ANSWERS || fread(answers, sizeof(long), given, stdin) != (size_t)given)
			return 1;
		begin();
		if (!setjmp(out)) {
			asked[1] = operations[run[0]](subject);
			asked[0] = 0;
		} else {
			asked[0] = 1;
		}
		fwrite(asked, sizeof(long), 4, stdout);
		fflush(stdout);
	}
	return 0;
}
"""


@dataclass(frozen=True, slots=True)
class Assembled:
    """A C program, its pieces, its operations, and the missing operations, each with the reason."""

    text: str
    cuts: dict[str, Cut]
    operations: tuple[Operation, ...]
    missing: dict[str, str]


@dataclass(frozen=True, slots=True)
class Parts:
    """What a design's program is made of. This class is of a design whose pieces are functions that operations name or
    that other pieces call.

    folder     the folder of this package with its shim.h, which has begin(), and its drivers.c
    stand_ins  pieces that a tree need not have, since before() has something in their stead
    """

    folder: str
    pieces: tuple[Piece, ...]
    operations: tuple[Operation, ...]
    stand_ins: tuple[str, ...] = ()

    def source(self, name: str) -> str:
        """Returns a C file of the design."""
        return source(self.folder + name)

    def chosen(self, cuts: dict[str, Cut]) -> dict[str, Cut]:
        """Returns the found pieces without those that only look like the wanted ones."""
        return cuts

    def called(self, calls: set[str], cuts: Mapping[str, Cut]) -> list[str]:
        """Returns the pieces that stand for a call beside the function with its name."""
        return []

    def before(self, tree: Tree, cuts: Mapping[str, Cut], drivers: Mapping[str, str]) -> list[str]:
        """Returns the texts between the shim and the cut functions."""
        return []

    def apart(self, cuts: Mapping[str, Cut]) -> set[str]:
        """Returns the pieces that stand in a driver or in before(), and not among the cut functions."""
        return {piece.name for piece in self.pieces if any(place.block for place in piece.places)}


class _OfS390(Parts):
    """The parts of the design s390."""

    def chosen(self, cuts: dict[str, Cut]) -> dict[str, Cut]:
        if "accessible" in cuts and cuts["accessible"].name == "arch_make_folio_accessible":
            cuts.pop("accessible-folio", None)  # the empty one of other architectures
        return cuts

    def called(self, calls: set[str], cuts: Mapping[str, Cut]) -> list[str]:
        if "split_folio" not in calls:
            return []
        return [piece for piece in SPLIT if piece in cuts or piece != "split-release"]

    def before(self, tree: Tree, cuts: Mapping[str, Cut], drivers: Mapping[str, str]) -> list[str]:
        text = [_grabs(tree, cuts)]
        if "split-able" in cuts:
            text.append(_at(cuts["split-able"]))
        if "split-count" in cuts:
            text.append(_filled("split", drivers, cuts))
        return text

    def apart(self, cuts: Mapping[str, Cut]) -> set[str]:
        return Parts.apart(self, cuts) | {"split-able"}


S390 = _OfS390("", PIECES, OPERATIONS)


def source(name: str) -> str:
    """A C file of this package."""
    return (resources.files(__package__) / name).read_text("utf-8")


def find(tree: Tree, piece: Piece) -> Cut | str:
    """A piece of the tree, or a text that names the missing function if the tree has none of the alternatives."""
    why = ""
    for place in piece.places:
        cut = tree.function(place.path, place.function)
        if cut and place.block:
            block = tree.block(cut, place.block, place.occurrence)
            why = why or f"this tree has no such block in {place.function} ({place.path}): {piece.about}"
            cut = block
        if cut:
            return cut
    names = " or ".join(place.function for place in piece.places)
    return why or f"this tree has no {names} ({piece.places[0].path})"


def assemble(tree: Tree, faults: Mapping[str, str] | None = None, parts: Parts = S390) -> Assembled:
    """The program of all operations of a design for which the tree has the pieces.

    faults   pieces and operations to leave out, each with the reason
    """
    found = {piece.name: find(tree, piece) for piece in parts.pieces}
    cuts = parts.chosen({name: cut for name, cut in found.items() if isinstance(cut, Cut)})
    lacks = {name: why for name, why in found.items() if isinstance(why, str) and name not in parts.stand_ins}
    lacks |= faults or {}
    missing: dict[str, str] = {}
    able, used = [], set()
    for op in parts.operations:
        needs = needed(op, cuts, parts)
        if why := next((lacks[name] for name in (f"operation {op.name}", *needs) if name in lacks), ""):
            missing[op.name] = why
        else:
            able.append(op)
            used |= set(needs)
    kept = {name: cut for name, cut in cuts.items() if name in used}
    return Assembled(_program(tree, kept, able, parts), kept, tuple(able), missing)


def needed(op: Operation, cuts: Mapping[str, Cut], parts: Parts = S390) -> list[str]:
    """The pieces that an operation needs, in the order of their use: its own, and those that their text calls."""
    names: list[str] = []
    left = list(op.needs)
    while left:
        name = left.pop(0)
        if name in names:
            continue
        names.append(name)
        if name in cuts:
            left += _called(name, cuts, parts)
    return names


def _called(name: str, cuts: Mapping[str, Cut], parts: Parts) -> list[str]:
    """Returns the pieces whose functions a cut piece calls."""
    text = bare(cuts[name].text)
    calls = set(re.findall(r"\b(\w+)\(", text)) - {cuts[name].name}
    found = parts.called(calls, cuts)
    for called in sorted(calls):
        holders = [
            p.name for p in parts.pieces if any(place.function == called and not place.block for place in p.places)
        ]
        there = [holder for holder in holders if holder in cuts and cuts[holder].name == called]
        found += there or holders[:1]
    return found


def _program(tree: Tree, cuts: dict[str, Cut], able: list[Operation], parts: Parts) -> str:
    """Returns the C program: the shim, the cut functions, a driver for each operation, and main()."""
    drivers = _sections(parts)
    text = [f'#line 1 "ask.h"\n{source("ask.h")}', f'#line 1 "shim.h"\n{parts.source("shim.h")}']
    text += parts.before(tree, cuts, drivers)
    text += [_at(cut) for name, cut in cuts.items() if name not in parts.apart(cuts)]
    text += [_filled(op.name, drivers, cuts) for op in able]
    text.append(_MAIN % ", ".join("op_" + op.name.replace("-", "_") for op in able))
    return "\n".join(text)


def _at(cut: Cut) -> str:
    """The text of a piece with a #line directive, so that the compiler's messages name the tree's file and lines."""
    return f'#line {cut.first} "{cut.path}"\n{cut.text}'


def _sections(parts: Parts) -> dict[str, str]:
    """Returns the drivers of drivers.c by operation."""
    found = re.split(r"^//section ([a-z-]+) needs .*$", parts.source("drivers.c"), flags=re.M)[1:]
    return dict(zip(found[::2], found[1::2], strict=True))


def _filled(name: str, drivers: Mapping[str, str], cuts: Mapping[str, Cut]) -> str:
    """Returns an operation's driver with the cut blocks in their places."""
    mark = f'#line 1 "operation {name}"\n'
    return mark + re.sub(
        r"@([a-z-]+)@", lambda block: f"\n{_at(cuts[block[1]])}\n{mark}" if block[1] in cuts else "", drivers[name]
    )


def _grabs(tree: Tree, cuts: Mapping[str, Cut]) -> str:
    """Macros for the functions that take a pin: the meaning of their result changed between versions, and is read from
    their definitions."""
    page, folio = (tree.function("mm/gup.c", name) for name in ("try_grab_page", "try_grab_folio"))
    lines = ['#line 1 "operation pin"']
    if page and page.text.startswith("bool"):
        lines.append("#define try_grab_page(page, flags) ask(Q_PIN, (page)->nr, 0)")
    else:
        lines.append("#define try_grab_page(page, flags) (ask(Q_PIN, (page)->nr, 0) ? 0 : -ENOMEM)")
    if folio and folio.text.startswith("struct folio"):
        lines.append("#define try_grab_folio(page, refs, flags) grab_fast(page)")
    else:
        lines.append("#define try_grab_folio(folio, refs, flags) (ask(Q_PIN, subject, 0) ? 0 : -ENOMEM)")
    if "pin-fast" in cuts:
        lines.append(f"#define GUP_FAST {cuts['pin-fast'].name}")
    return "\n".join(lines) + "\n"
