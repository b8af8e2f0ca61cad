"""The shared state of a running cluster, for commands that read it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ultrafolio.errors import InputError, missing, one_of
from ultrafolio.state.store import StoreUnavailable


@contextmanager
def opened(url: str) -> Iterator[Any]:
    """A context manager with the administrator's RedisStore at a URL. Raises InputError if it cannot be reached or the
    extra `cluster` is missing."""
    try:
        from ultrafolio.state.redis import RedisStore
    except ImportError:
        raise missing("redis") from None
    store = RedisStore(url, "admin", patience=2.0)
    try:
        yield store
    except StoreUnavailable as error:
        raise InputError(
            f"{url.split('@')[-1]}: {error}",
            allowed="the URL of a running server",
            then="python -m services --json prints it",
        ) from None
    finally:
        store.close()


def has_group(group: str, there: list[str]) -> None:
    """Raise InputError if `group` is not among `there`, the cluster's folio groups."""
    if group not in there:
        raise one_of("folio group", group, there)
