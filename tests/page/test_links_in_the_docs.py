"""Every link of the documents: Chromium opens it, and the page gives the verdict that the text claims beside it."""

import re
from urllib.parse import unquote

import pytest

import browser
from checking import ROOT, story
from memfd_cases import STORIES
from ultrafolio.model.policies import find_any
from ultrafolio.page import build, link

chromium, tab = browser.chromium, browser.tab
LINK = re.compile(r"#[\w.%~+-]+/[\w.%~+-]+/[\w-]{20,}")
ROW = re.compile(rf"^\|[^|]*\| `({LINK.pattern})` \| (holds|violated)(, [\w ,-]+)? \|$", re.MULTILINE)
DOCUMENTS = [
    file
    for folder in ("", "docs/**/", "scenarios/**/", "examples/**/", "traces/**/")
    for file in ROOT.glob(f"{folder}*.md")
]
TEXT = {file: file.read_text(encoding="utf-8") for file in DOCUMENTS}
CLAIMED = {found[1]: f"{found[2]}{found[3] or ''}" for text in TEXT.values() for found in ROW.finditer(text)}


def test_each_link_of_the_documents_stands_beside_its_verdict():
    assert ROOT / "docs/send-a-link.md" in TEXT and ROOT / "README.md" in TEXT
    assert {address for text in TEXT.values() for address in LINK.findall(text)} == set(CLAIMED)
    assert len(CLAIMED) >= 12 and {address[1:].partition("/")[0] in STORIES for address in CLAIMED} == {True, False}
    assert {said.split(",")[0] for said in CLAIMED.values()} == {"holds", "violated"}


@pytest.mark.parametrize("address", CLAIMED, ids=lambda address: address.rpartition("/")[0])
def test_each_link_is_the_one_that_the_command_prints(address):
    name, policy = map(unquote, address[1:].split("/")[:2])
    found = STORIES[name] if name in STORIES else story(name)
    assert link.link(found, name, find_any(policy, found.tables), policy) == address


@browser.NEEDED
def test_each_link_opens_with_the_verdict_that_the_text_claims(tab, tmp_path):
    file = tmp_path / "check.html"
    file.write_text(build.page(), encoding="utf-8")
    for address, said in CLAIMED.items():
        tab.goto("about:blank")
        tab.goto(f"file://{file}{address}")
        tab.wait_for_function("() => location.hash === document.documentElement.dataset.done")
        name, policy = map(unquote, address[1:].split("/")[:2])
        assert tab.text_content("#verdict") == f"{name} under {policy}: {said}"
