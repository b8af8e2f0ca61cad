"""The ultravisor's commits to a folio group: its view, one call at a time, alone or as part of another role's step."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ultrafolio.state.crossing import SEEN, NotTaken, Result
from ultrafolio.state.sections import Meta
from ultrafolio.state.store import Answer, Commit, NoGroup, Offer, Patch, Store
from ultrafolio.state.turn import Contended, Lost
from ultrafolio.state.view import View

WRITER = "ultravisor"


class Part(NamedTuple):
    """The turn a call belongs to: its token, and the call's place in its journal; or a turn that is to be taken."""

    token: str
    place: int
    offer: Offer | None = None


class Says(NamedTuple):
    """What an offer of a role must say. standing: the sections that it may name as unchanged; seen: the sections whose
    content it must hold, with their sizes in bytes."""

    standing: frozenset[str]
    seen: dict[str, int]

    @classmethod
    def of(cls, meta: Meta, role: str) -> Says:
        """Returns what an offer of a role says in a group of these constants."""
        seen = {name: meta.size(name) for name in SEEN[meta.named][role]}
        return cls(frozenset(meta.sections.touched[role].reads), seen)


class Busy(Contended):
    """Another step holds the group's turn, and the call is not part of it."""


class Commits:
    """The view of one folio group. Calls are atomic; the store decides between processes, a lock within one."""

    def __init__(self, store: Store, group: str, meta: Meta) -> None:
        self.store, self.group, self.meta = store, group, meta
        self.view = View(meta, "ultravisor")
        self.offers = {role: Says.of(meta, role) for role in SEEN[meta.named]}
        """By role that offers turns: what an offer of it says."""
        self._lock = threading.Lock()
        # one writer name with rising numbers for all processes in turn: a late commit of a dead process is refused
        self._sequence = store.number(f"uf:ultravisor:starts:{group}") << 32
        self._current = False

    @property
    def revision(self) -> int:
        return self.view.revisions["uv"]

    def _clean(self) -> _Clean:
        """Refresh the view before a frame is written, since it decides which frame is in use; roll back uncommitted
        changes at the end."""
        return _Clean(self)

    def _read(self) -> None:
        """Bring the view up to date. A step in the making may show: its end is certain, see state.store."""
        self._look()

    def _look(self, offer: Offer | None = None) -> Answer:
        """As _read. With an offer: the answer is `moved` where what it says does not stand, else `stale` where the view
        was not up to date."""
        cached = dict(self.view.revisions)
        expect = list(cached) if offer else []
        answer = self._send(Commit(self._next(), WRITER, cached=cached, expect=expect, offer=offer))
        self.view.update(answer.revisions, answer.sections)
        return answer

    def _commit(
        self,
        *,
        result: Result,
        part: Part | None,
        patches: Sequence[Patch] = (),
        events: Sequence[bytes] = (),
        request: str = "",
    ) -> Answer:
        """Store a call's result, with patches and events, in one commit. Returns the store's answer."""
        answer = self._send(
            Commit(
                self._next(),
                WRITER,
                cached=dict(self.view.revisions),
                expect=list(self.view.revisions),
                patches=list(patches),
                events=list(events),
                token=part.token if part and not part.offer else "",
                offer=part.offer if part else None,
                journal=(part.place, msgspec.msgpack.encode(result)) if part else None,
                request=(request, msgspec.msgpack.encode(result)) if request else None,
            )
        )
        if answer.status == "done" and not answer.journal:
            self._stored(patches)
            self.view.committed(answer)
        else:
            self.view.rollback()
            self.view.update(answer.revisions, answer.sections)
        return answer

    def _stored(self, patches: Sequence[Patch]) -> None:
        """Called when the store has these patches, for those that are not in the view's log."""

    def _send(self, commit: Commit) -> Answer:
        """Returns the store's answer to a commit. Raises NoGroup if there is no such group."""
        answer = self.store.commit(self.group, commit)
        if answer.status == "absent":
            raise NoGroup(self.group)
        return answer

    def _next(self) -> str:
        """Returns the name of the next commit of this process."""
        self._sequence += 1
        return str(self._sequence)


class _Clean:
    """The context of Commits._clean(): reads the view at the start, and rolls it back at the end."""

    __slots__ = ("_of",)

    def __init__(self, of: Commits) -> None:
        self._of = of

    def __enter__(self) -> None:
        if not self._of._current:
            self._of._read()
        self._of._current = False

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._of._current = kind is None
        self._of.view.rollback()


def raise_unless_stale(answer: Answer, part: Part | None) -> None:
    """Raise what a refused commit means for the call: NotTaken, Lost or Busy; nothing if it may be tried again."""
    if part and part.offer and answer.status != "stale":
        raise NotTaken
    if answer.status == "lost":
        raise Lost
    if answer.status in ("held", "left"):
        raise Busy(f"held by {answer.turn.role if answer.turn else 'nobody'}, {answer.wait} ms")
