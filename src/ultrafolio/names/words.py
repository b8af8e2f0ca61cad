"""The words of names: what stands in the way, how, where, and who else acts.

Each table is derived from the fields of a scenario (model.scenario, model.words), and the import fails where a kind of
actor has no word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ultrafolio.model.bounds import fits
from ultrafolio.model.layout import ACTOR_KINDS, BACKINGS, ENDLESS, VCPU
from ultrafolio.model.words import TABLES

SHARED, SECURE, EXPORTED, NON_SECURE = "shared", "secure", "exported", "non_secure"
ANYWHERE, ON_IT = ("self", "large", "neigh", "apart"), ("self", "large")


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A first word, and also a later one where `joins`.

    kind     the table of its actor; "" if nobody holds anything
    start    the state of its page at the start
    needs    the state without which its actor does nothing; "" if it takes any
    places   the words of WHERE that it takes
    takes    its own words of HOW;  must: one of them has to stand there
    memory, owner   fields of [memory]; whether its page is another guest's
    about    what it is
    """

    kind: str
    start: str
    needs: str = ""
    places: tuple[str, ...] = ANYWHERE
    takes: tuple[str, ...] = ()
    must: bool = False
    memory: Mapping[str, Any] = field(default_factory=dict)
    owner: bool = False
    joins: bool = True
    about: str = ""

    def __str__(self) -> str:
        return self.about or TABLES[self.kind]


OBSTACLES: dict[str, Obstacle] = {
    "IMP": Obstacle("", EXPORTED, places=ON_IT, joins=False, about="nobody holds anything: the import alone"),
    "DIRTY": Obstacle("", NON_SECURE, places=ON_IT, joins=False, memory={"backing": "iomap"},
                      about="a dirty folio of a file system that uses iomap, before its first import"),
    "OWNER": Obstacle("", SHARED, places=ON_IT, takes=("moves",), owner=True, joins=False,
                      about="the page is another guest's, which shared it"),
    "DIO": Obstacle("disk", SHARED, takes=("stuck",)),
    "LPIN": Obstacle("virtio", SHARED, needs=SHARED, takes=("buf",), joins=False),
    "WB": Obstacle("writeback", SECURE, takes=("stuck",)),
    "RECL": Obstacle("reclaim", SECURE),
    "LRU": Obstacle("lru", EXPORTED, takes=("own", "other"), must=True),
    "MAP": Obstacle("mapping", EXPORTED),
    "SPEC": Obstacle("speculative", EXPORTED),
    "BOOT": Obstacle("reboot", SECURE, places=ON_IT, takes=("off",)),
    "TAMP": Obstacle("tamper", EXPORTED),
    "INT": Obstacle("interrupt", SHARED, needs=SHARED, joins=False),
    "HOST": Obstacle("access", SECURE, takes=("read", "write"), must=True),
}  # fmt: skip
"""What stands in the way, by word. LPIN stands for two kinds of actors: a ring, and with `buf` or `early` another
long-term pin."""
_NAMED = {one.kind for one in OBSTACLES.values()} | {"pin"}
_MISSING = [kind for kind in ACTOR_KINDS if kind not in _NAMED and kind != ACTOR_KINDS[VCPU]]
fits(
    f"kinds of actors, of which no name has a word for {', '.join(_MISSING)}",
    len(ACTOR_KINDS),
    len(ACTOR_KINDS) - len(_MISSING),
    "names/words.py: OBSTACLES",
)


@dataclass(frozen=True, slots=True)
class How:
    """A word behind an obstacle. place: of the words behind one obstacle each place has one at most, in this order;
    sets: fields of the obstacle's actor; about: what it is."""

    place: int
    about: str
    sets: Mapping[str, Any] = field(default_factory=dict)


BACKING, KIND, COUNT, WHEN = range(4)
HOW: dict[str, How] = {
    **{word: How(BACKING, f"memory with the backing {word}") for word in BACKINGS[1:]},
    "buf": How(KIND, f"{TABLES['pin']}"),
    "own": How(KIND, "of the CPU that imports", {"cpu": 0}),
    "other": How(KIND, "of another CPU", {"cpu": 1}),
    "stuck": How(KIND, "its I/O never completes", {"completes": False}),
    "off": How(KIND, "a shutdown instead of a reboot", {"shutdown": True}),
    "read": How(KIND, "it reads"),
    "write": How(KIND, "it writes"),
    "moves": How(KIND, "the import moves the page by itself, without an export"),
    "twice": How(COUNT, "it starts twice", {"starts": 2}),
    "endless": How(COUNT, "it starts again and again", {"starts": ENDLESS}),
    "early": How(WHEN, "before the first import: no page is secure or shared yet; a long-term pin is then no ring"),
    "out": How(WHEN, "the wanted page is exported at the start"),
    "in": How(WHEN, "the wanted page is secure at the start"),
    "after": How(WHEN, "of a later obstacle: it starts when the first one has finished once"),
}
"""The words behind an obstacle."""

WHERE: dict[str, tuple[tuple[int, ...], int, str]] = {
    "self": ((0,), 0, "the vCPU wants the obstacle's own page, a folio of one page"),
    "large": ((1,), 0, "the vCPU wants the obstacle's own page, the first of a folio of two"),
    "neigh": ((1,), 1, "the vCPU wants the other page of the folio"),
    "apart": ((0, 0), 1, "the vCPU wants a page of another folio"),
}
"""Orders of the folios, the wanted page, and what it is. The obstacle's page is page 0."""

DOES: dict[str, tuple[tuple[str, ...], str]] = {
    "unshare": (("unshare",), "the vCPU unshares the page and does not touch it"),
    "both": (("touch", "unshare"), "the vCPU touches the page and unshares it"),
}
"""What the vCPU does; without a word it touches the page."""
MORE: dict[str, str] = {
    "2vcpu": "a second vCPU: on the same page, in `large` on the other page of the folio",
    "vcpu.apart": "a second vCPU, on a page of another folio",
}
"""Further vCPUs, one word at most."""
