"""The folio groups of a service, and the checks of a call's arguments against them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, NamedTuple, TypeVar

import grpc

from services.common.failures import TABLE, failure
from ultrafolio.model.design import Design
from ultrafolio.model.layout import OPS
from ultrafolio.nouns import plural
from ultrafolio.rpc.errors import StatusError
from ultrafolio.rpc.messages import meta_from
from ultrafolio.rpc.v1 import common_pb2
from ultrafolio.state.acl import group_name
from ultrafolio.state.owner import LONE, Ownership
from ultrafolio.state.sections import LARGEST_GROUP, Meta, decode_meta
from ultrafolio.state.store import LEASE_MS, NoGroup, NotOwner, Store

T = TypeVar("T")
D = TypeVar("D")
SILENCE_MS = 2 * LEASE_MS
"""Milliseconds beyond its lease that an owner may be silent before others take its groups without being asked."""

ANY_SILENCE_MS = -(1 << 40)
"""Milliseconds of silence that every owner has kept, since no lease is as long."""


class Held(NamedTuple):
    """A group in the hands of this process.

    store  the store; where the role has several replicas, one whose commits end with the ownership `of`
    """

    store: Store
    of: Ownership = LONE

    def settle(self, group: str, home: int) -> None:
        """Say that the contents are complete in the files of ownership `home`, and renew the lease. Raises NotOwner if
        this ownership is over."""
        self.store.settle(group, self.of.epoch, home)


class Groups(Generic[T]):
    """A cache: group name -> `make` of its constants, made at the first use.

    replica: the name of this process among several of its role; "" if it is the only one. With a name, a group is taken
    first (state.owner), and made anew with each ownership: what an earlier one still does ends with NotOwner.
    """

    def __init__(self, store: Store, make: Callable[[str, Meta, Held], T], replica: str = "") -> None:
        self._store, self._make, self._replica = store, make, replica
        self._metas: dict[str, Meta] = {}
        self._made: dict[str, T] = {}
        self._epochs: dict[str, int] = {}
        self._taking: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> T:
        return self._get(name, 0)

    def unasked(self, name: str) -> T:
        """As groups[name], for work that no client asks for: taken from an owner only that was silent for longer."""
        return self._get(name, SILENCE_MS)

    def seized(self, name: str) -> T:
        """As groups[name], taken from its owner even while that works: for what concerns every group at once. What the
        former owner is at ends as where it was silent (state.owner)."""
        return self._get(name, ANY_SILENCE_MS)

    def _get(self, name: str, silence_ms: int) -> T:
        """Returns what was made of a group. Raises NotOwner if another replica owns it, and was not silent so long."""
        with self._lock:
            if name in self._made:
                return self._made[name]
            if not self._replica:
                made = self._made[name] = self._make(name, self._meta(name), Held(self._store))
                return made
            taking = self._taking.setdefault(name, threading.Lock())
        with taking:  # contents are moved meanwhile: calls for other groups go on
            known = self._made.get(name)
            if known is not None:
                return known
            meta, owned = self._meta(name), self._store.take(name, self._replica, silence_ms)
            held = Held(self._store.under(owned.epoch, lambda: self._lost(name, owned.epoch)), owned)
            made = self._make(name, meta, held)
            with self._lock:
                self._made[name], self._epochs[name] = made, owned.epoch
            return made

    def _meta(self, name: str) -> Meta:
        """Returns a group's constants. Raises StatusError if it was never laid out."""
        if name not in self._metas:
            self._metas[name] = meta_of(self._store, name)
        return self._metas[name]

    def _lost(self, name: str, epoch: int) -> None:
        """Another replica has taken the group: it is taken anew before its next use."""
        with self._lock:
            if self._epochs.get(name) == epoch:
                self._made.pop(name, None)

    def machine_of(self, name: str, actor: int) -> int | None:
        """Returns the number of the actor's virtual machine in group `name`, None if the actor does not exist."""
        who = self._meta(name).who
        return int(who["vm"][actor]) if 0 <= actor < len(who) else None

    def tend(
        self, renew: Callable[[T], object], every_s: float = LEASE_MS / 1000, over: threading.Event | None = None
    ) -> None:
        """Until `over` is set, check every `every_s` seconds for abandoned turns of this role: `renew` such a group.

        A turn whose holder died would otherwise lock out the other roles until this role's next step in the group.
        """
        arguments = renew, every_s, over or threading.Event()
        threading.Thread(target=self._tend, args=arguments, name="left turns", daemon=True).start()

    def _tend(self, renew: Callable[[T], object], every_s: float, over: threading.Event) -> None:
        """Every `every_s` seconds until `over`: call `renew` for each group whose turn this role held one round before,
        too."""
        before: dict[str, str] = {}
        while not over.wait(every_s):
            # any failure here is retried in the next round
            with suppress(Exception):
                turns = {name: self._store.turn(name) for name in self._store.groups()}
                held = {name: turn.token for name, turn in turns.items() if turn and turn.role == self._store.role}
                left = [name for name, token in held.items() if before.get(name) == token]
                before = held
                for name in left:
                    with suppress(NotOwner):
                        renew(self.unasked(name))


class OfDesign(Generic[D]):
    """Those groups of `groups` that are of a design, of which `kind` was made."""

    def __init__(self, groups: Groups[Any], kind: type[D], design: Design) -> None:
        self._groups, self._kind, self._design = groups, kind, design

    def __getitem__(self, name: str) -> D:
        return self._checked(name, self._groups[name])

    def seized(self, name: str) -> D:
        """As self[name], taken from its owner: see Groups."""
        return self._checked(name, self._groups.seized(name))

    def _checked(self, name: str, made: Any) -> D:
        """Returns `made`. Raises StatusError if it is of another design."""
        if not isinstance(made, self._kind):
            raise other_design(name, made.meta.design, self._design)
        return made


def meta_of(store: Store, name: str) -> Meta:
    """Returns a group's constants. Raises StatusError if it was never laid out."""
    found = store.read(group_name(name), ["meta"])
    if not found:
        raise missing(name)
    return decode_meta(found["meta"])


def other_design(name: str, design: Design, wanted: Design) -> StatusError:
    """Returns the error of a call for a group of another design than it is for (FAILED_PRECONDITION)."""
    return StatusError(
        grpc.StatusCode.FAILED_PRECONDITION,
        "OTHER_DESIGN",
        f"group {name}: this call is for groups of the design {wanted.name}",
        value=design.name,
        allowed=wanted.name,
        then=f"docs/drive-the-cluster.md says which calls a group of {design.name} takes",
    )


def of_design(meta: Meta, name: str, wanted: Design) -> None:
    """Raises StatusError unless the group of these constants is of a design."""
    if meta.design is not wanted:
        raise other_design(name, meta.design, wanted)


def missing(name: str) -> StatusError:
    """Turn failures of the shared state into statuses that a client may retry."""
    return failure(TABLE[NoGroup], NoGroup(name))


def bounded(what: str, number: int, most: int) -> int:
    """Returns `number`. Raises StatusError if it is over `most`."""
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
    """Returns `page`. Raises StatusError unless pages `page` to `page` + `count` - 1 exist."""
    pages = int(meta.cfg["pages"][0])
    if not 0 <= page <= pages - count:
        raise StatusError(
            grpc.StatusCode.INVALID_ARGUMENT, "NO_SUCH_PAGE", "page", value=page, allowed=f"0 to {pages - count}"
        )
    return page


def actor_of(meta: Meta, actor: int, kinds: tuple[int, ...], names: str) -> int:
    """Returns `actor`. Raises StatusError unless it exists and has one of these kinds."""
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


def machine_of(meta: Meta, vm: int) -> int:
    """Returns `vm`. Raises StatusError if the group has no such virtual machine."""
    if vm >= meta.vms:
        raise StatusError(
            grpc.StatusCode.INVALID_ARGUMENT,
            "NO_SUCH_MACHINE",
            "virtual machine",
            value=vm,
            allowed=f"0 to {meta.vms - 1}",
        )
    return vm


def operation_of(op: int) -> int:
    """Returns `op`. Raises StatusError if no actor has such an operation."""
    if op >= len(OPS):
        raise StatusError(
            grpc.StatusCode.INVALID_ARGUMENT,
            "NO_SUCH_OPERATION",
            "operation",
            value=op,
            allowed=", ".join(f"{number} ({name})" for number, name in enumerate(OPS)),
        )
    return op


def any_actor_of(meta: Meta, actor: int) -> int:
    """Returns `actor`. Raises StatusError if it does not exist."""
    return actor_of(meta, actor, tuple(range(len(meta.design.kinds))), "actors")


def exists(group: str) -> StatusError:
    """Returns the error for a group that is laid out already (ALREADY_EXISTS)."""
    return StatusError(
        grpc.StatusCode.ALREADY_EXISTS,
        "GROUP_EXISTS",
        "the folio group is there already",
        value=group,
        allowed="a name not yet used",
    )


def constants(message: common_pb2.Meta) -> Meta:
    """Returns the constants in a message. Raises StatusError if they are missing or not whole records."""
    try:
        meta = meta_from(message)
        if len(meta.cfg) != 1 or len(meta.who) != meta.cfg["actors"][0]:
            raise ValueError(f"{plural(len(meta.cfg), 'configuration')}, {plural(len(meta.who), 'actor')}")
        if not 0 < meta.cfg["pages"][0] <= LARGEST_GROUP:
            raise ValueError(f"{meta.cfg['pages'][0]} pages, a group has at most {LARGEST_GROUP}")
    except ValueError as error:
        raise StatusError(
            grpc.StatusCode.INVALID_ARGUMENT,
            "BAD_META",
            "the constants of the group: cfg or who has the wrong size",
            value=str(error),
            allowed="one record of CFG in cfg, and in who a record of WHO for each of its actors",
            cause="a client of another version, or a message that was cut",
            then="python examples/lay_out.py makes a group from a scenario",
        ) from None
    return meta


def check_sections(meta: Meta, sections: dict[str, bytes], role: str) -> None:
    """Raises StatusError unless the role may write each section and each has its size."""
    may = meta.sections.touched[role].writes
    for name, data in sections.items():
        size = meta.size(name) if name in meta.sections.dtypes else 0
        if name not in may or len(data) != size:
            raise StatusError(
                grpc.StatusCode.INVALID_ARGUMENT,
                "BAD_SECTION",
                f"section {name} of {plural(len(data), 'byte')}",
                value=name,
                allowed=f"{', '.join(may)}; {plural(size, 'byte')} for this one",
            )
