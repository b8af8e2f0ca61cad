"""A wait in words: who waits for what, who holds it, and which step would release it, from one state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, cast

from ultrafolio.model import layout
from ultrafolio.model.bounds import fits
from ultrafolio.model.designs import DESIGNS, S390
from ultrafolio.model.layout import ACTOR_KINDS, DONE, E_IO, OPS, VCPU, State

from .load import interpreted
from .tables import (
    ASLEEP,
    CLASS_EXPECTED,
    CLASS_FATAL,
    CLASS_NONE,
    CLASS_PERMANENT,
    CLASS_WAITING,
    CLASSES,
    OB_DIRTY,
    OB_FROZEN,
    OB_LOCK,
    OB_MAPPED,
    OB_MUTEX,
    OB_REFS,
    OB_WRITEBACK,
    OBSTACLES,
)

GONE = "nobody any more"
"""The holder of an obstacle that no thread holds."""
EVER = "which comes only with the guest's reboot or shutdown"
WaitClass = Literal["fatal", "permanent", "expected", "waiting", "vmm-bound"]
"""A class of a wait."""
WAIT_CLASSES = cast("tuple[WaitClass, ...]", CLASSES)
"""The word of each CLASS_ number but CLASS_NONE."""
LEADS_TO = S390.leads_to
"""The leads-to properties: what an actor that has begun something owes."""
EVERY_LEADS_TO = tuple(name for design in DESIGNS.values() for name in design.leads_to)
"""Those of every design."""
_OWES = {layout.WRITEBACK: 3, **dict.fromkeys((layout.DISK, layout.RING, layout.PIN, layout.INTERRUPT), 2)}
_OWES_NOTHING = (
    layout.RECLAIM,
    layout.LRU,
    layout.MAPPING,
    layout.SPECULATIVE,
    layout.REBOOT,
    layout.TAMPER,
    layout.ACCESS,
)
_missing = [kind for kind in range(len(ACTOR_KINDS)) if kind not in (VCPU, *_OWES, *_OWES_NOTHING)]
fits(
    f"kinds of actors, of which waits/words.py lacks what {', '.join(ACTOR_KINDS[kind] for kind in _missing)} owes",
    len(ACTOR_KINDS),
    len(ACTOR_KINDS) - len(_missing),
    "waits/words.py: _OWES, with waits/rules.py: is_pending; or _OWES_NOTHING",
)
_WISHES = {layout.DISK: "I/O on", layout.RING: "ring", layout.PIN: "pin of", layout.INTERRUPT: "indicators in"}


def leads_to(kind: int, op: int) -> str:
    """Returns the leads-to property for an actor of this kind; op: a vCPU's operation."""
    if kind == VCPU:
        return LEADS_TO[1] if op == layout.UNSHARE else LEADS_TO[0]
    return LEADS_TO[_OWES[kind]]


def owed(s: State, t: int) -> str:
    """Returns the leads-to property that actor `t` must satisfy for what it has begun."""
    return leads_to(s.who[t].kind, s.actor[t].op)


def is_met(kind: int, outcome: int) -> bool:
    """Returns whether a step that ends what an actor of this kind began ends it as its leads-to says, by the step's
    outcome; a guest that is stopped or killed ends it in another way."""
    return outcome == DONE or (kind != VCPU and outcome == E_IO)


@dataclass(frozen=True, slots=True)
class Wait:
    """One wait in words, a line per field.

    expected  the wait is the purpose of pin shared (model.md §8.8)
    brief     the holders as one word each, as in "pin:virtio1@0"
    taken_by  livelock: the steps that take the obstacle again, or the page away; else ""
    """

    waiter: str
    waits_for: str
    held_by: str
    released_by: str
    expected: bool = False
    taken_by: str = ""
    brief: str = field(default="", compare=False)

    def line(self) -> str:
        """Returns the wait as one line."""
        again = f"; taken again by {self.taken_by}" if self.taken_by else ""
        return (
            f"{self.waiter} waits for {self.waits_for}; held by {self.held_by}; released by {self.released_by}{again}"
        )

    def record(self) -> dict[str, str | None]:
        """Returns the wait as JSON fields."""
        return {
            "waiter": self.waiter,
            "waits_for": self.waits_for,
            "held_by": self.held_by,
            "released_by": self.released_by,
            "taken_by": self.taken_by or None,
        }


NO_WAIT = {"waiter": None, "waits_for": None, "held_by": None, "released_by": None, "taken_by": None}
"""The same fields without a wait."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A holder of an obstacle.

    actor           its number; None for an LRU batch, and for what no thread holds
    held, released  who holds it, and the step that releases it, in words
    stays           no fair step releases it
    brief           what is held, by whom and where, as one word
    """

    actor: int | None
    held: str
    released: str
    stays: bool = False
    brief: str = ""


def name(s: State, t: int) -> str:
    """Returns an actor's name: "vcpu 0"."""
    return f"{ACTOR_KINDS[s.who[t].kind]} {t}"


def short(s: State, t: int) -> str:
    """ "vcpu0": the same as one word."""
    return f"{ACTOR_KINDS[s.who[t].kind]}{t}"


def waiter_words(s: State, t: int, page: int) -> str:
    """Returns the waiter with its operation and page: "vcpu 0 (touch page 1)"."""
    kind = s.who[t].kind
    wish = OPS[s.actor[t].op] if kind == VCPU and s.actor[t].op else _WISHES.get(kind, "folio of")
    return f"{name(s, t)} ({wish} page {page})"


def what_for(s: State, t: int, obstacle: int, page: int, whole: bool) -> str:
    """Returns what waiter `t` waits for, in words. whole: references are counted over the folio."""
    unit = "the folio of " if whole or s.cfg[0].refs == layout.REFS_FOLIO else ""
    return {
        OB_MAPPED: f"page {page} to stay mapped writable",
        OB_MUTEX: "the VM's import mutex",
        OB_LOCK: "the folio lock",
        OB_WRITEBACK: "the end of the folio's writeback",
        OB_REFS: f"the extra references of {unit}page {page}",
        OB_DIRTY: f"the dirty folio of page {page} to become splittable",
        OB_FROZEN: f"the folio of page {page} to thaw",
    }[obstacle]


# ------------------------------------------------------------------------------------------------------- holders
def holders(s: State, t: int, obstacle: int, page: int, whole: bool, followed: tuple[int, ...] = ()) -> list[Holder]:
    """Returns every holder, but the waiter, of an obstacle that is present for waiter `t` and this page.

    followed: actors whose own waits are already described, so that a cycle of holders ends.
    """
    if obstacle == OB_REFS:
        return _referrers(s, t, page, whole, (*followed, t))
    if obstacle == OB_MUTEX:
        return [_owner(s, int(s.vm[s.who[t].vm].mutex) - 1, (*followed, t))]
    if obstacle == OB_DIRTY:
        return [_writer(s)]
    if obstacle == OB_MAPPED:
        return [
            Holder(
                None,
                "the guest's own table, where it is missing or read-only",
                "the write fault that the waiter takes itself",
                brief="table",
            )
        ]
    return [_of_folio(s, a, obstacle, s.task[t].pc) for a in _folio_holders(s, t, obstacle, page)]


def _folio_holders(s: State, t: int, what: int, page: int) -> list[int]:
    """Returns the other threads that hold the lock, the writeback or the freeze of the folio of `page`."""
    run = interpreted()
    folio = run.head(s, page)
    return [a for a in range(len(s.task)) if a != t and run.holds(s, a, what) and run.head(s, s.task[a].page) == folio]


def _of_folio(s: State, a: int, what: int, pc: int) -> Holder:
    """Returns the holder for thread `a`, which holds the folio's lock, writeback or freeze."""
    who = name(s, a)
    if what == OB_LOCK:
        over = ", which hands it over to those that sleep for it" if ASLEEP[pc] & OB_LOCK else ""
        return Holder(a, who, f"the unlock by {who}{over}", brief=f"lock:{short(s, a)}")
    if what == OB_FROZEN:
        return Holder(a, who, f"the thaw by {who}", brief=f"frozen:{short(s, a)}")
    if s.who[a].stuck and s.task[a].pc == layout.WB_END:
        return Holder(
            a,
            f"{who}, whose I/O never completes",
            f"writeback-end of {who}, which never comes",
            True,
            f"writeback:{short(s, a)}",
        )
    return Holder(a, who, f"writeback-end of {who}", brief=f"writeback:{short(s, a)}")


def _owner(s: State, a: int, followed: tuple[int, ...]) -> Holder:
    """Returns the owner of the import mutex, with its own wait."""
    who, run = name(s, a), interpreted()
    asleep = _sleeps_for(s, a, followed)
    return Holder(
        a,
        who + asleep,
        f"the end of {who}'s import, which hands the mutex over",
        run.sleeps_on(s, a),
        f"mutex:{short(s, a)}",
    )


def _sleeps_for(s: State, a: int, followed: tuple[int, ...]) -> str:
    """Returns ", which waits for …" for a holder that sleeps itself, or ""; "" for an actor in `followed`, so holders
    that wait for one another are described once."""
    if a in followed:
        return ""
    run, k = interpreted(), s.task[a]
    found = ASLEEP[k.pc] & ~OB_MUTEX & run.present(s, a, k.page, False)
    if not found:
        return ""
    obstacle = last(found)
    held = "; ".join(h.held for h in holders(s, a, obstacle, k.page, False, followed)) or GONE
    return f", which waits for {what_for(s, a, obstacle, k.page, False)}, held by {held}"


def _writer(s: State) -> Holder:
    """Returns the holder for the dirty data of a folio."""
    held = "data written to it since its last writeback"
    if s.cfg[0].split_writeback:
        return Holder(None, held, "its own write-back, if no write comes before the split", brief="dirty")
    return Holder(None, held, "a writeback with no write before the next split", brief="dirty")


def _referrers(s: State, t: int, page: int, whole: bool, followed: tuple[int, ...]) -> list[Holder]:
    """Returns every holder of a reference that counts for `page`."""
    run = interpreted()
    first, end = run.first_of(s, page, whole), run.end_of(s, page, whole)
    found = [_mismatch(page)] if run.never_matches(s, page) else []
    for a in range(len(s.task)):
        k = s.task[a]
        if pinned := range(max(first, k.page), min(end, k.page + k.at)):
            found.append(_pin(s, a, _where(pinned, page)))
    for q in range(first, end):
        where = _where(range(q, q + 1), page)
        plain = s.mm[q].spec
        for a in range(len(s.task)):
            k = s.task[a]
            if k.page == q and run.holds_plain(s, a):
                plain -= 1
                if a != t:
                    found.append(_plain(s, a, where, followed))
        if plain > 0:
            found.append(
                Holder(
                    None,
                    f"a reference on {where} that an earlier fault-in leaked",
                    "nothing: nobody drops it",
                    True,
                    f"leak@{q}",
                )
            )
        if s.mm[q].batch:
            drains = s.cfg[0].drain != layout.DRAIN_NONE
            found.append(
                Holder(
                    None,
                    f"the LRU batch of CPU {s.mm[q].batch - 1}, which holds {where}",
                    "drain-all" if drains else "a drain, which this policy does not do",
                    not drains,
                    f"batch:cpu{s.mm[q].batch - 1}@{q}",
                )
            )
    return found


def _where(pages: range, page: int) -> str:
    """Returns pages in words, relative to `page`, the page that is waited for."""
    if len(pages) > 1:
        return f"pages {pages[0]} to {pages[-1]}" + ("" if page in pages else ", other pages of the folio")
    return f"page {pages[0]}" + ("" if page in pages else ", another page of the folio")


def _mismatch(page: int) -> Holder:
    """Returns the holder for a count that never matches (Linux 5.7 to 6.9)."""
    return Holder(
        None,
        f"the count of page {page} alone, which is that of no page of a large folio",
        "nothing: this kernel compares the count of one page",
        True,
        f"count@{page}",
    )


def _pin(s: State, a: int, where: str) -> Holder:
    """Returns the holder for a device's pin."""
    who, pc, brief = name(s, a), s.task[a].pc, f"pin:{short(s, a)}@{s.task[a].page}"
    if s.who[a].kind in (layout.RING, layout.PIN):
        return Holder(
            a, f"{who}'s long-term pin on {where}", f"ring-teardown of {who}, {EVER}", pc == layout.RING_READY, brief
        )
    if s.who[a].kind == layout.INTERRUPT:
        return Holder(a, f"{who}'s pin of its indicators on {where}", f"unpin of {who}", brief=brief)
    stuck = bool(s.who[a].stuck) and pc == layout.IO_END
    never = ", which never comes: its I/O does not complete" if stuck else ""
    return Holder(a, f"{who}'s pin for direct I/O on {where}", f"io-end and unpin of {who}{never}", stuck, brief)


def _plain(s: State, a: int, where: str, followed: tuple[int, ...]) -> Holder:
    """Returns the holder for thread `a`'s plain reference."""
    who, run, brief = name(s, a), interpreted(), f"ref:{short(s, a)}@{s.task[a].page}"
    if s.who[a].kind == VCPU:
        return Holder(
            a,
            f"{who}'s import, which holds a reference on {where}{_sleeps_for(s, a, followed)}",
            f"the end of {who}'s import",
            run.sleeps_on(s, a),
            brief,
        )
    step = "access-put" if s.who[a].kind == layout.ACCESS else "plain-put"
    return Holder(a, f"{who}'s reference on {where}", f"{step} of {who}", brief=brief)


# --------------------------------------------------------------------------------------------------- one state
def last(found: int) -> int:
    """Returns the highest obstacle of a set: the last that an import meets."""
    return 1 << (found.bit_length() - 1)


def bits(found: int) -> list[int]:
    """Returns the obstacles of a set, in order."""
    return [1 << n for n in range(len(OBSTACLES)) if found >> n & 1]


def obstacle_names(found: int) -> tuple[str, ...]:
    """Returns the names of a set of obstacles, in order."""
    return tuple(OBSTACLES[bit.bit_length() - 1] for bit in bits(found))


def named_holders(s: State, t: int, named: int, page: int, whole: bool, staying: bool = False) -> list[Holder]:
    """Returns every holder of the `named` obstacles. staying: of an obstacle only the holders that `stay`, if it has
    any."""
    found: list[Holder] = []
    for obstacle in bits(named):
        some = holders(s, t, obstacle, page, whole)
        found += [h for h in some if h.stays] if staying and any(h.stays for h in some) else some
    return found


def in_words(
    s: State, t: int, named: int, page: int, whole: bool, *, expected: bool = False, staying: bool = False
) -> Wait:
    """Returns the wait of actor `t` for the `named` obstacles in this state; staying: as in named_holders()."""
    found = named_holders(s, t, named, page, whole, staying)
    held, released = held_and_released(found)
    return Wait(
        waiter_words(s, t, page),
        " and ".join(what_for(s, t, o, page, whole) for o in bits(named)),
        held,
        released,
        expected,
        brief="+".join(dict.fromkeys(h.brief for h in found)),
    )


def held_and_released(found: list[Holder]) -> tuple[str, str]:
    """Returns held_by and released_by of a Wait."""
    return joined(h.held for h in found) or GONE, joined(h.released for h in found) or "nothing"


def joined(lines: Any) -> str:
    """Returns the distinct lines, joined by "; "."""
    return "; ".join(dict.fromkeys(lines))


def dead(s: State, t: int, page: int) -> Wait:
    """The wait of an actor that is dead, or whose guest is."""
    return Wait(
        waiter_words(s, t, page),
        "nothing any more: its VMM was told -EINVAL",
        joined(f"the refused import of {name(s, a)}" for a in _killers(s, t)) or "the refused import",
        "a new start",
        brief="+".join(f"einval:{short(s, a)}" for a in _killers(s, t)),
    )


def _killers(s: State, t: int) -> list[int]:
    """Returns the wait of an actor that is dead, or whose guest is dead."""
    return [a for a in range(len(s.task)) if s.task[a].pc == layout.DEAD and s.who[a].vm == s.who[t].vm]


@dataclass(frozen=True, slots=True)
class Stall:
    """A wait as one state shows it. obstacles: names of tables.OBSTACLES."""

    actor: int
    kind: WaitClass
    obstacles: tuple[str, ...]
    wait: Wait


def stall(s: State, t: int) -> Stall | None:
    """Returns the wait of actor `t` in this state (as lists, or records with the same fields); None without an
    obstacle.

    permanent: neither a fair step nor the waiter's own drain or split removes the named obstacles.
    """
    run = interpreted()
    kind = int(run.class_of(s, t))
    if kind == CLASS_NONE:
        return None
    page = int(run.waited_page(s, t))
    if kind == CLASS_FATAL:
        return Stall(t, WAIT_CLASSES[kind], (), dead(s, t, page))
    whole = bool(run.to_split(s, page))
    if kind == CLASS_EXPECTED:
        named = OB_REFS
    elif kind == CLASS_PERMANENT:
        named = int(run.staying(s, t))
    else:
        named = last(int(run.obstacles(s, t)))
    wait = in_words(s, t, named, page, whole, expected=kind == CLASS_EXPECTED, staying=kind != CLASS_WAITING)
    return Stall(t, WAIT_CLASSES[kind], obstacle_names(named), wait)


def stalls(s: State) -> list[Stall]:
    """Returns the waits of all actors in this state, by actor."""
    found = (stall(s, t) for t in range(len(s.task)))
    return [some for some in found if some]
