"""Folio layouts from page flags: raw words of /proc/kpageflags and listings of page-types."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from test_importers import HEAD_F, KPF_ANON, KPF_HEAD, KPF_LRU, KPF_SLAB, KPF_TAIL, LIST, LRU_F, RAW, TAIL_F, raw, rows
from ultrafolio.errors import InputError
from ultrafolio.trace import listing, pageflags, words
from ultrafolio.trace.load import load_orders

Write = Callable[..., Path]


def test_raw_flags_values(write: Write) -> None:
    path = write(RAW)
    lru, head = KPF_LRU, KPF_LRU | KPF_HEAD
    assert rows(pageflags.folios(path)) == [(0, 0, lru), (1, 2, head), (5, 0, KPF_SLAB | KPF_ANON), (6, 0, 0)]
    # SLAB makes ANON noise, and flags 0 is the kernel's own memory.
    assert load_orders(path) == {0: 1, 2: 1}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([KPF_TAIL, KPF_TAIL, KPF_LRU], [(2, 0)]),  # the head is before the window
        ([KPF_LRU, KPF_HEAD, KPF_TAIL], [(0, 0)]),  # the window's end may have cut it
        ([KPF_HEAD, KPF_TAIL, KPF_TAIL, KPF_LRU], [(3, 0)]),  # three pages are no folio
        ([KPF_HEAD, KPF_LRU], [(1, 0)]),  # nor is a head alone
        ([KPF_HEAD, KPF_TAIL, KPF_HEAD, KPF_TAIL, 0], [(0, 1), (2, 1), (4, 0)]),
        ([1 << 10, 1 << 20, 1 << 23, KPF_LRU], [(3, 0)]),  # free, no page, offline
    ],
)
def test_pieces_are_no_folios(write: Write, words: list[int], expected: list[tuple[int, int]]) -> None:
    assert [row[:2] for row in rows(pageflags.folios(write(raw(*words))))] == expected


@pytest.mark.parametrize("bit", [7, 17, 19, 24, 26, 32])
def test_what_is_not_user_memory(write: Write, bit: int) -> None:
    assert load_orders(write(raw(KPF_LRU, KPF_LRU | 1 << bit))) == {0: 1}


@pytest.mark.parametrize("bit", [5, 12, 18])
def test_what_is_user_memory(write: Write, bit: int) -> None:
    assert load_orders(write(raw(0, 1 << bit))) == {0: 1}
    with pytest.raises(InputError, match="no folio of user memory"):
        load_orders(write(raw(0, 1 << 11)))


def test_listing_values(write: Write) -> None:
    lru = sum(1 << bit for bit in (3, 5, 11, 12, 14))
    head = lru | KPF_HEAD | 1 << 22
    expected = [(0x10, 0, lru), (0x11, 0, lru), (0x12, 0, lru), (0x20, 2, head)]
    assert rows(pageflags.folios(write(LIST))) == expected
    each = f"voffset\toffset\tflags\n7f0\t20\t{HEAD_F}\n7f1\t21\t{TAIL_F}\n7f2\t44\t{LRU_F}\n"
    assert rows(pageflags.folios(write(each))) == [(0x20, 1, head), (0x44, 0, lru)]
    summary = "             flags\tpage-count       MB  symbolic-flags\t\t\tlong-symbolic-flags\n"
    line = f"0x0000000000000028\t         7        0  {LRU_F}\tuptodate,lru\n"
    total = "             total\t         7        0\n"
    assert load_orders(write(f"{LIST}\n\n{summary}{line}{total}")) == {0: 3, 2: 1}


@pytest.mark.parametrize("batch", [1, 64])
def test_listing_of_a_gap_and_of_swap(write: Write, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(listing, "BATCH", batch)
    swap = "_" * 41 + "w_"
    text = f"offset\tlen\tflags\n20\t1\t{HEAD_F}\n22\t1\t{TAIL_F}\n30\t5\t{swap}\n40\t1\t{LRU_F}\n"
    assert [row[:2] for row in rows(pageflags.folios(write(text)))] == [(0x40, 0)]


def test_every_letter_of_every_layout(write: Write) -> None:
    assert sorted(len(letters) for letters, _ in listing.LAYOUTS) == [42, 43, 43, 44, 44, 45]
    for letters, bits in listing.LAYOUTS:
        assert len(letters) == len(bits)
        for at, (letter, bit) in enumerate(zip(letters, bits, strict=True)):
            if bit in (10, 16, 20, 22, 23, 62):  # no folio alone
                continue
            flags = "_" * at + letter + "_" * (len(letters) - at - 1)
            length = 2 if bit == 15 else 1
            tail = f"2\t1\t{'_' * 16}T{'_' * (len(letters) - 17)}\n" if length == 2 else ""
            path = write(f"offset\tlen\tflags\n1\t1\t{flags}\n{tail}")
            assert rows(pageflags.folios(path)) == [(1, length - 1, 1 << bit)]


def test_layouts_of_one_length_agree_on_what_they_share() -> None:
    """So a listing whose layout no letter has decided yet is read right already."""
    for letters, bits in listing.LAYOUTS:
        for others, other_bits in listing.LAYOUTS:
            if len(letters) == len(others):
                shared = [at for at in range(len(letters)) if letters[at] == others[at]]
                assert [bits[at] for at in shared] == [other_bits[at] for at in shared]
                assert letters is others or 0 < len(letters) - len(shared) <= 4


def test_letters_of_two_layouts_in_one_listing(write: Write) -> None:
    old = "_" * 34 + "c" + "_" * 8
    new = "_" * 34 + "f" + "_" * 8
    load = pageflags.folios
    assert len(rows(load(write(f"offset\tlen\tflags\n1\t1\t{old}\n2\t1\t{LRU_F}\n")))) == 2
    with pytest.raises(InputError, match="line 3 is malformed"):
        rows(load(write(f"offset\tlen\tflags\n1\t1\t{old}\n2\t1\t{new}\n")))


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5, 64])
def test_folios_do_not_depend_on_the_batch_size(write: Write, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    whole = rows(pageflags.folios(write(RAW))), rows(pageflags.folios(write(LIST)))
    monkeypatch.setattr(words, "BATCH", batch)
    monkeypatch.setattr(listing, "BATCH", batch)
    assert (rows(pageflags.folios(write(RAW))), rows(pageflags.folios(write(LIST)))) == whole


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (RAW + b"\0\0\0", "3 bytes after word 7"),
        (raw(0, KPF_LRU | 1 << 43), r"word 1 \(byte 8\) is no word"),
        (raw(0, 0, KPF_HEAD | KPF_TAIL), r"word 2 \(byte 16\) is no word"),
        (raw(KPF_TAIL), "no whole folio"),
    ],
)
def test_raw_flags_refused(write: Write, data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_orders(write(data))


def test_the_summary_table_is_no_listing(write: Write) -> None:
    table = "             flags\tpage-count       MB  symbolic-flags\t\t\tlong-symbolic-flags\n"
    with pytest.raises(InputError, match="summary table, not a listing"):
        load_orders(write(table))
    with pytest.raises(InputError, match=r"line 7 is malformed[\s\S]*total is missing"):
        load_orders(write(f"{LIST}\n{table}"))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.integers(1, 70))
def test_folio_round_trip(tmp_path_factory: pytest.TempPathFactory, orders: list[int], batch: int) -> None:
    flags = [w for o in orders for w in ([KPF_LRU | KPF_HEAD] + [KPF_TAIL] * (2**o - 1) if o else [KPF_LRU])]
    path = tmp_path_factory.mktemp("raw") / "recording"
    path.write_bytes(raw(*flags, 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "BATCH", batch)
        found = rows(pageflags.folios(path))
    starts = [sum(2**o for o in orders[:i]) for i in range(len(orders))]
    assert [row[:2] for row in found[:-1]] == list(zip(starts, orders, strict=True))
