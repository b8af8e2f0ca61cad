"""Where a page listens, which headers it is sent with, and the script that every page loads first."""

from __future__ import annotations

import ipaddress
import socket
from pathlib import Path

from ultrafolio.errors import InputError

LOOPBACK = ("127.0.0.1", "::1", "localhost")
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
}
"""Of every response that is a page or one of its files: it loads from its own address, and runs no inline code."""
ELEMENTS = "elements.js"
"""The script that all pages load first; it defines `$`, `h` and `plural`."""


def script() -> str:
    """The text of ELEMENTS."""
    return (Path(__file__).parent / ELEMENTS).read_text(encoding="utf-8")


def is_loopback(host: str) -> bool:
    """Whether an address or name to listen on is reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in LOOPBACK


def listening(host: str, port: int, what: str, allowed: str) -> socket.socket:
    """A TCP socket that listens on an IPv4 or IPv6 address, or a name; port 0 takes a free port. The caller closes it.

    InputError: it cannot listen there. what: what the error says is wrong;  allowed: what may be given instead
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        raise InputError(
            what,
            value=port,
            allowed=allowed,
            cause=getattr(error, "strerror", None) or str(error),
            then=f"ss -ltnp | grep :{port}",
        ) from None
    return listener


def address_of(host: str, listener: socket.socket) -> str:
    """host:port as it stands in a URL."""
    return f"{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
