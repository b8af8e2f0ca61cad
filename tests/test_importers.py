"""Importers of real recordings: exact values, every malformed line, bounded memory."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultrafolio.errors import InputError
from ultrafolio.trace import fio, lackey, listing, pageflags
from ultrafolio.trace.load import load_orders, load_requests, load_touches, sniff
from ultrafolio.trace.reader import bad_line, open_stream

Write = Callable[..., Path]

LACKEY = (
    "==7== Lackey\n--7-- note\nI  04001000,3\n L 1fff000ff8,8\n S 1fff000ffc,8\n M 1fff001000,4\n"
    "I  04001003,2\n"
)
FIO3 = (
    "fio version 3 iolog\n2 /a add\n5 /a open\n7 /a read 4096 65536\n7 /a sync 0 0\n9 /a write 0 512\n"
    "9 /a trim 0 4096\n11 /a datasync 0 0\n12 /a close\n"
)
FIO2 = "fio version 2 iolog\n/a add\n/a open\n/a read 0 4096\n/a wait 100 0\n/a wait 50 0\n/a write 8192 1\n"
F = "_" * 43
HEAD_F, TAIL_F = "___U_l_____Ma_bH______t" + "_" * 20, "________________Tt"[:17] + "_____t" + "_" * 20
LRU_F = "___U_l_____Ma_b" + "_" * 28
LIST = f"offset\tlen\tflags\n10\t3\t{LRU_F}\n20\t1\t{HEAD_F}\n21\t3\t{TAIL_F}\n"
THPMAPS = (
    "anon-thp-pmd-aligned-2048kB:       4096 kB ( 23%)\nanon-thp-pte-aligned-64kB:         128 kB (  4%)\n"
    "file-thp-pte-unaligned-64kB:         64 kB\nanon-thp-pte-partial:               120 kB (  4%)\n"
    "anon-cont-pte-aligned-32kB:         512 kB (  9%)\n"
)
MTHP = (
    "/sys/kernel/mm/transparent_hugepage/enabled:always [madvise] never\n"
    "/sys/kernel/mm/transparent_hugepage/hugepages-64kB/stats/nr_anon:3\n"
    "hugepages-16kB/stats/nr_anon 5\nhugepages-16kB/stats/split 9\nhugepages-32kB/stats/nr_anon:0\n"
)
KPF_LRU, KPF_HEAD, KPF_TAIL, KPF_ANON, KPF_SLAB = 1 << 5, 1 << 15, 1 << 16, 1 << 12, 1 << 7


def raw(*words: int) -> bytes:
    return np.array(words, "<u8").tobytes()


RAW = raw(KPF_LRU, KPF_LRU | KPF_HEAD, *[KPF_TAIL] * 3, KPF_SLAB | KPF_ANON, 0)


@pytest.fixture(params=["plain", "gzip"])
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Write:
    """Writes a recording, both plain and packed; the name says neither."""

    def to(data: str | bytes, name: str = "recording") -> Path:
        data = data.encode() if isinstance(data, str) else data
        path = tmp_path / name
        path.write_bytes(gzip.compress(data) if request.param == "gzip" else data)
        return path

    return to


def rows(batches: Any) -> list[tuple[int, ...]]:
    return [row for batch in batches for row in batch.tolist()]


# --- exact values -------------------------------------------------------------------------------------


def test_lackey_values(write: Write) -> None:
    path = write(LACKEY)
    a, b = 0x1FFF000, 0x1FFF001
    expected = [(0x4001, 0), (a, 0), (a, 1), (b, 1), (0x4001, 0)]
    assert rows(lackey.touches(path)) == expected
    assert load_touches(path).tolist() == [(0, 0), (1, 0), (1, 1), (2, 1), (0, 0)]
    assert rows(lackey.touches(path, limit=3)) == expected[:3]
    batch = next(lackey.touches(path))
    assert batch.dtype == np.dtype([("page", "<u8"), ("write", "u1")])
    assert load_touches(path).dtype == np.dtype([("page", "<u4"), ("write", "u1")])


def test_lackey_wide_addresses_and_limit(write: Write) -> None:
    path = write("I  00000fff,2\n L fffffffffffffffe,2\n S 123456789abcdef0,4096\n")
    expected = [(0, 0), (1, 0), (2**52 - 1, 0), (0x123456789ABCD, 1), (0x123456789ABCE, 1)]
    assert rows(lackey.touches(path)) == expected
    with pytest.raises(ValueError, match="limit is 0"):
        next(lackey.touches(path, limit=0))


def test_fio_values(write: Write) -> None:
    path = write(FIO3)
    assert load_requests(path).tolist() == [(7, 0, 4096, 65536), (9, 1, 0, 512)]
    assert load_requests(path).dtype == fio.REQUEST
    assert load_requests(write(FIO2)).tolist() == [(0, 0, 0, 4096), (150, 1, 8192, 1)]


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
    assert sorted(listing.LAYOUTS) == [43, 44, 45]
    for letters, bits in listing.LAYOUTS.values():
        for at, (letter, bit) in enumerate(zip(letters, bits, strict=True)):
            if bit in (10, 16, 20, 22, 23, 62):  # no folio alone
                continue
            flags = "_" * at + letter + "_" * (len(letters) - at - 1)
            length = 2 if bit == 15 else 1
            tail = f"2\t1\t{'_' * 16}T{'_' * (len(letters) - 17)}\n" if length == 2 else ""
            path = write(f"offset\tlen\tflags\n1\t1\t{flags}\n{tail}")
            assert rows(pageflags.folios(path)) == [(1, length - 1, 1 << bit)]


def test_thp_values(write: Write) -> None:
    assert load_orders(write(THPMAPS)) == {4: 3, 9: 2}
    assert load_orders(write(MTHP)) == {2: 5, 4: 3}
    head = "       PID             START              END PROT   OFFSET   DEV    INODE OBJECT\n"
    vma = "0000000042: 0000aaaab0000000-0000aaaab0200000 rw-p 00000000 00:00 00000000 \n"
    line = "anon-thp-pte-aligned-64kB:         128 kB (  4%)\n"
    assert load_orders(write(f"{head}{vma}Rss:    512 kB\n{line}{vma}{line}")) == {4: 4}


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (LACKEY, "lackey"), (FIO3, "fio"), (FIO2, "fio"), (LIST, "page-types"), (RAW, "kpageflags"),
        (THPMAPS, "thpmaps"), (MTHP, "mthp"), ("==1== only\n", "lackey"),
    ],
)  # fmt: skip
def test_sniff(write: Write, data: str | bytes, kind: str) -> None:
    assert sniff(write(data)) == kind


def test_sniff_names_the_formats(write: Write) -> None:
    with pytest.raises(InputError) as error:
        sniff(write("hello\n"))
    for name in ("lackey", "fio", "page-types", "kpageflags", "thpmaps", "mthp"):
        assert name in error.value.allowed
    with pytest.raises(InputError, match="fio recording holds no folio layout"):
        load_orders(write(FIO3))


# --- batches ------------------------------------------------------------------------------------------


def test_lackey_batches(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lackey, "CHUNK", 37)  # cuts lines, and runs over chunks
    monkeypatch.setattr(lackey, "BATCH", 2)
    text = "".join(f" {'LS'[i // 5 % 2]} {i // 7 + 16:07x}000,4\n" for i in range(100))
    batches = list(lackey.touches(write(text)))
    assert max(map(len, batches)) <= 2
    assert rows(batches) == naive_touches(text)
    assert rows(lackey.touches(write(text), limit=7)) == naive_touches(text)[:7]


def test_batches_are_full_and_no_larger(write: Write) -> None:
    n = 65536 + 3
    text = "".join(f" L {i + 16:07x}000,4\n" for i in range(n))
    batches = list(lackey.touches(write(text)))
    assert max(map(len, batches)) <= 65536
    assert sum(map(len, batches)) == n
    log = "fio version 3 iolog\n0 f add\n" + "".join(f"{i} f read 0 1\n" for i in range(n))
    assert [len(batch) for batch in fio.requests(write(log))] == [65536, 3]


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5, 64])
def test_folios_over_batches(write: Write, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    whole = rows(pageflags.folios(write(RAW))), rows(pageflags.folios(write(LIST)))
    monkeypatch.setattr(pageflags, "BATCH", batch)
    monkeypatch.setattr(listing, "BATCH", batch)
    assert (rows(pageflags.folios(write(RAW))), rows(pageflags.folios(write(LIST)))) == whole


# --- what is wrong ------------------------------------------------------------------------------------

GOOD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "lackey": (load_touches, LACKEY),
    "fio 3": (load_requests, FIO3),
    "fio 2": (load_requests, FIO2),
    "page-types": (load_orders, LIST),
    "summary": (load_orders, LIST + "\n"),
    "thpmaps": (load_orders, THPMAPS),
    "mthp": (load_orders, MTHP),
}
DATA = Path(__file__).parent / "data"
MALFORMED: dict[str, list[str]] = json.loads((DATA / "malformed.json").read_text())
CASES = [(*GOOD[kind], bad) for kind, lines in MALFORMED.items() for bad in lines]


@pytest.mark.parametrize(("load", "good", "bad"), CASES)
def test_malformed_line(write: Write, load: Callable[[Path], Any], good: str, bad: str) -> None:
    """The good part alone loads (less the blank line before a summary); with the bad line nothing does."""
    load(write(good.replace("\n\n", "\n")))
    path = write(f"{good}{bad}\n")
    with pytest.raises(InputError) as error:
        load(path)
    lineno = good.count("\n") + bad.count("\n") + 1
    assert error.value.what == f"{path}: line {lineno} is malformed"
    shown = bad.rsplit("\n", 1)[-1]
    assert error.value.value == (shown[:120] if shown.isprintable() else repr(shown)[1:-1])
    assert error.value.allowed


@pytest.mark.parametrize(
    ("load", "first"),
    [(load_requests, "fio version 4 iolog"), (load_requests, "0 /a add"),
     (load_touches, "fio version 3 iolog"), (load_touches, "x" * 9000)],
)  # fmt: skip
def test_malformed_first_line(write: Write, load: Callable[[Path], Any], first: str) -> None:
    with pytest.raises(InputError, match=r"line 1 is malformed"):
        load(write(first + "\n"))


def test_the_line_number_is_right_far_into_the_file(write: Write) -> None:
    good = "I  04001000,3\n" * 300_000
    with pytest.raises(InputError, match=r"line 300001 is malformed"):
        load_touches(write(good + "I  0400\n" + good))


def test_the_summary_table_is_no_listing(write: Write) -> None:
    table = "             flags\tpage-count       MB  symbolic-flags\t\t\tlong-symbolic-flags\n"
    with pytest.raises(InputError, match="summary table, not a listing"):
        load_orders(write(table))
    with pytest.raises(InputError, match=r"line 7 is malformed[\s\S]*total is missing"):
        load_orders(write(f"{LIST}\n{table}"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (RAW + b"\0\0\0", "3 bytes after word 7"),
        (raw(0, 1 << 43), r"word 1 \(byte 8\) is no word"),
        (raw(0, 0, KPF_HEAD | KPF_TAIL), r"word 2 \(byte 16\) is no word"),
        (raw(KPF_TAIL), "no whole folio"),
    ],
)
def test_raw_flags_refused(write: Write, data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_orders(write(data))


@pytest.mark.parametrize(
    ("load", "data", "message"),
    [
        (load_touches, "==1== nothing\n", "no memory access"),
        (load_requests, "fio version 3 iolog\n0 /a add\n", "no read and no write"),
        (load_orders, "hugepages-64kB/stats/nr_anon:0\n", "no large folio"),
        (load_orders, "offset\tlen\tflags\n", "no whole folio"),
    ],
)
def test_a_recording_of_nothing(write: Write, load: Callable[[Path], Any], data: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(write(data))


@pytest.mark.parametrize(
    ("load", "data"),
    [GOOD[kind] for kind in ("lackey", "fio 3", "page-types", "thpmaps", "mthp")],
)
def test_a_last_line_without_its_end(write: Write, load: Callable[[Path], Any], data: str) -> None:
    lineno = data.count("\n")
    with pytest.raises(InputError, match=rf"line {lineno} is malformed[\s\S]*cut short"):
        load(write(data[:-1]))


@pytest.mark.parametrize("load", [load_touches, load_requests, load_orders, sniff])
def test_files_that_cannot_be_read(tmp_path: Path, load: Callable[[Path], Any]) -> None:
    empty, nothing = tmp_path / "empty", tmp_path / "nothing"
    empty.write_bytes(b"")
    nothing.write_bytes(gzip.compress(b""))
    for path in (empty, nothing):
        with pytest.raises(InputError, match="the recording is empty"):
            load(path)
    with pytest.raises(InputError, match="No such file"):
        load(tmp_path / "missing")
    with pytest.raises(InputError, match="Is a directory"):
        load(tmp_path)


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("ultrafolio.trace.reader.io.FileIO", refuse)  # root may read any file
    with pytest.raises(InputError, match="Permission denied"), open_stream(tmp_path / "x"):
        pass


def test_bad_line_clips_and_escapes() -> None:
    error = bad_line("f", 3, b"\xff\t" + b"x" * 500, "a number")
    assert error.what == "f: line 3 is malformed"
    assert isinstance(error.value, str)
    assert error.value.startswith(r"\\xff\tx")
    assert len(error.value) < 140
    assert error.allowed == "a number"


# --- memory -------------------------------------------------------------------------------------------


def peak(consume: Callable[[], int]) -> tuple[int, int]:
    tracemalloc.start()
    try:
        return consume(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_streaming(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The peak stays well below the size of the recording."""
    monkeypatch.setattr(lackey, "CHUNK", 1 << 16)
    monkeypatch.setattr(fio, "BATCH", 4096)
    monkeypatch.setattr(listing, "BATCH", 4096)
    monkeypatch.setattr(pageflags, "BATCH", 4096)
    n = 200_000
    files: dict[str, tuple[str | bytes, Callable[[Path], Any]]] = {
        "lackey": ("".join(f" S {i:08x}000,8\n" for i in range(n)), lackey.touches),
        "fio": ("fio version 3 iolog\n0 /f add\n" + "".join(f"{i} /f read {i} 4096\n" for i in range(n)),
                fio.requests),
        "list": ("offset\tlen\tflags\n" + "".join(f"{i:x}\t1\t{LRU_F}\n" for i in range(n)),
                 pageflags.folios),
        "raw": (raw(*[KPF_LRU] * n * 4), pageflags.folios),
    }  # fmt: skip
    for name, (data, read) in files.items():
        path = write(data, name)
        count, used = peak(lambda path=path, read=read: sum(len(batch) for batch in read(path)))  # type: ignore[misc]
        assert count == (4 * n if name == "raw" else n)
        assert used < len(data) / 2, (name, used, len(data))


# --- round trips against an oracle written without numpy ----------------------------------------------


def naive_touches(text: str) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for line in text.splitlines():
        address, size = line[3:].split(",")
        low, high = int(address, 16) // 4096, (int(address, 16) + int(size) - 1) // 4096
        for page in range(low, high + 1):
            touch = (page, int(line[1] in "SM"))
            if out[-1:] != [touch]:
                out.append(touch)
    return out


accesses = st.tuples(
    st.sampled_from(["I ", " L", " S", " M"]),
    st.one_of(st.integers(0, 5 * 4096), st.integers(0, 2**64 - 4097)),
    st.one_of(st.integers(1, 32), st.integers(1, 4096)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(accesses, min_size=1, max_size=60))
def test_lackey_round_trip(
    tmp_path_factory: pytest.TempPathFactory, found: list[tuple[str, int, int]]
) -> None:
    text = "".join(f"{kind} {address:08x},{size}\n" for kind, address, size in found)
    path = tmp_path_factory.mktemp("lackey") / "recording"
    path.write_text(text)
    expected = naive_touches(text)
    assert rows(lackey.touches(path)) == expected
    order = list(dict.fromkeys(page for page, _ in expected))
    assert load_touches(path).tolist() == [(order.index(page), w) for page, w in expected]


entries = st.tuples(
    st.integers(0, 2**40),
    st.sampled_from(["read", "write", "sync", "trim", "datasync"]),
    st.integers(0, 2**63),
    st.integers(1, 2**32 - 1),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(entries, min_size=1, max_size=40), st.sampled_from([2, 3]))
def test_fio_round_trip(
    tmp_path_factory: pytest.TempPathFactory, found: list[tuple[int, str, int, int]], version: int
) -> None:
    now, text = 0, f"fio version {version} iolog\n" + ("/f add\n" if version == 2 else "0 /f add\n")
    expected = []
    for gap, action, offset, length in [*found, (1, "read", 0, 1)]:
        now += gap
        text += f"/f wait {gap} 0\n/f" if version == 2 else f"{now} /f"
        text += f" {action} {offset} {length}\n"
        if action in ("read", "write"):
            expected.append((now, int(action == "write"), offset, length))
    path = tmp_path_factory.mktemp("fio") / "recording"
    path.write_text(text)
    assert load_requests(path).tolist() == expected


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.integers(1, 70))
def test_folio_round_trip(tmp_path_factory: pytest.TempPathFactory, orders: list[int], batch: int) -> None:
    words = [w for o in orders for w in ([KPF_LRU | KPF_HEAD] + [KPF_TAIL] * (2**o - 1) if o else [KPF_LRU])]
    path = tmp_path_factory.mktemp("raw") / "recording"
    path.write_bytes(raw(*words, 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pageflags, "BATCH", batch)
        found = rows(pageflags.folios(path))
    starts = [sum(2**o for o in orders[:i]) for i in range(len(orders))]
    assert [row[:2] for row in found[:-1]] == list(zip(starts, orders, strict=True))
