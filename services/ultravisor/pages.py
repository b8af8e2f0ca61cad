"""Page calls on the shared state: the model's functions decide, then contents are written, then one commit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from services.ultravisor.commits import Commits, Part, raise_unless_stale
from services.ultravisor.contents import ZEROS, Contents, Seal
from ultrafolio.engine.load import interpreted
from ultrafolio.model.layout import ALLOWED, EXPORTED, NON_SECURE, PAGE_SIZE, SECURE
from ultrafolio.rpc.messages import Access
from ultrafolio.state.crossing import NotTaken, Result
from ultrafolio.state.events import Uvc, encode
from ultrafolio.state.sections import SEAL, Meta
from ultrafolio.state.store import Offer, Patch, Store
from ultrafolio.waits import load as waits

OF_A_PAGE = {
    "uv_import": 1,
    "uv_unpin": 1,
    "uv_share": 1,
    "uv_unshare": 1,
    "uv_shared": 1,
    "uv_export": 0,
    "uv_pin": 0,
    "uv_destroy": 0,
}
"""Which argument of a page call is the page; the others concern every page of a virtual machine."""


class Outcome(NamedTuple):
    """exception: 0 or the program interruption;  data: bytes read."""

    exception: int
    data: bytes


class Pages(Commits):
    """The pages of one folio group."""

    def __init__(self, store: Store, contents: Contents, group: str, meta: Meta) -> None:
        super().__init__(store, group, meta)
        self.contents = contents

    def call(
        self,
        function: str,
        arguments: Sequence[int],
        part: Part | None = None,
        *,
        image: Callable[[bytes], bytes] | None = None,
        forced: int | None = None,
        request: str = "",
    ) -> Result:
        """Execute a page call of model.ultravisor by name. Lost: the turn it is part of is over. NotTaken: the turn
        that was offered for it was not taken.

        image    makes what a page imported for the first time holds, instead of zeros, of what it held before
        forced   answer this and change nothing: the call came to no page
        request  the client's request, where the call is no part of a step: what it came to is kept for a repetition
        """
        with self._lock, self._clean():
            while True:
                known = self.store.reply(self.group, request) if request else None
                if known is not None:
                    return msgspec.msgpack.decode(known, type=Result)
                result, frames = self._run(function, arguments, image) if forced is None else (Result(forced), {})
                patches = self.view.patches() + self._write(frames)
                event = [] if part or not patches else [encode(Uvc(function, list(arguments), result.code))]
                answer = self._commit(patches=patches, events=event, part=part, result=result, request=request)
                if answer.status == "done" and not answer.journal:
                    return result
                if answer.journal:
                    return msgspec.msgpack.decode(answer.journal[0], type=Result)
                raise_unless_stale(answer, part)

    def access(self, vm: int | None, accesses: Sequence[Access], part: Part | None = None) -> list[Outcome]:
        """What hardware says of accesses by a guest, or by the host (vm None)."""
        with self._lock, self._clean():
            if part is not None:
                return [self._step(vm, *accesses[0], part)]
            self._read()
            return self._at_once(vm, accesses)

    def first_access(self, vm: int, accesses: Sequence[Access], offer: Offer) -> list[Outcome]:
        """Accesses outside of any step by a guest of which what `offer` says stands, all made at one moment. Where the
        hardware refuses the only one, the offered turn is taken with that, unless its token is empty. NotTaken: it does
        not stand, or the turn was not taken."""
        takes = bool(offer.turn.token) and len(accesses) == 1
        with self._lock, self._clean():
            while True:
                exception = int(interpreted().hw_guest(self.view.live, vm, accesses[0][0]))
                if takes and exception != ALLOWED:
                    answer = self._commit(result=Result(exception), part=Part(offer.turn.token, 0, offer))
                    if answer.status == "done":
                        return [Outcome(exception, b"")]
                    if answer.status != "stale":
                        raise NotTaken
                elif (status := self._look(offer).status) == "moved":
                    raise NotTaken
                elif status != "stale":
                    return self._at_once(vm, accesses)

    def _at_once(self, vm: int | None, accesses: Sequence[Access]) -> list[Outcome]:
        """Make accesses outside of any step. What they write is in no commit: where several processes can own the
        group, this one says that it is written only if the group is still its own afterwards."""
        outcomes = [self._access(vm, *one) for one in accesses]
        if self.store.epoch and any(one[3] for one in accesses):
            self._read()
        return outcomes

    def _step(self, vm: int | None, page: int, offset: int, length: int, data: bytes, part: Part) -> Outcome:
        """Do an access as part of a step: its write and its journal entry are committed together."""
        while True:
            outcome = self._access(vm, page, 0, PAGE_SIZE, b"")
            held, frames = outcome.data, dict[int, tuple[bytes, Seal | None]]()
            if data and held:
                held = held[:offset] + data + held[offset + len(data) :]
                frames[page] = held, None
            answer = self._commit(patches=self._write(frames), part=part, result=Result(outcome.exception))
            if answer.status == "done":
                known = msgspec.msgpack.decode(answer.journal[0], type=Result).code if answer.journal else None
                return Outcome(outcome.exception if known is None else known, held[offset : offset + length])
            raise_unless_stale(answer, part)

    def _access(self, vm: int | None, page: int, offset: int, length: int, data: bytes) -> Outcome:
        """Access bytes of a page as guest `vm`, or as the host (None): write `data` if it is not empty, read `length`
        bytes."""
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

    def _run(
        self, function: str, arguments: Sequence[int], image: Callable[[bytes], bytes] | None
    ) -> tuple[Result, dict[int, Any]]:
        """Run the call on the view. Returns its result, and per page with new content (bytes, seal or None)."""
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
        self, p: int, was: Any, now: Any, plain: bytes | None, image: Callable[[bytes], bytes] | None
    ) -> tuple[bytes, Seal | None] | None:
        """Returns page `p`'s content after a change of state, with the seal of cipher text; None: unchanged."""
        if now["state"] == EXPORTED:
            counter = int(self.view.seal["counter"][p]) + 1
            return self.contents.encrypt(self.group, int(now["owner"]), p, counter, self._held(p))
        if now["state"] == NON_SECURE:
            return ZEROS, None
        if was["state"] == EXPORTED and was["owner"] == now["owner"]:
            assert plain is not None
            return plain, None
        if now["state"] == SECURE and (was["state"] == NON_SECURE or was["owner"] != now["owner"]):
            return image(self._held(p)) if image else ZEROS, None
        return None

    def _held(self, page: int) -> bytes:
        """Returns the page's content at the view's revision."""
        return self.contents.read(self._address(page), int(self.view.seal["slot"][page]))

    def _plain(self, page: int) -> bytes | None:
        """Returns the decrypted content of an exported page; None if it was changed."""
        record = self.view.seal[page]
        seal = Seal(int(record["counter"]), record["nonce"].tobytes(), record["tag"].tobytes())
        return self.contents.decrypt(self.group, int(self.view.arrays.uv["owner"][page]), page, seal, self._held(page))

    def _write(self, frames: dict[int, tuple[bytes, Seal | None]]) -> list[Patch]:
        """Write new contents to the frames not in use. Returns the patches that switch to them."""
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
        return self.meta.origin + page * PAGE_SIZE

    def content(self, page: int) -> bytes:
        """Returns a page's content after a call on it, 4,096 bytes."""
        with self._lock:
            return self._held(page)

    def guest_view(self, vm: int, page: int) -> int:
        """Returns the program interruption of a guest's access now, or 0."""
        with self._lock, self._clean():
            self._read()
            return int(interpreted().hw_guest(self.view.live, vm, page))

    def would_end(self, instructions: Sequence[tuple[int, int, int]]) -> list[bool]:
        """Returns, per instruction (guest, page, operation), whether the hardware would let it complete now."""
        with self._lock, self._clean():
            self._read()
            return [bool(waits.interpreted().would_end(self.view.live, *one)) for one in instructions]

    def _stored(self, patches: Sequence[Patch]) -> None:
        for patch in patches:
            if patch.section == "seal":
                self.view.seal[patch.offset // SEAL.itemsize] = np.frombuffer(patch.data, SEAL)[0]


def lay_out(contents: Contents, group: str, meta: Meta, uv: np.ndarray[Any, Any], altered: Sequence[int] = ()) -> bytes:
    """Write contents for pages in given states: zeros, encrypted if exported; `altered` ones do not match their seal.
    Returns the section `seal`."""
    seal = meta.blank("seal")
    for p in np.flatnonzero(uv["state"] == EXPORTED):
        cipher, made = contents.encrypt(group, int(uv["owner"][p]), int(p), 1, ZEROS)
        contents.write(meta.origin + int(p) * PAGE_SIZE, 0, ZEROS if p in altered else cipher)
        seal[p] = (made.counter, 0, made.nonce, made.tag)
    return seal.tobytes()
