"""What is written in one file only."""

import re

from test_house import ROOT, WRITTEN

PACKAGES = ("src/", "services/", "workers/")


def lines_with(pattern, kinds=(".py",)):
    """(file, line) of every line of the packages' sources that the pattern finds."""
    files = [file for file in WRITTEN if file.startswith(PACKAGES) and file.endswith(kinds)]
    lines = [(file, line) for file in files for line in (ROOT / file).read_text().splitlines()]
    return [(file, line) for file, line in lines if re.search(pattern, line)]


def test_one_file_says_how_large_a_page_is():
    layout = "src/ultrafolio/model/layout.py"
    found = lines_with(r"\bPAGE\w* = (4096|12|0x1000|1 << )|4096 <<|[*/] 4096|>> 12\)|_encrypted \+= \d")
    assert found == [(layout, "PAGE_SHIFT = 12"), (layout, "PAGE_SIZE = 1 << PAGE_SHIFT")]
