"""Page calls of control blocks, over one folio group: as part of a turn, or alone."""

from __future__ import annotations

from functools import partial

from services.ultravisor.machine_state import PAGE, Configuration
from services.ultravisor.pages import Pages, Part
from ultrafolio.model.layout import ALLOWED, DAT_FAULT, UV_BUSY, UV_ERROR, UV_OK
from ultrafolio.state.turn import Result
from ultrafolio.uvcall import image

TRIED_ONCE = ("import", "unpack", "unpin")
"""Calls that a step makes once, and goes on with a busy answer; it repeats the others (conformance case 22)."""


class Calls:
    """firmware.Pages of one group, or of none. Page numbers are the group's.

    request: the client's request, by which a call outside of a turn happens once
    last: what the page call came to, and what a step is told of it; None where none was made
    """

    def __init__(self, pages: Pages | None, part: Part | None, request: str = "") -> None:
        self._of, self._part, self._request = pages, part, "" if part else request
        self.last: Result | None = None

    @property
    def _pages(self) -> Pages:
        assert self._of is not None, "a page was located"
        return self._of

    def locate(self, address: int, of: Configuration | None) -> int | None:
        """Within a turn the host's tables are not looked at: the rule that calls has done so."""
        if self._of is None or (of is not None and of.group != self._of.group):
            return None
        page = (address - (self._of.meta.origin if of is None else of.guest.origin)) // PAGE
        if not 0 <= page < self._of.meta.cfg["pages"][0]:
            return None
        unmapped = of is not None and self._part is None and self._of.guest_view(of.vm, page) == DAT_FAULT
        return None if unmapped else page

    def exception(self, of: Configuration, page: int) -> int:
        """Within a turn the rule that calls has asked the hardware before."""
        return ALLOWED if self._part else self._pages.guest_view(of.vm, page)

    def untouched(self, name: str, busy: bool) -> None:
        """Call `name` was answered before it came to a page. A step goes on with that: its journal says so."""
        if self._of is not None and self._part is not None and (not busy or name in TRIED_ONCE):
            self.last = self._of.call(name, (), self._part, forced=UV_BUSY if busy else UV_ERROR)

    def _call(self, function: str, *arguments: int) -> int:
        self.last = self._pages.call(function, arguments, self._part, request=self._request)
        return self.last.code

    def import_(self, of: Configuration, page: int) -> int:
        return self._call("uv_import", of.vm, page, int(self._pages.meta.cfg["misc"][0]))

    def unpack(self, of: Configuration, page: int, key: bytes, tweak: int, offset: int) -> int:
        """An import, of a page that is not cleared but decrypted as it is imported."""
        plain = partial(image.decrypt, key, tweak, offset)
        arguments = (of.vm, page, int(self._pages.meta.cfg["misc"][0]))
        self.last = self._pages.call("uv_import", arguments, self._part, image=plain, request=self._request)
        return self.last.code

    def content(self, page: int) -> bytes:
        return self._pages.content(page)

    def export(self, page: int) -> int:
        return self._call("uv_export", page)

    def destroy(self, page: int) -> int:
        return self._call("uv_destroy", page)

    def pin(self, page: int) -> int:
        return self._call("uv_pin", page)

    def unpin(self, of: Configuration, page: int) -> int:
        return self._call("uv_unpin", of.vm, page)

    def share(self, of: Configuration, page: int) -> int:
        return self._call("uv_share", of.vm, page)

    def unshare(self, of: Configuration, page: int) -> int:
        return self._call("uv_unshare", of.vm, page)

    def unshare_all(self, of: Configuration) -> int:
        """In a step of the model, unshare all and destroy are one; by itself the call does what its name says."""
        return self._of_all("uv_reset" if self._part else "uv_unshare_all", of)

    def reset(self, of: Configuration) -> int:
        return self._of_all("uv_reset", of)

    def _of_all(self, function: str, of: Configuration) -> int:
        """About all pages of a guest, which is none for a configuration without memory."""
        if (self._of.group if self._of else "") != of.group:
            return UV_ERROR
        return self._call(function, of.vm) if self._of else UV_OK
