"""The recordings in traces/: each loads with the counts that its table states."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ultrafolio.errors import InputError
from ultrafolio.trace import pageflags, thp
from ultrafolio.trace.load import load_orders, load_requests, load_touches, sniff

TRACES = Path(__file__).parents[2] / "traces"


def measured(path: Path) -> tuple[int, int, int, int]:
    """size, lines, count and pages of a recording, as the table in traces/README.md defines them."""
    data = path.read_bytes()
    text = gzip.decompress(data) if path.suffix == ".gz" else data
    kind = sniff(path)
    lines = 0 if kind == "kpageflags" else text.count(b"\n")
    if kind == "lackey":
        touched = load_touches(path)
        return len(data), lines, len(touched), len(set(touched["page"].tolist()))
    if kind == "fio":
        wanted = load_requests(path)
        spans = zip(wanted["offset"].tolist(), wanted["length"].tolist(), strict=True)
        pages = {page for at, n in spans for page in range(at // 4096, (at + n - 1) // 4096 + 1)}
        return len(data), lines, len(wanted), len(pages)
    orders = load_orders(path)
    size = sum(n << order for order, n in orders.items())
    if kind in ("page-types", "kpageflags"):
        return len(data), lines, sum(map(len, pageflags.folios(path))), size
    return len(data), lines, sum(orders.values()), size


def stated() -> dict[str, tuple[int, ...]]:
    table = {}
    for line in (TRACES / "README.md").read_text().splitlines():
        if match := re.match(r"\| (\S+\.\S+) \|.*?((?:\| \d+ ){4})\|$", line):
            table[match[1]] = tuple(int(n) for n in match[2].split("|")[1:])
    return table


def recordings() -> list[str]:
    return sorted(p.name for p in TRACES.iterdir() if p.is_file() and p.suffix != ".md")


def test_the_table_names_every_recording() -> None:
    assert sorted(stated()) == recordings()
    assert len(recordings()) == 14
    assert sum((TRACES / name).stat().st_size for name in recordings()) < 5 << 20


@pytest.mark.parametrize("name", recordings())
def test_recording_loads_with_the_counts_stated(name: str) -> None:
    assert measured(TRACES / name) == stated()[name]


def test_three_tools_agree_on_the_large_folios() -> None:
    """One run seen by the listing, by thpmaps and by the kernel's own counters."""
    listed = load_orders(TRACES / "folios.page-types.gz")
    large = {order: n for order, n in listed.items() if order}
    assert large == thp.order_distribution(TRACES / "folios.thpmaps")
    assert large == thp.order_distribution(TRACES / "folios.mthp")
    assert large == {2: 512, 3: 256, 4: 128, 5: 64, 6: 32, 7: 16, 9: 8}


@pytest.mark.parametrize(
    ("load", "name"),
    [
        (load_touches, "sqlite-update.lackey.gz"),
        (load_requests, "fio-randmix-4k.iolog.gz"),
        (load_orders, "folios.kpageflags.gz"),
        (load_orders, "folios.page-types.gz"),
    ],
)
def test_damaged_gzip(tmp_path: Path, load: Callable[[Path], Any], name: str) -> None:
    packed = (TRACES / name).read_bytes()
    path = tmp_path / "damaged"
    half = len(packed) // 2
    flipped = packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:]  # the checksum
    for data in (packed[:half], packed[:-1], flipped, packed[:half] + bytes(50) + packed[half + 50 :]):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"damaged or cut short|malformed|no word"):
            load(path)
