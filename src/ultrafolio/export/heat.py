"""A heat line: one digit for each column of pages, as damo's `report access` prints it, so that it fits a mail.

    heatmap: 9000000011
    # min/max temperatures: 0, 153, column size: 16.000 KiB

Source: heatmap_dots() and heatmap_str() in damo_report_access.py of damo 3.4.3. A temperature here is the number of
steps, or touches, of a column's pages.
"""

from __future__ import annotations

from collections.abc import Mapping

from ultrafolio.model.layout import PAGE_SIZE

WIDTH = 80
"""Most columns, as damo's."""
LEVELS = 9
"""The highest digit."""
_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def heat(counts: Mapping[int, int], width: int = WIDTH) -> str:
    """Returns the two lines for counts by page number. The columns go from the first counted page to the last; all are
    of the same number of pages, but for the last."""
    if not counts:
        return "heatmap: n/a (no page)"
    first, last = min(counts), max(counts)
    size = -(-(last - first + 1) // width)
    columns = [0] * -(-(last - first + 1) // size)
    for page, count in counts.items():
        columns[(page - first) // size] += count
    least, most = min(columns), max(columns)
    unit = (most - least) / LEVELS or most / LEVELS or 1
    digits = "".join(str(int((count - least) / unit)) for count in columns)
    about = f"# min/max temperatures: {least:,}, {most:,}, column size: {_bytes(size * PAGE_SIZE)}"
    return f"heatmap: {digits}\n{about}"


def _bytes(size: int) -> str:
    """Returns a size as damo writes it: 4.000 KiB."""
    value, unit = float(size), "B"
    for larger in _UNITS:
        if value <= 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.3f} {unit}" if unit != "B" else f"{size} B"
