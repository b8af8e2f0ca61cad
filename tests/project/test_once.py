"""What is written in one file only."""

import re

import pytest

from test_house import ROOT, WRITTEN
from ultrafolio.errors import InputError
from ultrafolio.web.pages import address_of, is_loopback, listening

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


def test_pages_share_their_helpers_and_headers():
    web = {"src/ultrafolio/web/pages.py"}
    assert {file for file, _ in lines_with(r"frame-ancestors|\.listen\(\)|SO_REUSEADDR|^LOOPBACK\b")} == web
    helpers = lines_with(r"const (\$|plural) =|function (h|plural)\(", kinds=(".js",))
    assert len(helpers) == 3 and {file for file, _ in helpers} == {"src/ultrafolio/web/elements.js"}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.4.5", "::1", "localhost"])
def test_a_loopback_address_is_known(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "127.example.org", "10.0.0.1", ""])
def test_another_address_is_not_loopback(host):
    assert not is_loopback(host)


def test_a_port_that_is_taken():
    with listening("127.0.0.1", 0, "w", "a") as first, pytest.raises(InputError) as caught:
        port = first.getsockname()[1]
        assert address_of("127.0.0.1", first) == f"127.0.0.1:{port}"
        listening("127.0.0.1", port, "cannot listen there", "a free port")
    assert (caught.value.what, caught.value.value) == ("cannot listen there", port) and caught.value.cause
