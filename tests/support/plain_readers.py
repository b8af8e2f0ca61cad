"""A second reader of each format, as plain as can be: what the importers' counts are held against.

Nothing is shared with ultrafolio.trace. A reader takes the unpacked bytes of a file that the importer accepted and
returns its counts; it checks nothing that it does not count by.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterable

Counts = dict[str, int]


def lines(data: bytes) -> list[str]:
    """Its lines, ended by LF or CRLF."""
    text = data.decode("latin-1")
    found = text.split("\n")
    if found[-1] == "":
        found.pop()
    return [line[:-1] if line.endswith("\r") else line for line in found]


def touched(pairs: Iterable[tuple[int, int]]) -> Counts:
    touches = writes = 0
    pages = set()
    last = None
    for pair in pairs:
        if pair != last:
            touches, writes, last = touches + 1, writes + pair[1], pair
            pages.add(pair[0])
    return {"touches": touches, "pages": len(pages), "writes": writes}


def requested(rows: list[tuple[int, bool, int]]) -> Counts:
    """rows: time in us, write, length."""
    return {
        "requests": len(rows),
        "writes": sum(write for _, write, _ in rows),
        "bytes": sum(n for _, _, n in rows),
        "time_us": rows[-1][0],
    }


def laid_out(orders: Iterable[int]) -> Counts:
    counts: dict[int, int] = {}
    for order in orders:
        counts[order] = counts.get(order, 0) + 1
    named = {f"order-{order}": counts[order] for order in sorted(counts)}
    return {"folios": sum(counts.values()), "pages": sum(n << order for order, n in counts.items()), **named}


def lackey(data: bytes) -> Counts:
    pairs = []
    for line in lines(data):
        if line[:3] in ("I  ", " L ", " S ", " M "):
            address, size = line[3:].split(",")
            first = int(address, 16)
            for page in range(first >> 12, (first + int(size) - 1 >> 12) + 1):
                pairs.append((page, int(line[1] in "SM")))
    return touched(pairs)


def fio(data: bytes) -> Counts:
    rows = []
    now = last = 0
    header, *rest = lines(data)
    for line in rest:
        fields = line.split(" ")
        if header.endswith("version 3 iolog"):
            time = int(fields.pop(0))
            now += 0 if fields[1] == "wait" or time < last else time - last
            last = time
        elif fields[1] == "wait":
            now = max(now, 1000 * int(fields[2]))
        if fields[1] in ("read", "write"):
            rows.append((now, fields[1] == "write", int(fields[3])))
    return requested(rows)


def folded(pages: Iterable[tuple[int, int]], window: bool) -> Counts:
    """Folios of user memory from (page frame, flags); ``window``: the last run may go on after the end."""
    found: list[list[int]] = []  # first frame, flags, length
    for frame, flags in pages:
        if flags >> 16 & 1 and found and frame == found[-1][0] + found[-1][2]:
            found[-1][2] += 1
        else:
            found.append([frame, flags, 1])
    if window and found and found[-1][1] >> 15 & 1:
        found.pop()
    orders = []
    for _, flags, length in found:
        head = flags >> 15 & 1
        whole = length.bit_count() == 1 and length > 1 if head else True
        has = {bit for bit in range(64) if flags >> bit & 1}
        if whole and not has & {16, 20, 10, 23} and has & {5, 12, 18} and not has & {7, 17, 19, 24, 26, 32}:
            orders.append(length.bit_length() - 1 if head else 0)
    return laid_out(orders)


def words(data: bytes, order: str) -> list[int]:
    return [int.from_bytes(data[at : at + 8], order) for at in range(0, len(data), 8)]  # type: ignore[arg-type]


def kpageflags(data: bytes) -> Counts:
    known = {*range(27), *range(32, 43)}
    for order in ("little", "big"):
        flags = words(data, order)
        if all(not word >> bit & 1 for word in set(flags) for bit in range(64) if bit not in known) and not any(
            word >> 15 & 3 == 3 for word in flags
        ):
            return folded(enumerate(flags), True)
    raise ValueError("no byte order fits")


def pagemap(data: bytes) -> Counts:
    def fits(word: int) -> bool:
        where = word >> 62
        return where != 3 and not word >> 59 & 3 and (where > 0 or not word & ((1 << 55) - 1) | (word & 1 << 61))

    for order in ("little", "big"):
        found = words(data, order)
        if all(fits(word) for word in found) and any(word >> 62 for word in found):
            return touched((at, word >> 55 & 1) for at, word in enumerate(found) if word >> 62)
    raise ValueError("no byte order fits")


LOW_BITS = "LERUDlASWIBMasbHTGuXnxtozig"


def page_types(data: bytes) -> Counts:
    """Only letters of the low 27 bits, and w, decide; all layouts have those at the same places (but 42: no g)."""
    header, *rest = lines(data)
    names = header.split("\t")
    pages = []
    for line in rest:
        if not line:
            break
        fields = dict(zip(names, line.split("\t"), strict=True))
        letters = fields["flags"]
        if letters[-2] == "w":
            continue
        low = LOW_BITS[:26] if len(letters) == 42 else LOW_BITS
        flags = sum(1 << at for at, letter in enumerate(letters[: len(low)]) if letter != "_")
        flags |= (letters[len(low)] == "r") << 32
        first = int(fields["offset"], 16)
        pages += [(first + at, flags) for at in range(int(fields.get("len", "1"), 16))]
    return folded(pages, False)


def thpmaps(data: bytes) -> Counts:
    text = "\n".join(lines(data))
    last = [part for part in re.split(r"\n\n+", text.strip("\n")) if part][-1]
    orders: list[int] = []
    for size, kb in re.findall(r"^(?:anon|file)-thp-p\w\w-(?:un)?aligned-(\d+)kB: +(\d+) kB", last, re.MULTILINE):
        orders += [(int(size) // 4).bit_length() - 1] * (int(kb) // int(size))
    return laid_out(orders)


def mthp(data: bytes) -> Counts:
    orders: list[int] = []
    for line in lines(data):
        if match := re.search(r"hugepages-(\d+)kB/stats/nr_anon[:\s]+(\d+)$", line):
            orders += [(int(match[1]) // 4).bit_length() - 1] * int(match[2])
    return laid_out(orders)


def smaps(data: bytes) -> Counts:
    huge = re.compile(r"(?:AnonHugePages|ShmemPmdMapped|FilePmdMapped): +(\d+)")
    kb = [int(match[1]) for line in lines(data) if (match := huge.match(line))]
    size = 1024 if any(n % 2048 for n in kb) else 2048
    return laid_out([(size // 4).bit_length() - 1] * (sum(kb) // size))


def told(data: bytes) -> Iterable[tuple[int, str]]:
    """(ns, what follows the time) of each line that has a time."""
    for line in lines(data):
        if not line.startswith("#") and (match := re.search(r"(?<=\s)(\d+)\.(\d{6,9}):\s+(?:\d+\s+)?", line)):
            yield int(match[1]) * 10**9 + int(match[2].ljust(9, "0")), line[match.end() :]


def faults(data: bytes) -> Counts:
    pairs = []
    fault = re.compile(r"(?:[\w.-]+:)?page_fault_(?:user|kernel):\s*address=0x(\w+) .*error_code=0x(\w+)$")
    for _, event in told(data):
        if match := fault.match(event):
            address, write = int(match[1], 16), int(match[2], 16) >> 1 & 1
        elif match := re.match(r"(?:page-|minor-|major-|)faults:(?:[ukhGHpPSDWeIbR]+:)?\s*([0-9a-f]+)(?:\s|$)", event):
            address, write = int(match[1], 16), 0
        else:
            continue
        if address < 1 << 63:
            pairs.append((address >> 12, write))
    return touched(pairs)


def timed(found: list[tuple[int, bool, int, int]], start: int) -> Counts:
    """The events of the last stage; found: ns, write, length, stage."""
    stage = min(stage for *_, stage in found)
    kept = [(ns, write, length) for ns, write, length, of in found if of == stage]
    first = kept[0][0] if start < 0 else start
    latest, rows = 0, []
    for ns, write, length in kept:
        latest = max(latest, ns - first)
        rows.append((latest // 1000, write, length))
    return requested(rows)


def blocks(data: bytes) -> Counts:
    stages = {"rq_issue": 0, "rq_insert": 1, "bio_queue": 2}
    request = re.compile(
        r"(?:[\w.-]+:)?block_(rq_issue|rq_insert|bio_queue):\s*"
        r"\d+,\d+ F?([WR])[A-Z]* (?:\d+ \(.*?\) )?\d+ \+ (\d+)(?: |$)"
    )
    found = []
    for ns, event in told(data):
        if (match := request.match(event)) and int(match[3]):
            found.append((ns, match[2] == "W", int(match[3]) * 512, stages[match[1]]))
    return timed(found, -1)


def blkparse(data: bytes) -> Counts:
    found = []
    for line in lines(data):
        if re.match(r"(CPU\d+|Total) \(.*\):$", line):
            break
        fields = line.split()
        if len(fields) > 9 and fields[5] in ("D", "I", "Q") and fields[8] == "+" and int(fields[9]):
            kind = fields[6].removeprefix("F")[:1]
            if kind in ("R", "W") and kind:
                seconds, nanos = fields[3].split(".")
                ns = int(seconds) * 10**9 + int(nanos)
                found.append((ns, kind == "W", int(fields[9]) * 512, "DIQ".index(fields[5])))
    return timed(found, 0)


def damon(data: bytes) -> Counts:
    regions: list[tuple[int, int, float]] = []
    if data[:1] == b"\x78":
        data = zlib.decompress(data)
    if data[:1] in (b"[", b"{"):

        def number(value: object) -> float:
            return float(str(value).replace(",", "").rstrip("% ")) if str(value) != "max" else float(2**64 - 1)

        def whole(value: object) -> int:
            return int(str(value).replace(",", "").strip()) if str(value) != "max" else 2**64 - 1

        found = json.loads(data)
        for name in ("damo_records", "damon_records", "record_list"):
            found = found[name] if isinstance(found, dict) and name in found else found
        for record in found:
            for snapshot in record["snapshots"]:
                for region in snapshot["regions"]:
                    seen = region["nr_accesses"]
                    samples = seen.get("samples")
                    regions.append(
                        (
                            whole(region["start"]),
                            whole(region["end"]),
                            number(seen["percent"] if samples is None else samples),
                        )
                    )
    else:
        line = re.compile(r"(?:[\w.-]+:)?damo(?:n_aggregated|s_before_apply):.*nr_regions=\d+ (\d+)-(\d+): (-?\d+)")
        for _, event in told(data):
            if match := line.match(event):
                regions.append((int(match[1]), int(match[2]), int(match[3])))
    taken = [range(start >> 12, (end - 1 >> 12) + 1) for start, end, seen in regions if seen > 0 and end > start]
    touches = pages = reached = 0
    last = None
    for one in taken:
        touches, last = touches + len(one) - (one[0] == last), one[-1]
    for one in sorted(taken, key=lambda pages: pages.start):  # each page once, without a list of tens of millions
        pages += max(0, one.stop - max(one.start, reached))
        reached = max(reached, one.stop)
    return {"touches": touches, "pages": pages, "writes": 0}


READERS: dict[tuple[str, str], Callable[[bytes], Counts]] = {
    ("lackey", "touches"): lackey,
    ("fio", "requests"): fio,
    ("page-types", "orders"): page_types,
    ("kpageflags", "orders"): kpageflags,
    ("pagemap", "touches"): pagemap,
    ("thpmaps", "orders"): thpmaps,
    ("mthp", "orders"): mthp,
    ("smaps", "orders"): smaps,
    ("perf", "touches"): faults,
    ("perf", "requests"): blocks,
    ("trace-cmd", "touches"): faults,
    ("trace-cmd", "requests"): blocks,
    ("blkparse", "requests"): blkparse,
    ("damon", "touches"): damon,
}
"""(Format, kind) → its second reader."""
