"""Page calls of control blocks on one folio group: in a turn, or alone."""

from __future__ import annotations

from functools import partial

from services.ultravisor.commits import Part
from services.ultravisor.machine_state import Configuration
from services.ultravisor.pages import Pages
from ultrafolio.model.layout import ALLOWED, DAT_FAULT, PAGE_SIZE, UV_BUSY, UV_ERROR, UV_OK
from ultrafolio.state.crossing import Result
from ultrafolio.uvcall import image

TRIED_ONCE = ("import", "unpack", "unpin")
"""Calls that a step issues once, even if the answer is busy; it repeats the others (conformance case 22)."""


class Calls:
    """firmware.Pages of one group, or of none. Page numbers are the group's.

    request: the client's request id, so that a repeated call outside of a turn runs once
    last: result of the page call, for the step; None if none was made
    """

    def __init__(self, pages: Pages | None, part: Part | None, request: str = "") -> None:
        self._of, self._part, self._request = pages, part, "" if part else request
        self.last: Result | None = None

    @property
    def _pages(self) -> Pages:
        assert self._of is not None, "a page was located"
        return self._of

    def locate(self, address: int, of: Configuration | None) -> int | None:
        """Within a turn the host's tables are not checked: the calling rule has done so."""
        if self._of is None or (of is not None and of.group != self._of.group):
            return None
        page = (address - (self._of.meta.origin if of is None else of.guest.origin)) // PAGE_SIZE
        if not 0 <= page < self._of.meta.cfg["pages"][0]:
            return None
        unmapped = of is not None and self._part is None and self._of.guest_view(of.vm, page) == DAT_FAULT
        return None if unmapped else page

    def exception(self, of: Configuration, page: int) -> int:
        """Within a turn the calling rule has asked the hardware already."""
        return ALLOWED if self._part else self._pages.guest_view(of.vm, page)

    def untouched(self, name: str, busy: bool) -> None:
        """Record in the journal that call `name` was answered without reaching a page: the step can continue."""
        if self._of is not None and self._part is not None and (not busy or name in TRIED_ONCE):
            self.last = self._of.call(name, (), self._part, forced=UV_BUSY if busy else UV_ERROR)

    def _call(self, function: str, *arguments: int) -> int:
        """Make a page call and keep its result as `last`. Returns its code, UV_OK or another."""
        self.last = self._pages.call(function, arguments, self._part, request=self._request)
        return self.last.code

    def import_(self, of: Configuration, page: int) -> int:
        return self._call("uv_import", of.vm, page, int(self._pages.meta.cfg["misc"][0]))

    def unpack(self, of: Configuration, page: int, key: bytes, tweak: int, offset: int) -> int:
        """Import a page and decrypt it, instead of clearing it."""
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
        """Unshare all pages. In a step of the model, also destroy them: the model has one call for both."""
        return self._of_all("uv_reset" if self._part else "uv_unshare_all", of)

    def reset(self, of: Configuration) -> int:
        return self._of_all("uv_reset", of)

    def _of_all(self, function: str, of: Configuration) -> int:
        """Call `function` for all pages of a guest: none if the configuration has no memory."""
        if (self._of.group if self._of else "") != of.group:
            return UV_ERROR
        return self._call(function, of.vm) if self._of else UV_OK
