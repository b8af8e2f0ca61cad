"""Contents of pages: real bytes in a file of the ultravisor, and their encryption on export.

Every page has two frames in the file. New content is written to the frame that is not in use; the commit of the page's
state switches frames. So a process killed in between leaves the old content with the old state.
"""

from __future__ import annotations

import copy
import errno
import os
import sys
import weakref
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ultrafolio.model.layout import PAGE_SIZE

ZEROS = bytes(PAGE_SIZE)


class Seal(NamedTuple):
    """Integrity data of an exported page.

    counter: exports of this page so far, which detects an older copy;  nonce: 12 bytes;  tag: 16 bytes
    """

    counter: int
    nonce: bytes
    tag: bytes


class Contents:
    """A machine's memory, in `folder`: the file `memory`, and `key`, the machine's secret, created at first use."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "memory"
        self._file = _opened(self.path)
        self._master = _secret(folder / "key")
        self._seen = os.open(folder / "seen", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._keys: dict[tuple[str, int], AESGCM] = {}

    def at(self, path: Path) -> Contents:
        """Returns the same machine, with the frames of pages in another file."""
        if path == self.path:
            return self
        made = copy.copy(self)
        made.path, made._file = path, _opened(path)
        weakref.finalize(made, os.close, made._file)
        return made

    def read(self, address: int, slot: int) -> bytes:
        """The 4,096 bytes of the page at an absolute address, in one of its two frames; zeros if never written."""
        return os.pread(self._file, PAGE_SIZE, 2 * address + slot * PAGE_SIZE).ljust(PAGE_SIZE, b"\0")

    def write(self, address: int, slot: int, data: bytes, offset: int = 0) -> None:
        """Write within the page at an absolute address, in one of its two frames."""
        os.pwrite(self._file, data, 2 * address + slot * PAGE_SIZE + offset)

    def clear(self, address: int, length: int) -> None:
        """Write zeros to whole pages from an absolute address on, in both frames; skips holes of the file."""
        at, end = 2 * address, 2 * (address + length)
        while (at := self._data_after(at)) < end:
            os.pwrite(self._file, ZEROS, at)
            at += PAGE_SIZE

    def _data_after(self, offset: int) -> int:
        """Returns the offset of the first page of the file at or after `offset` that is not in a hole."""
        try:
            return os.lseek(self._file, offset, os.SEEK_DATA) // PAGE_SIZE * PAGE_SIZE
        except OSError as error:
            if error.errno == errno.ENXIO:
                return sys.maxsize
            raise

    @property
    def seen(self) -> int:
        """Returns the largest change counter of the machine that this or an earlier process saw."""
        return int.from_bytes(os.pread(self._seen, 8, 0), "big")

    @seen.setter
    def seen(self, changes: int) -> None:
        """Record the number of changes of the machine that this process has seen, on disk."""
        os.pwrite(self._seen, changes.to_bytes(8, "big"), 0)

    def secret(self, purpose: str) -> bytes:
        """Returns the machine's 32-byte key for one purpose (HKDF-SHA256 of its secret)."""
        return HKDF(SHA256(), 32, None, f"ultrafolio {purpose}".encode()).derive(self._master)

    def encrypt(self, group: str, vm: int, page: int, counter: int, plain: bytes) -> tuple[bytes, Seal]:
        """AES-256-GCM under the guest's key, bound to guest, page and counter: 4,096 bytes of cipher text, the seal."""
        nonce = os.urandom(12)
        sealed = self._key(group, vm).encrypt(nonce, plain, _bound(group, vm, page, counter))
        return sealed[:PAGE_SIZE], Seal(counter, nonce, sealed[PAGE_SIZE:])

    def decrypt(self, group: str, vm: int, page: int, seal: Seal, cipher: bytes) -> bytes | None:
        """The plain text; None if a byte was changed, or it is an older copy, or another page's or guest's."""
        try:
            bound = _bound(group, vm, page, seal.counter)
            return self._key(group, vm).decrypt(seal.nonce, cipher + seal.tag, bound)
        except InvalidTag:
            return None

    def close(self) -> None:
        os.close(self._file)
        os.close(self._seen)

    def _key(self, group: str, vm: int) -> AESGCM:
        """Returns the key of a guest's pages."""
        key = self._keys.get((group, vm))
        if key is None:
            key = self._keys[group, vm] = AESGCM(self.secret(f"page {vm} {group}"))
        return key


def _bound(group: str, vm: int, page: int, counter: int) -> bytes:
    """Returns what the tag of an exported page authenticates besides its content."""
    return f"{vm} {page} {counter} {group}".encode()


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _secret(file: Path) -> bytes:
    """Returns the 32 bytes in a file, which is made with random bytes if it is absent: whole, and once, whoever else
    makes it now."""
    if not file.exists():
        new = file.with_name(f"{file.name}.{os.urandom(6).hex()}")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as handle:
            handle.write(os.urandom(32))
        with suppress(FileExistsError):
            os.link(new, file)
        new.unlink()
    return file.read_bytes()
