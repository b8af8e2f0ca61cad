"""Bounds of memory: what one message may become when it is decoded, and what all calls in progress hold."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, cast

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from ultrafolio.rpc.errors import StatusError

SMALL = 1 << 16
"""Bytes of a message that is decoded without a count of its fields: a field takes 48 bytes of memory or less."""
MOST_FIELDS = 1 << 17
"""Fields of a message and of the messages in it. Two bytes of a message are a field, and take 48 bytes of memory."""
MOST_PACKED = 4 << 20
"""Bytes of packed numbers in a message. One byte of them takes 8 bytes of memory."""
MOST_HELD = 64 << 20
"""Bytes of requests and of touches that the calls in progress of a service hold."""

_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
"""Wire types of protobuf."""


def check(rpc: str, message: bytes, shape: Descriptor) -> None:
    """Raises StatusError if a message has more fields or packed numbers than the bounds. It is not decoded for this,
    and what is damaged is left to the decoder."""
    if len(message) <= SMALL:
        return
    fields = packed = 0
    for packed_bytes in _fields(memoryview(message), shape):
        fields, packed = fields + 1, packed + packed_bytes
        if fields > MOST_FIELDS or packed > MOST_PACKED:
            raise StatusError(
                grpc.StatusCode.INVALID_ARGUMENT,
                "TOO_MANY",
                f"{rpc}: fields of a message",
                value=f"over {MOST_FIELDS} fields" if fields > MOST_FIELDS else f"over {MOST_PACKED} bytes of numbers",
                allowed=f"{MOST_FIELDS} fields, {MOST_PACKED} bytes of packed numbers",
                then="send several messages",
            )


def _fields(data: memoryview, shape: Descriptor) -> Iterator[int]:
    """Yields for each field of a message, and of the messages in it, its bytes of packed numbers, 0 for none."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _BYTES:
            size, at = _varint(data, at)
            field = shape.fields_by_number.get(tag >> 3)
            yield size if field is not None and _packed(field) else 0
            if field is not None and field.message_type is not None:
                yield from _fields(data[at : at + size], field.message_type)
            at += size
        else:
            yield 0
            if kind == _VARINT:
                _, at = _varint(data, at)
            else:
                at += {_FIXED_64: 8, _FIXED_32: 4}.get(kind, 0)


def _packed(field: FieldDescriptor) -> bool:
    """Whether the field is a list of numbers."""
    text = field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)
    return bool(field.is_repeated) and field.message_type is None and not text


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Returns a number and the place after it; the end of the data for a damaged one."""
    number = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
    return 0, len(data)


class Held:
    """The bytes that calls in progress hold, at most `most`."""

    def __init__(self, most: int = MOST_HELD) -> None:
        self.most, self.bytes = most, 0
        self._changing = threading.Lock()

    def during(self, size: int) -> contextlib.AbstractContextManager[None]:
        """Holds `size` bytes from the begin of a with-block to its end. The begin raises StatusError
        (RESOURCE_EXHAUSTED) beyond the bound."""
        return _Holding(self, size) if size else _NOTHING

    def take(self, size: int) -> None:
        """Hold `size` more bytes. Raises StatusError beyond the bound."""
        with self._changing:
            if self.bytes + size > self.most:
                raise StatusError(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    "TOO_MUCH_HELD",
                    "bytes that the calls in progress hold here",
                    value=f"{self.bytes}, and {size} of this call",
                    allowed=f"{self.most}",
                    cause="many long requests, or what they wait for does not come: Explain says who holds it",
                    then="repeat the call later, or send a shorter one",
                )
            self.bytes += size

    def give(self, size: int) -> None:
        """Hold `size` bytes less."""
        with self._changing:
            self.bytes -= size


class _Holding(contextlib.AbstractContextManager[None]):
    """Bytes that are held during a with-block."""

    __slots__ = ("_held", "_size")

    def __init__(self, held: Held, size: int) -> None:
        self._held, self._size = held, size

    def __enter__(self) -> None:
        self._held.take(self._size)

    def __exit__(self, *error: object) -> None:
        self._held.give(self._size)


_NOTHING = contextlib.nullcontext()


def size(request: Any) -> int:
    """Returns the bytes of a request as received, 0 for a stream of requests."""
    return len(request) if isinstance(request, bytes) else 0


def large(request: Any) -> int:
    """Returns the same for a request over SMALL, 0 for others: as many calls as there are threads hold little."""
    return size(request) if size(request) > SMALL else 0


HELD = Held()
"""What the calls of this process hold."""


def shape_of(decode: Any) -> Any:
    """Returns the descriptor of the message that a decoder makes, None for a decoder of another kind."""
    shape = getattr(decode, "__self__", None)
    return cast(Descriptor, shape.DESCRIPTOR) if isinstance(shape, type) and issubclass(shape, Message) else None
