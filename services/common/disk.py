"""A disk: a real file, read and written with O_DIRECT if the file system has it."""

from __future__ import annotations

import errno
import mmap
import os
import threading
import weakref
from pathlib import Path

SECTOR = 4096


class Disk:
    """The file `path`, in blocks of 4,096 bytes. direct: whether O_DIRECT is in use (tmpfs lacks it)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            self._file, self.direct = os.open(path, flags | os.O_DIRECT, 0o600), True
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._file, self.direct = os.open(path, flags, 0o600), False
        self._lock = threading.Lock()
        self.close = weakref.finalize(self, os.close, self._file)
        """Closes the file, now or when nobody uses the disk any more."""

    def write(self, offset: int, data: bytes) -> None:
        """Write whole blocks. `offset` and the length are multiples of 4,096."""
        with mmap.mmap(-1, len(data)) as aligned, self._lock:
            aligned[:] = data
            os.pwrite(self._file, aligned, offset)

    def read(self, offset: int, length: int) -> bytes:
        """Read whole blocks. Unwritten blocks read as zeros."""
        with mmap.mmap(-1, length) as aligned, self._lock:
            os.preadv(self._file, [aligned], offset)
            return bytes(aligned)
