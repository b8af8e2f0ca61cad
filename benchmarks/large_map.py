"""The lab's page with 262,144 pages in one folio: opened from a saved stream, drawn and scrubbed, in headless Chromium.

    python benchmarks/large_map.py [--order 18] [--json] [--shots FOLDER]

Chromium and the package playwright are needed. ms are processor time of the page's main thread. Goals: an entry on or
back under 50 ms, so that no frame is late; everything else under 250.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / name) for name in ("tests/support", ".")]

from page import CHROMIUM, Tab  # noqa: E402
from run import table  # noqa: E402

import saved_streams  # noqa: E402
from services.lab.jobs import Jobs  # noqa: E402
from services.lab.listing import Listing  # noqa: E402
from services.lab.replays import Replays  # noqa: E402
from services.lab.web import Page  # noqa: E402
from ultrafolio.state.memory import Memory, MemoryStore  # noqa: E402

FRAME_MS, MOST_MS = 50, 250
REST = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


def rows(tab: Tab, address: str, stream: Path, shots: Path | None) -> list[dict[str, Any]]:
    """The rows of the table."""
    page, made = tab.page, []
    page.set_default_timeout(600_000)

    def row(what: str, works: list[Callable[[], Any]], goal: int) -> None:
        def rested(work: Callable[[], Any]) -> None:
            work()
            page.evaluate(REST)

        took = [tab.timed(lambda work=work: rested(work))[1] for work in works]  # type: ignore[misc]
        made.append({"what": what, "median ms": median(took), "most ms": max(took), "goal ms": f"< {goal}",
                     "met": max(took) < goal})  # fmt: skip
        if shots:
            page.screenshot(path=shots / f"{len(made)}.png", full_page=True)

    def move(n: int) -> Callable[[], Any]:
        return lambda: page.evaluate("n => move(n)", n)

    page.goto(address)
    page.set_input_files("#file", str(stream))
    page.wait_for_function("() => document.getElementById('line').textContent.includes('a saved stream')")
    last = int(page.get_attribute("#time", "max"))
    row("an entry back", [move(n) for n in range(last - 1, 0, -1)], FRAME_MS)
    row("an entry on", [move(n) for n in range(1, last)], FRAME_MS)
    row("to the start, to the end", [move(n) for n in (0, last) * 5], MOST_MS)
    row("layout and drawing", [lambda: page.evaluate("map.layout()")] * 5, MOST_MS)
    row("choosing a page", [lambda: page.evaluate("map.pick(replay.codes.length - 1)")] * 5, FRAME_MS)
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description="The lab's page with many pages; see benchmarks/README.md.")
    parser.add_argument("--order", type=int, default=18, help="the folio's order [default: 18, a GiB]")
    parser.add_argument("--json", action="store_true", help="one JSON list instead of a table")
    parser.add_argument("--shots", type=Path, help="a folder for a picture after each row")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stream = folder / "folio.jsonl"
        stream.write_bytes(saved_streams.saved({"folio": saved_streams.one_folio(options.order)}))
        replays = Replays(MemoryStore(Memory(), "admin"), folder / "streams")  # type: ignore[arg-type]
        served = Page(replays, Listing(replays, Jobs(folder / "sweeps", "")), "127.0.0.1", 0)
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        made = rows(Tab(browser), f"http://{served.address}", stream, options.shots)
        browser.close()
        served.close()
    print(json.dumps(made) if options.json else table(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
