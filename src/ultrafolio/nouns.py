"""A number with its noun, as every message and table says it."""

from __future__ import annotations


def plural(number: int, noun: str, nouns: str = "") -> str:
    """ "1 run", "2 runs". `nouns` is the plural where it is not the noun with an s."""
    return f"{number} {noun if number == 1 else nouns or noun + 's'}"
