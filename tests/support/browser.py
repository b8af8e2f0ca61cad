"""Shared by browser tests: headless Chromium, and waits for the text of an element."""

import re
from pathlib import Path

import pytest

CHROMIUM = Path("/usr/bin/chromium")
NEEDED = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed")
SECONDS = 60_000


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def tab(chromium):
    """A new page. A console error or an exception in it fails the test."""
    context = chromium.new_context(viewport={"width": 1100, "height": 900})
    context.set_default_timeout(SECONDS)
    opened, wrong = context.new_page(), []
    opened.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.allowed = "$none"
    yield opened
    context.close()
    assert not [text for text in wrong if not re.search(opened.allowed, text)]


def until(tab, element, words):
    tab.wait_for_function(
        "([id, words]) => document.getElementById(id).textContent.includes(words)", arg=[element, words]
    )


def entry(tab, n):
    tab.wait_for_function("n => document.getElementById('time').value === String(n)", arg=n)
