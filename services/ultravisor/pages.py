"""Page calls over the shared state: the model's functions decide, contents follow, one commit makes it so."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from services.ultravisor.contents import PAGE, ZEROS, Contents, Seal
from ultrafolio.engine.load import interpreted
from ultrafolio.model.layout import ALLOWED, EXPORTED, NON_SECURE, SECURE
from ultrafolio.state.burst import Lost, Result
from ultrafolio.state.events import Uvc, encode
from ultrafolio.state.group import View
from ultrafolio.state.sections import SEAL, Meta
from ultrafolio.state.store import Answer, Commit, Patch, Store

OF_A_PAGE = {
    "uv_import": 1,
    "uv_unpin": 1,
    "uv_share": 1,
    "uv_unshare": 1,
    "uv_export": 0,
    "uv_pin": 0,
    "uv_destroy": 0,
}
"""Which argument of a page call is the page; the others concern every page of a virtual machine."""


class Part(NamedTuple):
    """The turn a call belongs to: its token, and the call's place in its journal."""

    token: str
    place: int


class Outcome(NamedTuple):
    """exception: 0 or the program interruption;  data: bytes read."""

    exception: int
    data: bytes


class Pages:
    """The pages of one folio group. Calls are atomic; the store decides between processes, a lock within one."""

    def __init__(self, store: Store, contents: Contents, group: str, meta: Meta) -> None:
        self.store, self.contents, self.group, self.meta = store, contents, group, meta
        self.view = View(meta, "ultravisor")
        self._lock = threading.Lock()
        self._writer, self._sequence = f"ultravisor-{os.urandom(6).hex()}", 0

    @property
    def revision(self) -> int:
        return self.view.revisions["uv"]

    def call(
        self,
        function: str,
        arguments: Sequence[int],
        part: Part | None = None,
        *,
        image: bytes | None = None,
        forced: int | None = None,
    ) -> Result:
        """Execute a page call of model.ultravisor by name. Lost: the turn it is part of is over.

        image   what a page imported for the first time holds, instead of zeros
        forced  answer this and change nothing (an injected busy)
        """
        with self._lock:
            while True:
                result, frames = self._run(function, arguments, image) if forced is None else (Result(forced), {})
                patches = self.view.patches() + self._write(frames)
                event = [] if part or not patches else [encode(Uvc(function, list(arguments), result.code))]
                answer = self._commit(patches=patches, events=event, part=part, result=result)
                if answer.status == "done" and not answer.journal:
                    return result
                if answer.journal:
                    return msgspec.msgpack.decode(answer.journal[0], type=Result)
                _raise_unless_stale(answer, part)

    def access(
        self, vm: int | None, accesses: Sequence[tuple[int, int, int, bytes]], part: Part | None = None
    ) -> list[Outcome]:
        """What hardware says of accesses (page, offset, length, data to write) by a guest, or by the host (vm None)."""
        with self._lock:
            if part is None:
                self._read()
                return [self._access(vm, *one) for one in accesses]
            while True:
                outcomes = [self._access(vm, *one) for one in accesses]
                answer = self._commit(part=part, result=Result(outcomes[-1].exception))
                if answer.status == "done":
                    return outcomes
                _raise_unless_stale(answer, part)

    def _access(self, vm: int | None, page: int, offset: int, length: int, data: bytes) -> Outcome:
        rules = interpreted()
        live = self.view.live
        exception = rules.hw_host(live, page) if vm is None else rules.hw_guest(live, vm, page)
        if exception != ALLOWED:
            return Outcome(exception, b"")
        slot = int(self.view.seal["slot"][page])
        if data:
            self.contents.write(self._address(page), slot, data, offset)
        read = self.contents.read(self._address(page), slot)[offset : offset + length] if length else b""
        return Outcome(exception, read)

    def _run(self, function: str, arguments: Sequence[int], image: bytes | None) -> tuple[Result, dict[int, Any]]:
        """The call on the view: its result, and per page that changes content (new bytes, new seal or None)."""
        uv, altered = self.view.arrays.uv, self.view.arrays.mm["altered"]
        page = arguments[OF_A_PAGE[function]] if function in OF_A_PAGE else None
        plain = None
        if page is not None and function in ("uv_import", "uv_unpin") and uv["state"][page] == EXPORTED:
            plain = self._plain(page)
            altered[page] = plain is None
        before = uv.copy()
        code = int(getattr(interpreted(), function)(self.view.live, *arguments))
        altered[:] = 0
        frames = {}
        for p in np.flatnonzero((before["state"] != uv["state"]) | (before["owner"] != uv["owner"])):
            content = self._content(int(p), before[p], uv[p], plain, image)
            if content:
                frames[int(p)] = content
        fresh = function == "uv_export" and bool(frames)
        return Result(code, fresh), frames

    def _content(
        self, p: int, was: Any, now: Any, plain: bytes | None, image: bytes | None
    ) -> tuple[bytes, Seal | None] | None:
        """What page `p` holds after a change of state, and the seal if that is cipher text; None: what it held."""
        if now["state"] == EXPORTED:
            counter = int(self.view.seal["counter"][p]) + 1
            held = self.contents.read(self._address(p), int(self.view.seal["slot"][p]))
            return self.contents.encrypt(self.group, int(now["owner"]), p, counter, held)
        if now["state"] == NON_SECURE:
            return ZEROS, None
        if was["state"] == EXPORTED and was["owner"] == now["owner"]:
            assert plain is not None
            return plain, None
        if now["state"] == SECURE and (was["state"] == NON_SECURE or was["owner"] != now["owner"]):
            return image or ZEROS, None
        return None

    def _plain(self, page: int) -> bytes | None:
        record = self.view.seal[page]
        seal = Seal(int(record["counter"]), record["nonce"].tobytes(), record["tag"].tobytes())
        held = self.contents.read(self._address(page), int(record["slot"]))
        return self.contents.decrypt(self.group, int(self.view.arrays.uv["owner"][page]), page, seal, held)

    def _write(self, frames: dict[int, tuple[bytes, Seal | None]]) -> list[Patch]:
        """Put new contents into the frames not in use, and return what switches over to them."""
        patches = []
        for page, (data, seal) in frames.items():
            record = self.view.seal[page].copy()
            record["slot"] ^= 1
            if seal:
                record["counter"], record["nonce"], record["tag"] = seal
            self.contents.write(self._address(page), int(record["slot"]), data)
            patches.append(Patch("seal", page * SEAL.itemsize, record.tobytes()))
        return patches

    def _address(self, page: int) -> int:
        return self.meta.origin + page * PAGE

    def look(self) -> Any:
        """The pages as they are now, as rules see them."""
        with self._lock:
            self._read()
            return self.view.live

    def _read(self) -> None:
        """Bring the view up to date. A step in the making may show: its end is certain, see state.store."""
        answer = self._send(Commit(self._next(), self._writer, cached=dict(self.view.revisions)))
        self.view.update(answer.revisions, answer.sections)

    def _commit(
        self, *, result: Result, part: Part | None, patches: Sequence[Patch] = (), events: Sequence[bytes] = ()
    ) -> Answer:
        answer = self._send(
            Commit(
                self._next(),
                self._writer,
                cached=dict(self.view.revisions),
                expect=list(self.view.revisions),
                patches=list(patches),
                events=list(events),
                token=part.token if part else "",
                journal=(part.place, msgspec.msgpack.encode(result)) if part else None,
            )
        )
        if answer.status == "done" and not answer.journal:
            self.view.committed(answer.revisions)
            for patch in patches:
                if patch.section == "seal":
                    self.view.seal[patch.offset // SEAL.itemsize] = np.frombuffer(patch.data, SEAL)[0]
        else:
            self.view.rollback()
            self.view.update(answer.revisions, answer.sections)
        return answer

    def _send(self, commit: Commit) -> Answer:
        answer = self.store.commit(self.group, commit)
        if answer.status == "absent":
            raise KeyError(self.group)
        return answer

    def _next(self) -> str:
        self._sequence += 1
        return str(self._sequence)


def lay_out(contents: Contents, group: str, meta: Meta, uv: np.ndarray[Any, Any], altered: Sequence[int] = ()) -> bytes:
    """Contents for pages in given states: zeros, encrypted where exported; `altered` ones do not fit their seal.
    Returns the section `seal`."""
    seal = meta.blank("seal")
    for p in np.flatnonzero(uv["state"] == EXPORTED):
        cipher, made = contents.encrypt(group, int(uv["owner"][p]), int(p), 1, ZEROS)
        contents.write(meta.origin + int(p) * PAGE, 0, ZEROS if p in altered else cipher)
        seal[p] = (made.counter, 0, made.nonce, made.tag)
    return seal.tobytes()


class Busy(Exception):
    """Another step of the group is under way, and the call is not part of it."""


def _raise_unless_stale(answer: Answer, part: Part | None) -> None:
    if answer.status == "lost":
        raise Lost
    if answer.status in ("held", "left"):
        raise Busy(f"held by {answer.turn.role if answer.turn else 'nobody'}, {answer.wait} ms")
