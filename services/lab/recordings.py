"""Uploaded recordings: stored under the digest of their bytes, bounded, and checked by one full read.

A plan names one as ../recordings/DIGEST, relative to its job's folder. Workers find it there if they mount the folder
beside their folder for plans.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import grpc

from ultrafolio import files
from ultrafolio.durable import sync_folder
from ultrafolio.errors import InputError
from ultrafolio.rpc.errors import StatusError
from ultrafolio.trace import load, reader

LARGEST = 64 << 20
"""Bytes of a recording as uploaded, packed or not."""
LARGEST_UNPACKED = 256 << 20
MOST_BYTES = 4 << 30
"""Bytes of all uploaded recordings of a lab."""
PIECE = 1 << 20


class Recordings:
    """The uploaded recordings, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("*.part"):
            left.unlink()

    def keep(self, pieces: Iterable[bytes]) -> tuple[str, int]:
        """Store the recording in `pieces`. Returns the path for plans, and its bytes.

        Raises InputError if it is too large, packed or unpacked, or no recording, StatusError if the folder is full.
        """
        used = sum(file.stat().st_size for file in self.folder.iterdir())
        digest, size = hashlib.blake2b(digest_size=16), 0
        handle, name = tempfile.mkstemp(".part", dir=self.folder)
        part = Path(name)
        try:
            with os.fdopen(handle, "wb") as out:
                for piece in pieces:
                    size += len(piece)
                    if size > LARGEST:
                        raise InputError(
                            "recording: too large",
                            value=f"over {LARGEST} bytes",
                            allowed=f"{LARGEST} bytes as it is sent",
                            then="gzip it",
                        )
                    if used + size > MOST_BYTES:
                        raise StatusError(
                            grpc.StatusCode.RESOURCE_EXHAUSTED,
                            "RECORDINGS_FULL",
                            "uploaded recordings",
                            value=f"over {MOST_BYTES} bytes",
                            allowed=f"{MOST_BYTES} bytes in all",
                            then=f"remove those of finished sweeps from {self.folder.name}/ in the lab's data",
                        )
                    digest.update(piece)
                    out.write(piece)
                out.flush()
                os.fsync(out.fileno())
            _check(part)
            part.chmod(0o644)
            os.replace(part, self.folder / digest.hexdigest())
            sync_folder(self.folder)
        finally:
            part.unlink(missing_ok=True)
        return f"../{self.folder.name}/{digest.hexdigest()}", size


def _check(part: Path) -> None:
    """Raises InputError if its first lines are of no known format, or it is damaged or too large when unpacked."""
    with files.bound([part.parent]), files.reading(part, "recording"):
        load.sniff(part)
        size = 0
        with reader.open_stream(part) as stream:
            while piece := stream.read(PIECE):
                size += len(piece)
                if size > LARGEST_UNPACKED:
                    raise InputError("recording: too large", allowed=f"{LARGEST_UNPACKED} bytes unpacked")
