"""One channel to all replicas of a service: a call about a folio group goes to the replica that owns it.

    channel = connect("10.0.0.5:50051,10.0.0.6:50051", "guest", server="host")

The owner of a group is found by asking: first the replica that answered for it last, else in an order that the group's
name gives, so that all clients begin with the same. A replica that does not own the group refuses (NOT_THE_OWNER), one
that is dead or paused does not answer: the next is asked, until the call's time is over. Who does not answer for longer
than its lease loses the group to the replica that is asked next (state.owner). Repeating is safe: a request has an id,
or a place in a turn's journal, and happens once.
"""

from __future__ import annotations

import hashlib
import itertools
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import grpc

from ultrafolio.state import until

from .client import MESSAGE_MIB, TIMEOUT_S, Channel, Pairs, Tls
from .client import connect as connect_one
from .errors import NOT_THE_OWNER, StatusError

ATTEMPT_S = 3.0
"""Seconds that a replica gets for a short call before another is asked, and twice as many in each further round."""
TRIES = 5
"""Times that a call is tried where the owner itself says that it is not available."""
PAUSE_S, LONGEST_PAUSE_S = 0.02, 0.2
WAITING = ("Run", "Start")
"""Methods that wait as long as the call's deadline allows: their replica is given that time."""
LOOK_S = 1.0
"""Seconds between two looks at the addresses of names, where a replica did not answer."""
MOST_KNOWN = 8192
"""Groups whose owner is known."""
NO_ANSWER = (grpc.StatusCode.UNAVAILABLE.name, "STOPPING")
"""Reasons of an error that no owner gave: no process listens, or it ends."""


def connect(
    addresses: str,
    role: str,
    *,
    tls: Tls | None = None,
    server: str = "",
    timeout_s: float = TIMEOUT_S,
    message_mib: int = MESSAGE_MIB,
    metadata: Callable[[], Pairs] | None = None,
) -> grpc.Channel:
    """Returns a channel to the replicas at `addresses`: HOST:PORT with `,` between; a name stands for each of its IPv4
    addresses. Other arguments as of client.connect. Raises InputError for an address that is none."""

    def one(address: str) -> Channel:
        return connect_one(
            address,
            role,
            tls=tls,
            server=server,
            timeout_s=timeout_s,
            message_mib=message_mib,
            metadata=metadata,
            retry=False,
        )

    return Replicas([address.strip() for address in addresses.split(",")], one, timeout_s)


class Replicas(grpc.Channel):
    """A channel for stubs. names: host:port;  make: a channel to one replica."""

    def __init__(self, names: list[str], make: Callable[[str], Channel], timeout_s: float) -> None:
        self.names, self.timeout_s = names, timeout_s
        self._make, self._channels = make, dict[str, Channel]()
        self._owners, self._failed = dict[str, str](), dict[str, str]()
        self._lock, self._looked = threading.Lock(), 0.0
        self.look()

    def look(self) -> None:
        """Find out the addresses of the replicas, unless that was done within LOOK_S."""
        with self._lock:
            if time.monotonic() - self._looked < LOOK_S:
                return
            self._looked = time.monotonic()
            found = {address for name in self.names for address in _addresses(name)}
            for address in found - self._channels.keys():
                self._channels[address] = self._make(address)
            if found:
                for address in self._channels.keys() - found:
                    self._channels.pop(address).close()

    def order(self, group: str) -> list[str]:
        """Returns the addresses in the order in which they are asked about a group: the owner first, as far as it is
        known, and last the one that failed last."""
        with self._lock:
            found, owner, failed = list(self._channels), self._owners.get(group), self._failed.get(group)
        ranked = sorted(found, key=lambda address: hashlib.blake2b(f"{group} {address}".encode()).digest())
        return sorted(ranked, key=lambda address: (address != owner, address == failed))

    def learn(self, group: str, address: str, *, answered: bool) -> None:
        """The replica at this address answered for the group, or did not."""
        with self._lock:
            for known in (self._owners, self._failed):
                if known.get(group) == address or len(known) >= MOST_KNOWN:
                    known.pop(group if group in known else next(iter(known)))
            (self._owners if answered else self._failed)[group] = address

    def channel(self, address: str) -> Channel | None:
        """Returns the channel to a replica, None if it is none any more."""
        return self._channels.get(address)

    def unary_unary(self, method: str, *arguments: Any, **known: Any) -> Any:
        return _Routed(self, method, lambda channel: channel.unary_unary(method, *arguments, **known))

    def none_such(self, *arguments: Any, **known: Any) -> Any:
        """What grpc.Channel has, and several replicas have not: streams, and one state of a connection. Raises
        TypeError."""
        raise TypeError("a channel to replicas has calls of one request and one answer: client.connect has the others")

    stream_unary = unary_stream = stream_stream = subscribe = unsubscribe = none_such

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()

    def __enter__(self) -> Replicas:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Routed:
    """One method, at whichever replica owns the group of a request."""

    def __init__(self, replicas: Replicas, method: str, make: Callable[[Channel], Any]) -> None:
        self._replicas, self._make = replicas, make
        self._waits = method.rpartition("/")[2] in WAITING
        self._calls: dict[Channel, Any] = {}

    def _call(self, address: str) -> Any:
        """Returns the callable of one replica, None if it is no replica any more."""
        channel = self._replicas.channel(address)
        if channel is None:
            return None
        if channel not in self._calls:
            self._calls[channel] = self._make(channel)
        return self._calls[channel]

    def __call__(self, request: Any, timeout: float | None = None, **rest: Any) -> Any:
        group, tries = getattr(request, "group", ""), itertools.count(1)
        end = time.monotonic() + (until.left(self._replicas.timeout_s) if timeout is None else timeout)
        attempt, pause = ATTEMPT_S, PAUSE_S
        while True:
            last: StatusError | None = None
            for address in self._replicas.order(group):
                left, call = end - time.monotonic(), self._call(address)
                if call is None or (last and left <= 0):
                    continue
                given = max(0.001, left if self._waits else min(left, attempt))
                try:
                    answer = call(request, timeout=given, **rest)
                except StatusError as error:
                    last = error
                    if _not_there(error):
                        self._replicas.learn(group, address, answered=False)
                    elif error.code != grpc.StatusCode.UNAVAILABLE or next(tries) >= TRIES:
                        raise
                    else:
                        break
                    if time.monotonic() > end:
                        raise
                else:
                    self._replicas.learn(group, address, answered=True)
                    return answer
            if time.monotonic() + pause > end:
                raise last or _nobody(self._replicas.names)
            time.sleep(pause)
            pause, attempt = min(2 * pause, LONGEST_PAUSE_S), 2 * attempt
            self._replicas.look()

    def future(self, request: Any, timeout: float | None = None, **rest: Any) -> Any:
        """As grpc's, at the replica that is asked first; a refusal is an error, after which another is asked first."""
        group = getattr(request, "group", "")
        order = self._replicas.order(group)
        call = self._call(order[0]) if order else None
        if call is None:
            raise _nobody(self._replicas.names)
        started = call.future(request, timeout, **rest)
        ok = grpc.StatusCode.OK
        started.add_done_callback(lambda done: self._replicas.learn(group, order[0], answered=done.code() == ok))
        return started


def _not_there(error: StatusError) -> bool:
    """Whether another replica is to be asked: this one is not the owner, is gone, or did not answer in time."""
    late = error.code == grpc.StatusCode.DEADLINE_EXCEEDED
    return late or error.reason == NOT_THE_OWNER or error.reason in NO_ANSWER


def _addresses(name: str) -> list[str]:
    """Returns the addresses of `host:port`: one per IPv4 address of the host, none where its name is not known now."""
    host, colon, port = name.rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit()):
        return [name]  # client.connect says what is wrong with it
    try:
        found = socket.getaddrinfo(host, int(port), socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return []
    return sorted({f"{address[0]}:{address[1]}" for *_, address in cast("list[Any]", found)})


def _nobody(names: list[str]) -> StatusError:
    """Returns the error where no name has an address."""
    return StatusError(
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNAVAILABLE.name,
        "no replica has an address",
        value=", ".join(names),
        cause="the names are not known here, or no replica runs",
    )
