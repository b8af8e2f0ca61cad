"""Files of pieces with a checksum each. A crash may cut the last piece; any other change is detected.

A piece is a head of 36 bytes and its data. The head: b"ufp1"; the length of the data, 8 bytes, big endian; 16 bytes of
BLAKE2b over the data; 8 bytes of BLAKE2b over the head so far. The second digest distinguishes a cut from a change.
"""

from __future__ import annotations

import io
import struct
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

from ultrafolio.errors import InputError

_HEAD = struct.Struct(">4sQ16s")
MAGIC = b"ufp1"
_OF_HEAD = 8
HEAD_BYTES = _HEAD.size + _OF_HEAD
LARGEST = 1 << 30
"""The most bytes of a piece."""


def piece(data: bytes) -> bytes:
    """The data with its head."""
    head = _HEAD.pack(MAGIC, len(data), _digest(data, 16))
    return head + _digest(head, _OF_HEAD) + data


class Pieces(io.RawIOBase):
    """The data of a file's pieces, read one after another; the file's name is in errors.

    A read raises InputError at a changed piece. It ends before an incomplete last piece, and sets `cut`.
    """

    def __init__(self, file: BinaryIO, name: Path | str) -> None:
        self._file, self._name = file, name
        self._number, self._rest = 0, memoryview(b"")
        self.cut = False

    def readable(self) -> bool:
        return True

    def readinto(self, into: bytearray) -> int:  # type: ignore[override]
        """See io.RawIOBase."""
        while not self._rest:
            data = self._next()
            if data is None:
                return 0
            self._rest = memoryview(data)
        count = min(len(into), len(self._rest))
        into[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def _next(self) -> bytes | None:
        """The next piece's data, None at the end."""
        self._number += 1
        at = self._file.tell()
        head = self._file.read(HEAD_BYTES)
        if len(head) < HEAD_BYTES:
            self.cut = self.cut or bool(head)
            return None
        magic, length, digest = _HEAD.unpack_from(head)
        if _digest(head[: _HEAD.size], _OF_HEAD) != head[_HEAD.size :] or magic != MAGIC or length > LARGEST:
            raise self._changed(at)
        data = self._file.read(length)
        if len(data) < length:
            self.cut = True
            return None
        if _digest(data, 16) != digest:
            raise self._changed(at)
        return data

    def _changed(self, at: int) -> InputError:
        """Returns the error for a batch whose checksum differs."""
        return InputError(
            f"{self._name}: damaged",
            value=f"batch {self._number}, at byte {at}: its checksum differs",
            allowed="the file as it was written",
            cause="a disk, a copy or an editor changed it",
            then=f"delete only {self._name}, then repeat the sweep: all else is kept, and those cells run again",
        )


def _digest(data: bytes, size: int) -> bytes:
    return blake2b(data, digest_size=size).digest()
