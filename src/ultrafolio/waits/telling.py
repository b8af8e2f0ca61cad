"""The words of waits, by design: those of words.py, with the holders and reasons of the design."""

from __future__ import annotations

import functools
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

from ultrafolio.model import designs
from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.waits import memfd, memfd_words, words
from ultrafolio.waits.load import interpreted

_OWN = {
    name: getattr(memfd_words, name)
    for name in ("holders", "is_met", "leads_to", "name", "short", "waiter_words", "what_for")
}


def rebound(module: ModuleType, **own: Any) -> Any:
    """Returns the functions of a module as they are, but calling each other and everything else by the names in `own`
    where it has them."""
    space = {**vars(module), **own}
    for name, value in vars(module).items():
        if isinstance(value, FunctionType) and value.__module__ == module.__name__ and name not in own:
            made = FunctionType(value.__code__, space, name, value.__defaults__, value.__closure__)
            made.__kwdefaults__ = value.__kwdefaults__
            space[name] = made
    return SimpleNamespace(**space)


@functools.cache
def in_design(name: str) -> Any:
    """Returns the functions of words.py for a design."""
    if name != GUEST_MEMFD.name:
        return words
    return rebound(words, **_OWN, WAIT_CLASSES=memfd.CLASSES, interpreted=functools.partial(interpreted, GUEST_MEMFD))


def of(state: Any) -> Any:
    """Returns the functions of words.py for a state's design."""
    return in_design(designs.of(state).name)
