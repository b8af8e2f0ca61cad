"""Access control of keys: one Redis user per role, so that the host cannot read the ultravisor's sections.

    text = acl_file(passwords := new_passwords())

A user's name is its role. Its rights are its row of RIGHTS; the user `default` is off. `admin` has all rights;
validation, tests and the launcher use it.

Two rights need a selector (a second, bracketed rule for separate commands):

- The server treats every key that a script names as written, even one that it only reads. So EVAL may *name* any of
  our keys, while each command inside the script is checked against the user's rights.
- The roles append to a group's log and may not read it, since it has the ultravisor's layout and calls. None may change
  or cut it: only RPUSH may write there. (XADD could cut a stream, with MAXLEN.)
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from typing import NamedTuple

from ultrafolio.errors import InputError
from ultrafolio.model.designs import DESIGNS

from . import roles

ADMIN = "admin"
KEEPER = "keeper"
"""Cuts streams to a window, and deletes groups: the lab's second user, which workers do not get."""
PARTS = tuple(role.name for role in roles.PARTS)
GROUP = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Rights(NamedTuple):
    """Key patterns and commands of one user.

    write     patterns to read and write;  read  patterns to read;  append  logs to append to
    commands  commands on them;  channels  patterns of channels to publish and subscribe
    removes   a pattern of keys to remove, and to read the size of
    """

    write: tuple[str, ...]
    read: tuple[str, ...]
    append: tuple[str, ...]
    commands: tuple[str, ...]
    channels: tuple[str, ...] = ()
    removes: str = ""


def _group(*names: str) -> tuple[str, ...]:
    """Returns patterns of keys of any folio group. A group's keys share a hash tag: one node stores them."""
    return tuple(f"uf:{{*}}:{name}" for name in names)


# a connection authenticates and pings; a pipeline is a transaction
_CONNECTION = ("auth", "hello", "ping", "select", "client|setname", "client|id", "multi", "exec", "discard")
# sections, turns and leases are strings, the journal a list, last commits a hash, the list of groups a set
_STATE = (
    "get", "mget", "set", "getrange", "setrange", "strlen", "exists", "del", "incr", "expire", "pexpire", "pttl",
    "rpush", "lrange", "llen", "lindex", "lpop", "hget", "hset", "hgetall", "hdel", "sadd", "srem",
    "smembers", "sismember", "smismember", "hmget", "xadd", "time", "script|load",
)  # fmt: skip
# Celery's transport uses many data commands, and others in each release: categories, without those that can harm
# other users of the server (@dangerous: keys, flushall, config, ...)
_BROKER = (
    "@read",
    "@write",
    "@transaction",
    "@pubsub",
    "@connection",
    "@blocking",
    "eval",
    "evalsha",
    "script|load",
    "script|exists",
    "time",
    "-@dangerous",
)


def _part(role: str) -> Rights:
    """Returns the rights of a role's user."""
    own = (f"uf:{role}:*", f"uf:lease:{role}:*", *(("uf:machine:*",) if role == "ultravisor" else ()))
    touched = [row.of(design) for row in roles.PARTS if row.name == role for design in DESIGNS]
    # the host lays out groups
    sections = {name: None for of in touched for name in of.writes} | ({"meta": None} if role == "host" else {})
    beside = "turn", "journal", "did", "behind", "poll", "bell", f"reply:{role}:*", f"order:{role}", f"owner:{role}"
    read = dict.fromkeys([*(name for of in touched for name in (*of.reads, *of.looks)), "meta"])
    others = (name for name in read if name not in sections)
    return Rights(
        write=(*_group(*sections, *beside), "uf:groups", *own),
        # who works under a turn that the host began is told whether that host still owns the group
        read=(*_group(*others, *(["owner:host"] if role != "host" else [])), "uf:deleted"),
        append=_group("log"),
        commands=(*_CONNECTION, *_STATE),
    )


RIGHTS: dict[str, Rights] = {
    **{role: _part(role) for role in PARTS},
    "lab": Rights(
        write=(
            "uf:lab:*",
            "uf:lease:lab:*",
            "ultrafolio*",
            "celery*",
            "_kombu*",
            "unacked*",
            "*.reply.celery.pidbox*",
        ),
        read=(*_group("log", "poll", "bell", "checkpoint", "meta"), "uf:groups"),
        append=(),
        commands=(*_CONNECTION, *_BROKER),
        # a worker subscribes by PSUBSCRIBE; the server compares its pattern literally
        channels=("*celery*", "/0.celery.pidbox"),
    ),
    KEEPER: Rights(
        write=(*_group("log", "checkpoint"), "uf:groups", "uf:deleted", "uf:uncut"),
        read=_group("poll", "bell"),
        append=(),
        commands=(
            *_CONNECTION,
            "get",
            "getrange",
            "exists",
            "set",
            "lrange",
            "llen",
            "ltrim",
            "hgetall",
            "hset",
            "hdel",
            "sadd",
            "srem",
            "smembers",
            "script|load",
        ),
        removes="uf:{*}:*",
    ),
}
"""Every user but `admin`. state.sections defines which sections a role reads and writes."""


def group_name(name: str) -> str:
    """Returns `name`. Raises InputError if it is no name for a folio group.

    The star in the patterns also matches a brace and a colon: a host that lays out a group "x}:reply:host:" could read
    the ultravisor's sections of it. So every service checks the names that it gets.
    """
    if not GROUP.fullmatch(name):
        raise InputError("name of a folio group", value=name, allowed="1 to 64 letters, digits, _ . -")
    return name


def new_passwords() -> dict[str, str]:
    """Returns a fresh password for every user, 192 bits each."""
    return {user: secrets.token_urlsafe(24) for user in (*RIGHTS, ADMIN)}


def acl_file(passwords: Mapping[str, str]) -> str:
    """Returns the text of the server's `aclfile`: every user with its rights and the SHA-256 of its password.

    Raises InputError if a user has no password.
    """
    missing = [user for user in (*RIGHTS, ADMIN) if not passwords.get(user)]
    if missing:
        raise InputError(
            "passwords of the Redis users: some are missing",
            value=", ".join(missing),
            allowed="one for each of " + ", ".join((*RIGHTS, ADMIN)),
        )
    # No client can be this user. A server replays its append-only file with its rights: without, many versions refuse
    # every transaction in there, and lose it silently (redis/redis issue 14541, valkey-io/valkey issue 3983).
    lines = ["user default off resetpass ~* &* +@all"]
    lines += [f"user {user} {rule(user, passwords[user])}" for user in RIGHTS]
    lines.append(f"user {ADMIN} on #{_hash(passwords[ADMIN])} ~* &* +@all")
    return "\n".join(lines) + "\n"


def rule(user: str, password: str) -> str:
    """Returns the rule of one user, for ACL SETUSER and an aclfile."""
    rights = RIGHTS[user]
    words = ["on", "#" + _hash(password), "resetchannels", "-@all"]
    words += [command if command[0] == "-" else "+" + command for command in rights.commands]
    words += ["~" + pattern for pattern in rights.write]
    words += ["%R~" + pattern for pattern in rights.read]
    words += ["&" + pattern for pattern in rights.channels]
    words.append("(+eval +evalsha ~uf:*)")
    if rights.removes:
        words.append(f"(+del +memory|usage ~{rights.removes})")
    if rights.append:
        words.append(f"(+rpush {' '.join('%W~' + pattern for pattern in rights.append)})")
    return " ".join(words)


def _hash(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()
