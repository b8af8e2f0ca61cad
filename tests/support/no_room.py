"""A client of HTTP/2 that makes calls and has no room for their answers: it says so in its settings."""

import contextlib
import socket
import struct
import threading

DATA, HEADERS, RESET, SETTINGS, PING = 0, 1, 3, 4, 6
ACK, END_STREAM, END_HEADERS = 1, 1, 4
WINDOW = 4
"""Number of the setting with the bytes for which a stream has room at its start."""


class NoRoom:
    """A connection to `address`. ended: its calls whose end it was told;  resets: those that the service gave up."""

    def __init__(self, address, window=0):
        host, _, port = address.rpartition(":")
        self._socket, self._stream, self._writing = socket.create_connection((host, int(port))), 1, threading.Lock()
        self.ended = self.resets = self.bytes = 0
        start = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(SETTINGS, 0, 0, struct.pack(">HI", WINDOW, window))
        self._socket.sendall(start)
        threading.Thread(target=self._read, daemon=True).start()

    def call(self, method, request, role):
        """Begin a call of `/package.Service/Method` without a deadline."""
        pairs = {
            ":method": "POST",
            ":scheme": "http",
            ":path": method,
            ":authority": "test",
            "te": "trailers",
            "content-type": "application/grpc",
            "ultrafolio-role": role,
        }
        fields = b"".join(b"\0" + _text(name) + _text(value) for name, value in pairs.items())
        data = request.SerializeToString()
        message = struct.pack(">BI", 0, len(data)) + data
        with self._writing:
            stream, self._stream = self._stream, self._stream + 2
            self._socket.sendall(
                _frame(HEADERS, END_HEADERS, stream, fields) + _frame(DATA, END_STREAM, stream, message)
            )

    def close(self):
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _read(self):
        with contextlib.suppress(OSError), self._socket.makefile("rb") as lines:
            while len(head := lines.read(9)) == 9:
                kind, flags, body = head[3], head[4], lines.read(int.from_bytes(head[:3], "big"))
                self.ended += kind == HEADERS and bool(flags & END_STREAM)
                self.resets += kind == RESET
                self.bytes += len(body) if kind == DATA else 0
                if kind in (SETTINGS, PING) and not flags & ACK:
                    with self._writing:
                        self._socket.sendall(_frame(kind, ACK, 0, body if kind == PING else b""))


def _frame(kind, flags, stream, body):
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def _text(text):
    assert len(text) < 127
    return bytes([len(text)]) + text.encode()
