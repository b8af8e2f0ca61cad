"""A process that touches pages of a mapping for another one, so that a SIGBUS ends it alone."""

from __future__ import annotations

import faulthandler
import mmap
import os
import resource
import signal
import struct
from collections.abc import Callable

from ultrafolio.model.layout import PAGE_SIZE

from .child import how_ended

_REQUEST = struct.Struct("=iI")
_READ, _PIN = -1, -2


class Toucher:
    """A child process with the parent's mapping and a page table of its own. It lives until a touch ends it, and is
    started again at the next one."""

    def __init__(self, memory: mmap.mmap, pin: Callable[[int], None]) -> None:
        """pin: what pins a page for a moment."""
        self._memory, self._pin = memory, pin
        self._pid, self._to, self._back, self._waits = 0, -1, -1, False

    def touch(self, page: int, value: int = _READ) -> int | str:
        """Read the first byte of a page, or write `value` there. Returns the byte that was there before, or the name of
        the signal that ended the process."""
        self._ask(page, value)
        return self._answer()

    def begin(self, page: int, *, pin: bool) -> None:
        """Begin to touch a page, or to pin it for a moment; the next request waits for its end."""
        self._ask(page, _PIN if pin else _READ)
        self._waits = True

    def _ask(self, page: int, value: int) -> None:
        if self._waits:
            self._answer()
        if not self._pid:
            self._start()
        os.write(self._to, _REQUEST.pack(value, page))

    def _answer(self) -> int | str:
        self._waits = False
        answer = os.read(self._back, 1)
        return answer[0] if answer else self.close()

    def _start(self) -> None:
        theirs, self._to = os.pipe()
        self._back, answers = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            os.close(self._to)
            os.close(self._back)
            self._serve(theirs, answers)
        os.close(theirs)
        os.close(answers)

    def _serve(self, requests: int, answers: int) -> None:
        """The child: answer requests until there are no more, and exit. A SIGBUS ends it at once, without a message and
        without a core."""
        try:
            faulthandler.disable()
            signal.signal(signal.SIGBUS, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            while request := os.read(requests, _REQUEST.size):
                value, page = _REQUEST.unpack(request)
                was = 0
                if value == _PIN:
                    self._pin(page)
                else:
                    was = self._memory[page * PAGE_SIZE]
                if value >= 0:
                    self._memory[page * PAGE_SIZE] = value
                os.write(answers, bytes([was]))
        finally:
            os._exit(0)

    def close(self) -> str:
        """End the process, if it runs. Returns how it ended."""
        if not self._pid:
            return ""
        os.close(self._to)
        os.close(self._back)
        how, self._pid = how_ended(os.waitpid(self._pid, 0)[1]), 0
        return how
