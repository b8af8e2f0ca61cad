"""A secure guest's boot image: its owner encrypts it for the machines that may run it.

The owner encrypts the pages and gives them to the host with a header. Only an ultravisor with one of the host keys can
decrypt the header and with it the pages. The sequence follows the published calls (Set configuration parameters, Unpack
with tweak and offset, Verify image; kernel §1.4). The byte format is this project's:

    header    MAGIC, u16 slots, an X25519 public key of the owner's (32 bytes), the slots, a nonce (12 bytes), the body
    slot      SHA-256 of a host's public key (32 bytes), the header's key wrapped for that host (RFC 3394, 40 bytes)
    body      AES-256-GCM under the header's key, bound to all before it: image key (64 bytes), u64 pages, digest (32)
    page      AES-256-XTS under the image key; its tweak is what the call says: u64 tweak, u64 offset
    digest    of all pages in the order in which they are unpacked, see `measure`

Numbers are big endian. XTS alone does not detect a changed page; the digest, which Verify compares, does.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from ultrafolio.errors import InputError
from ultrafolio.model.layout import PAGE_SIZE
from ultrafolio.nouns import plural

MAGIC = b"UFSEHDR1"
FRONT, BODY = struct.Struct(">8sH32s"), struct.Struct(">64sQ32s")
SLOT, NONCE, TAG = 72, 12, 16
MOST_SLOTS = 100
"""Most slots that fit the longest header that KVM accepts, 8 KiB."""
UNMEASURED = bytes(32)
"""The digest before the first page."""


class Sealed(NamedTuple):
    """The owner's data for the host: header, encrypted pages, tweak."""

    header: bytes
    pages: bytes
    tweak: int


class Opened(NamedTuple):
    """The decrypted header.

    key: of the pages, 64 bytes;  pages: their number;  digest: of all pages
    """

    key: bytes
    pages: int
    digest: bytes


class NoHostKey(Exception):
    """The header is for other machines."""


class Altered(Exception):
    """The bytes are no header, or were changed after the owner made them."""


def seal(plain: bytes, host_keys: Sequence[bytes], address: int = 0) -> Sealed:
    """Encrypt an image with a new key, for the machines with these public host keys (32 bytes each).

    plain    whole pages of 4,096 bytes
    address  guest absolute address of the first page, bytes
    Raises InputError if `plain` is not whole pages, a key has not 32 bytes, or there are over MOST_SLOTS keys.
    """
    if not plain or len(plain) % PAGE_SIZE:
        raise InputError("image", value=plural(len(plain), "byte"), allowed="whole pages of 4,096 bytes")
    if not 0 < len(host_keys) <= MOST_SLOTS or any(len(key) != 32 for key in host_keys):
        raise InputError(
            "host keys",
            value=[len(key) for key in host_keys],
            allowed="1 to 100, of 32 bytes each",
            then="UltravisorService/HostKey tells that of a machine",
        )
    key, tweak = os.urandom(64), int.from_bytes(os.urandom(8), "big")
    digest, encrypted = UNMEASURED, []
    for offset, page in pages_of(plain):
        digest = measure(digest, address + offset, tweak, offset, page)
        encrypted.append(encrypt(key, tweak, offset, page))
    opened = Opened(key, len(encrypted), digest)
    return Sealed(header(opened, host_keys), b"".join(encrypted), tweak)


def header(image: Opened, host_keys: Sequence[bytes]) -> bytes:
    """Returns the header of an image for these machines."""
    own, wrapped = X25519PrivateKey.generate(), os.urandom(32)
    slots = [_name(host) + aes_key_wrap(_shared(own, host), wrapped) for host in host_keys]
    front = FRONT.pack(MAGIC, len(slots), own.public_key().public_bytes_raw()) + b"".join(slots) + os.urandom(NONCE)
    return front + AESGCM(wrapped).encrypt(front[-NONCE:], BODY.pack(*image), front)


def open_header(data: bytes, host_key: X25519PrivateKey) -> Opened:
    """Decrypt a header with a host key. Raises NoHostKey if it is for other machines, Altered if it is no header."""
    if len(data) < FRONT.size or data[: len(MAGIC)] != MAGIC:
        raise Altered
    _, count, owner = FRONT.unpack_from(data)
    front = FRONT.size + count * SLOT + NONCE
    if len(data) != front + BODY.size + TAG:
        raise Altered
    mine = _name(host_key.public_key().public_bytes_raw())
    for at in range(FRONT.size, front - NONCE, SLOT):
        if data[at : at + 32] == mine:
            try:
                key = aes_key_unwrap(_shared(host_key, owner), data[at + 32 : at + SLOT])
                body = AESGCM(key).decrypt(data[front - NONCE : front], data[front:], data[:front])
            except (InvalidUnwrap, InvalidTag, ValueError):
                raise Altered from None
            return Opened(*BODY.unpack(body))
    raise NoHostKey


def encrypt(key: bytes, tweak: int, offset: int, page: bytes) -> bytes:
    """Returns a page encrypted under the image key."""
    encryptor = _xts(key, tweak, offset).encryptor()
    return encryptor.update(page) + encryptor.finalize()


def decrypt(key: bytes, tweak: int, offset: int, page: bytes) -> bytes:
    """The inverse of `encrypt`. Another key, tweak or offset gives noise."""
    decryptor = _xts(key, tweak, offset).decryptor()
    return decryptor.update(page) + decryptor.finalize()


def measure(digest: bytes, address: int, tweak: int, offset: int, page: bytes) -> bytes:
    """Returns the digest with one more page: SHA-256 over the digest so far, address, tweak, offset, plain text."""
    return hashlib.sha256(digest + struct.pack(">3Q", address, tweak, offset) + page).digest()


def pages_of(image: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields (offset, page) of an image."""
    return ((offset, image[offset : offset + PAGE_SIZE]) for offset in range(0, len(image), PAGE_SIZE))


def _xts(key: bytes, tweak: int, offset: int) -> Cipher[modes.XTS]:
    """Returns the cipher of a page of the image at this offset."""
    return Cipher(algorithms.AES(key), modes.XTS(struct.pack(">QQ", tweak, offset)))


def _name(host_key: bytes) -> bytes:
    """Returns the name under which a header lists a host key: its SHA-256."""
    return hashlib.sha256(host_key).digest()


def _shared(mine: X25519PrivateKey, other: bytes) -> bytes:
    """Returns the key that two X25519 keys agree on, 32 bytes."""
    secret = mine.exchange(X25519PublicKey.from_public_bytes(other))
    return HKDF(SHA256(), 32, None, b"ultrafolio SE header").derive(secret)
