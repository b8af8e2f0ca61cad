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
from ultrafolio.trace import fio, lackey, listing, pageflags, words
from ultrafolio.trace.importer import REQUEST, distinct
from ultrafolio.trace.load import load_orders, load_requests, load_touches, sniff
from ultrafolio.trace.reader import NO_END, bad_line, open_stream
from ultrafolio.trace.registry import importer_of

Write = Callable[..., Path]

LACKEY = "==7== Lackey\n--7-- note\nI  04001000,3\n L 1fff000ff8,8\n S 1fff000ffc,8\n M 1fff001000,4\nI  04001003,2\n"
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


def lackey_touches(path: Path) -> list[Any]:
    return list(lackey.touches(path))


def fio_requests(path: Path) -> list[Any]:
    return list(fio.requests(path))


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
    assert load_requests(path).dtype == REQUEST
    # A wait of version 2 is milliseconds since the start: the second one has passed already.
    assert load_requests(write(FIO2)).tolist() == [(0, 0, 0, 4096), (100000, 1, 8192, 1)]


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
        (LACKEY, "lackey"),
        (FIO3, "fio"),
        (FIO2, "fio"),
        (LIST, "page-types"),
        (RAW, "kpageflags"),
        (THPMAPS, "thpmaps"),
        (MTHP, "mthp"),
        ("==1== only\n", "lackey"),
    ],
)
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
DATA = Path(__file__).parents[1] / "support" / "data"
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
    [
        (load_requests, "fio version 4 iolog"),
        (fio_requests, "0 /a add"),
        (fio_requests, "x" * 9000),
        (lackey_touches, "fio version 3 iolog"),
        (lackey_touches, "x" * 9000),
    ],
)
def test_malformed_first_line(write: Write, load: Callable[[Path], Any], first: str) -> None:
    with pytest.raises(InputError, match=r"line 1 is malformed"):
        load(write(first + "\n"))


def test_the_line_number_is_right_far_into_the_file(write: Write) -> None:
    good = "I  04001000,3\n" * 300_000
    with pytest.raises(InputError, match=r"line 300001 is malformed"):
        load_touches(write(good + "I  0400\n" + good))


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


def loaded(load: Callable[[Path], Any], path: Path) -> Any:
    made = load(path)
    return made.tolist() if isinstance(made, np.ndarray) else made


@pytest.mark.parametrize("kind", GOOD)
def test_line_ends_of_windows(write: Write, kind: str) -> None:
    load, data = GOOD[kind]
    data = data.replace("\n\n", "\n")
    assert loaded(load, write(data.replace("\n", "\r\n"))) == loaded(load, write(data))


@pytest.mark.parametrize("kind", ["lackey", "fio 3", "fio 2", "page-types", "thpmaps", "mthp"])
def test_a_last_line_without_its_end(write: Write, kind: str) -> None:
    """Read if it is whole, and noted; refused, with the cause, if it is not."""
    load, data = GOOD[kind]
    assert loaded(load, write(data[:-1])) == loaded(load, write(data))
    assert loaded(load, write(data.replace("\n", "\r\n")[:-1])) == loaded(load, write(data))
    path = write(data[:-1])
    importer = importer_of(path)
    assert NO_END in importer.read(path, importer.kinds[0]).notes
    assert NO_END not in importer.read(write(data), importer.kinds[0]).notes
    lineno = data.count("\n") + 1
    with pytest.raises(InputError, match=rf"line {lineno} is malformed[\s\S]*cut short[\s\S]*sed -i"):
        load(write(data + "?"))


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
    monkeypatch.setattr(words, "BATCH", 4096)
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
def test_lackey_round_trip(tmp_path_factory: pytest.TempPathFactory, found: list[tuple[str, int, int]]) -> None:
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
    last = 0
    for time, action, offset, length in [*found, (1, "read", 0, 1)]:
        now = max(now, 1000 * time) if version == 2 else now + max(0, time - last)
        last = time
        text += f"/f wait {time} 0\n/f" if version == 2 else f"{time} /f"
        text += f" {action} {offset} {length}\n"
        if action in ("read", "write"):
            expected.append((now, int(action == "write"), offset, length))
    path = tmp_path_factory.mktemp("fio") / "recording"
    path.write_text(text)
    assert load_requests(path).tolist() == expected


@pytest.mark.parametrize("values", [[], [7], [7, 7], [3, 1, 3, 2**64 - 1, 1, 0], list(range(1000, 0, -1))])
def test_distinct_values_are_counted(values: list[int]) -> None:
    assert distinct(np.array(values, np.uint64)) == len(set(values))
