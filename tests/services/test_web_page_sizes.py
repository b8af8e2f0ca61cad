"""The lab's page in headless Chromium with many pages: what is drawn, kept and named does not grow with them."""

import pytest

import saved_streams
from browser import NEEDED, chromium, entry, tab, until  # noqa: F401
from services.lab.jobs import Jobs
from services.lab.listing import Listing
from services.lab.replays import Replays
from services.lab.web import Page
from ultrafolio.state.memory import Memory, MemoryStore

pytestmark = NEEDED
REST = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


@pytest.fixture
def address(tmp_path):
    replays = Replays(MemoryStore(Memory(), "admin"), tmp_path / "streams")
    served = Page(replays, Listing(replays, Jobs(tmp_path / "sweeps", "")), "127.0.0.1", 0)
    yield f"http://{served.address}"
    served.close()


def saved(folder, streams):
    """A file with these streams; its name."""
    file = folder / "saved.jsonl"
    file.write_bytes(saved_streams.saved(streams))
    return str(file)


def test_ten_thousand_pages_draw_what_changed(tab, address, tmp_path):  # noqa: F811
    events = saved_streams.large(10_000, touches=4)
    tab.goto(address)
    tab.set_input_files("#file", saved(tmp_path, {"large": events}))
    until(tab, "line", "a saved stream")
    tab.keyboard.press("Home")
    entry(tab, 0)
    tab.evaluate(REST)
    before = tab.evaluate("({ ...drawn })")
    tab.evaluate("map.layout()")
    tab.evaluate(REST)
    whole = tab.evaluate("({ ...drawn })")
    assert whole["cells"] - before["cells"] == 10_000 and whole["passes"] - before["passes"] == 1
    # all entries at once, as one batch brings them: one pass, and of each page that changed one square
    changed = tab.evaluate(
        "merged(replay.frames.flatMap((frame) => ranges(frame.runs))).reduce((n, [first, end]) => n + end - first, 0)"
    )
    assert 0 < changed < 40
    tab.keyboard.press("End")
    entry(tab, len(events) - 3)
    tab.evaluate(REST)
    after = tab.evaluate("({ ...drawn })")
    assert after["cells"] - whole["cells"] == changed and after["passes"] - whole["passes"] == 1
    assert after["layouts"] == whole["layouts"]
    assert len(tab.query_selector_all("#folios tr")) <= 14
    assert tab.evaluate("document.querySelectorAll('*').length") < 600
    assert tab.evaluate("(({ scrollHeight, clientHeight }) => scrollHeight <= clientHeight)(maphold)"), "all at once"


def test_a_folio_whose_pages_all_change_at_once(tab, address, tmp_path, request):  # noqa: F811
    """An import sets the arch bit of the whole folio, beside which every other page is then exported: few runs, few
    rings, and no list of the pages."""
    order = 18 if request.config.getoption("--long") else 15
    pages, events = 1 << order, saved_streams.one_folio(order)
    tab.goto(address)
    tab.set_input_files("#file", saved(tmp_path, {"folio": events}))
    until(tab, "line", "a saved stream")
    last = len(events) - 3
    entry(tab, last)
    tab.evaluate(REST)
    assert tab.evaluate("map.tiny") and tab.is_visible("#tiny")
    assert tab.evaluate("Math.max(...replay.frames.map((frame) => frame.runs.length))") < 60
    assert tab.evaluate("replay.before.reduce((n, runs) => n + runs.length, 0)") < 60 * last
    most = tab.evaluate("replay.frames.findIndex(({ runs }) => runs.some((n, i) => i % 3 === 1 && n > 1000)) + 1")
    assert most > 0, "an entry changes nearly all pages"
    shown = {}
    for n in (most, most - 1, most, 0, last):
        before = tab.evaluate("({ ...drawn })")
        tab.evaluate("n => move(n)", n)
        entry(tab, n)
        tab.evaluate(REST)
        after = tab.evaluate("({ ...drawn })")
        assert after["passes"] - before["passes"] <= 2 and after["cells"] - before["cells"] <= pages
        assert after["layouts"] == before["layouts"]
        words = {part: tab.inner_text(part) for part in ("#counts", "#folios", "#place")}
        assert shown.setdefault(n, words) == words
        assert tab.evaluate("map.rings.length") < 20
    assert f"and {pages - 3 - 8} more" in shown[last]["#folios"], "all but those touched; eight are named"
    assert tab.evaluate("document.querySelectorAll('*').length") < 900
    tab.allowed = "willReadFrequently"  # Chromium's advice about the next line
    colours = tab.evaluate(
        "[1, 2, replay.codes.length - 1].map((p) => [...map.context.getImageData(map.x[p], map.y[p], 1, 1).data])"
    )
    assert colours[0] == colours[1] == colours[2], "as far as the last page"
    tab.evaluate("map.pick(replay.codes.length - 1)")
    until(tab, "picked", f"Page {pages - 1}: EXPORTED, in the folio of pages 0 to {pages - 1}")
