"""The folio groups a service works on, and the errors of working on them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

import grpc

from ultrafolio.model.layout import ACTOR_KINDS
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.messages import meta_from
from ultrafolio.rpc.v1 import common_pb2
from ultrafolio.state.acl import group_name
from ultrafolio.state.sections import DTYPES, LARGEST_GROUP, MAY_WRITE, Meta, decode_meta
from ultrafolio.state.store import LEASE_MS, Store, StoreUnavailable
from ultrafolio.state.turn import Contended, Lost

T = TypeVar("T")
TURN_LOST = "TURN_LOST"
NOT_FOUND = "GROUP_NOT_FOUND"


class Groups(Generic[T]):
    """What `make` makes of each group by name, at its first use; the constants are read once."""

    def __init__(self, store: Store, make: Callable[[str, Meta], T]) -> None:
        self._store, self._make = store, make
        self._metas: dict[str, Meta] = {}
        self._made: dict[str, T] = {}
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> T:
        with self._lock:
            if name not in self._made:
                self._metas[name] = meta_of(self._store, name)
                self._made[name] = self._make(name, self._metas[name])
            return self._made[name]

    def machine_of(self, name: str, actor: int) -> int | None:
        """The machine of an actor of the group `name`, None for one that there is not."""
        self[name]
        who = self._metas[name].who
        return int(who["vm"][actor]) if 0 <= actor < len(who) else None

    def tend(
        self, renew: Callable[[T], object], every_s: float = LEASE_MS / 1000, over: threading.Event | None = None
    ) -> None:
        """Until it is `over`, look after turns of this role that were left behind: `renew` a group whose turn stays.

        A step that died with its holder would otherwise keep the other roles out until this one has work in the group.
        """
        arguments = renew, every_s, over or threading.Event()
        threading.Thread(target=self._tend, args=arguments, name="left turns", daemon=True).start()

    def _tend(self, renew: Callable[[T], object], every_s: float, over: threading.Event) -> None:
        before: dict[str, str] = {}
        while not over.wait(every_s):
            # whatever is away now: there is a next time
            with suppress(Exception):
                turns = {name: self._store.turn(name) for name in self._store.groups()}
                held = {name: turn.token for name, turn in turns.items() if turn and turn.role == self._store.role}
                left = [name for name, token in held.items() if before.get(name) == token]
                before = held
                for name in left:
                    renew(self[name])

    def forget(self, name: str) -> None:
        """Read the group's constants again at its next use."""
        with self._lock:
            self._made.pop(name, None)


def meta_of(store: Store, name: str) -> Meta:
    """A group's constants. StatusError if it was never laid out."""
    found = store.read(group_name(name), ["meta"])
    if not found:
        raise missing(name)
    return decode_meta(found["meta"])


def missing(name: str) -> StatusError:
    return StatusError(
        grpc.StatusCode.NOT_FOUND,
        NOT_FOUND,
        "no such folio group",
        value=name,
        cause="it was never laid out, or its data was removed",
        then="python examples/lay_out.py makes one from a scenario",
    )


@contextmanager
def in_words() -> Iterator[None]:
    """Failures of the shared state as statuses that a client may retry."""
    try:
        yield
    except Lost:
        raise StatusError(
            grpc.StatusCode.ABORTED,
            TURN_LOST,
            "the turn is over",
            cause="its lease ran out under its holder",
            then="ask again",
        ) from None
    except Contended as error:
        raise StatusError(
            grpc.StatusCode.UNAVAILABLE,
            "GROUP_BUSY",
            str(error),
            cause="a service died in the middle of a step, or is very slow",
            then="start it again, and ask again",
        ) from None
    except StoreUnavailable as error:
        raise StatusError(
            grpc.StatusCode.UNAVAILABLE,
            "STATE_UNAVAILABLE",
            str(error),
            cause="Redis is away",
            then="start it again, and ask again",
        ) from None
    except KeyError as error:
        raise missing(str(error.args[0])) from None


def bounded(what: str, number: int, most: int) -> int:
    """`number`, if it is at most `most`. StatusError otherwise."""
    if number > most:
        raise StatusError(
            grpc.StatusCode.INVALID_ARGUMENT,
            "TOO_MANY",
            what,
            value=number,
            allowed=f"at most {most}",
            cause="bounds keep one call from taking the memory or the time of others: docs/limits.md",
        )
    return number


def page_of(meta: Meta, page: int, count: int = 1) -> int:
    """`page`, if it and the `count` - 1 after it exist. StatusError otherwise."""
    pages = int(meta.cfg["pages"][0])
    if not 0 <= page <= pages - count:
        raise StatusError(
            grpc.StatusCode.INVALID_ARGUMENT, "NO_SUCH_PAGE", "page", value=page, allowed=f"0 to {pages - count}"
        )
    return page


def actor_of(meta: Meta, actor: int, kinds: tuple[int, ...], names: str) -> int:
    """`actor`, if it exists and is of one of these kinds. StatusError otherwise."""
    if not 0 <= actor < len(meta.who) or meta.who["kind"][actor] not in kinds:
        fit = [t for t, kind in enumerate(meta.who["kind"]) if kind in kinds]
        raise StatusError(
            grpc.StatusCode.INVALID_ARGUMENT,
            "NO_SUCH_ACTOR",
            "actor",
            value=actor,
            allowed=f"{names}: {', '.join(map(str, fit)) or 'this group has none'}",
        )
    return actor


def any_actor_of(meta: Meta, actor: int) -> int:
    """`actor`, if it exists. StatusError otherwise."""
    return actor_of(meta, actor, tuple(range(len(ACTOR_KINDS))), "actors")


def exists(group: str) -> StatusError:
    return StatusError(
        grpc.StatusCode.ALREADY_EXISTS,
        "GROUP_EXISTS",
        "the folio group is there already",
        value=group,
        allowed="a name not yet used",
    )


def constants(message: common_pb2.Meta) -> Meta:
    """The constants in a message. StatusError where they are no records, or none."""
    try:
        meta = meta_from(message)
        if len(meta.cfg) != 1 or len(meta.who) != meta.cfg["actors"][0]:
            raise ValueError(f"{len(meta.cfg)} configurations, {len(meta.who)} actors")
        if not 0 < meta.cfg["pages"][0] <= LARGEST_GROUP:
            raise ValueError(f"{meta.cfg['pages'][0]} pages, a group has at most {LARGEST_GROUP}")
    except ValueError as error:
        raise StatusError(
            grpc.StatusCode.INVALID_ARGUMENT,
            "BAD_META",
            "constants of the group",
            value=str(error),
            allowed="one record of CFG, as many of WHO as it says",
        ) from None
    return meta


def check_sections(meta: Meta, sections: dict[str, bytes], role: str) -> None:
    """Every section is the role's to write and has its size. StatusError otherwise."""
    for name, data in sections.items():
        size = len(meta.blank(name).tobytes()) if name in DTYPES else 0
        if name not in MAY_WRITE[role] or len(data) != size:
            raise StatusError(
                grpc.StatusCode.INVALID_ARGUMENT,
                "BAD_SECTION",
                f"section {name} of {len(data)} bytes",
                value=name,
                allowed=f"{', '.join(MAY_WRITE[role])}; {size} bytes for this one",
            )
