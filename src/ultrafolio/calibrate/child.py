"""Work in a process of its own, under a time limit: its end closes what it opened and ends what it started."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Any

LIMIT_S = 30.0
"""What one probe may take; it takes milliseconds."""


class TooLong(Exception):
    """The work was ended by the time limit."""


class Ended(Exception):
    """The work ended without a result. how: by which signal, or with which exit code."""

    def __init__(self, how: str) -> None:
        self.how = how
        super().__init__(how)


def apart(work: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
    """What `work` returns, a JSON value, from a child process. Raises TooLong after `limit_s` seconds, and Ended where
    the child ends without a result."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _child(work, writer)
    os.close(writer)
    try:
        answer = _answer(reader, limit_s)
    finally:
        os.close(reader)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        how = how_ended(os.waitpid(pid, 0)[1])
    if not answer:
        raise Ended(how)
    return json.loads(answer)


def _child(work: Callable[[], Any], writer: int) -> None:
    """The child: it never returns. A signal ends it in silence: the parent says which."""
    code = 1
    try:
        faulthandler.disable()
        os.setpgid(0, 0)
        answer = json.dumps(work()).encode()
        while answer:
            answer = answer[os.write(writer, answer) :]
        code = 0
    finally:
        os._exit(code)


def _answer(reader: int, limit_s: float) -> bytes:
    """What the child writes until it closes its end."""
    end, answer = time.monotonic() + limit_s, b""
    while select.select([reader], [], [], max(0.0, end - time.monotonic()))[0]:
        part = os.read(reader, 65536)
        if not part:
            return answer
        answer += part
    raise TooLong


def how_ended(status: int) -> str:
    """The status of waitpid(2) in words: a signal's name, or `exit N`."""
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return f"exit {os.waitstatus_to_exitcode(status)}"
