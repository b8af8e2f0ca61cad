"""The key of a cell's result: equal keys mean equal numbers, on any machine."""

from __future__ import annotations

import hashlib
import json
from typing import Any

KEY_BYTES = 16


def canonical(value: Any) -> str:
    """The one JSON text of ``value``: sorted names, no blanks; NaN and infinities raise ValueError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def cell_key(config: str, engine: str) -> str:
    """The key, 32 hex digits, of a canonical configuration (seed included) under an engine digest."""
    return digest(keyed_text(config, canonical(engine)))


def keyed_text(config: str, engine: str) -> str:
    """The text whose digest is a key, of the JSON texts of a configuration and of an engine digest."""
    return f'{{"config":{config},"engine":{engine}}}'


def digest(text: str) -> str:
    """BLAKE2b of the text's UTF-8 bytes, 128 bits in hex."""
    return hashlib.blake2b(text.encode(), digest_size=KEY_BYTES).hexdigest()
