"""The page that checks: time to each shipped pair's verdict, states a second, and frames while its stories play.

    python benchmarks/page.py [--quick] [--json] [--rounds N]

The checker alone runs in the node that playwright brings and in an empty tab of Chromium; the whole page in a tab, from
a file. `cpu ms` is processor time of the main thread, `ms` passes on the clock. Exit 1 where states or edges are not
those of [expect], 2 without Chromium or playwright. --quick: few pairs, one round.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from ultrafolio import shipped
from ultrafolio.model import scenario
from ultrafolio.model.policies import find_any
from ultrafolio.page import build, link

CHROMIUM = "/usr/bin/chromium"
LARGE = 5_000
"""States from which on a system counts for the rate: a smaller one is over before its code is compiled."""
RUNS = 4
"""Explorations of a large system in one program: the first runs while its code is compiled, the last after that."""
STORIES, PLAYED_S = 5, 10.0
IN_NODE = """
const { script, asked } = JSON.parse(require("fs").readFileSync(0, "utf8"));
(0, eval)(script);
console.log(JSON.stringify(asked.map(([work, pair]) => {
  const began = process.threadCpuUsage(), found = works[work](pair), took = process.threadCpuUsage(began);
  return { ...found, cpu: (took.user + took.system) / 1000 };
})));
"""
WATCH = """
window.seen = { done: null, long: 0, gap: 0 };
new MutationObserver(() => { if (document.documentElement?.dataset.done) window.seen.done ??= performance.now(); })
  .observe(document, { attributes: true, attributeFilter: ["data-done"], subtree: true });
new PerformanceObserver((list) => { window.seen.long += list.getEntries().length; })
  .observe({ type: "long-animation-frame" });
"""
"""Runs in a tab before the page: notes when the verdict is there, and counts the frames of more than 50 ms."""
NOTHING = "<!doctype html>\n<script>document.documentElement.dataset.done = location.hash</script>\n"
"""A page that is done at once: what Chromium takes to open any."""
CHANGE = """async (fragment) => {
  const began = performance.now(), root = document.documentElement;
  location.hash = fragment;
  while (root.dataset.done !== fragment) await new Promise((go) => {
    const seen = new MutationObserver(() => (seen.disconnect(), go()));
    seen.observe(root, { attributes: true });
  });
  return performance.now() - began;
}"""
GAPS = """() => {
  let last = performance.now();
  const next = (now) => {
    window.seen.gap = Math.max(window.seen.gap, now - last);
    last = now;
    requestAnimationFrame(next);
  };
  window.seen.long = 0;
  requestAnimationFrame(next);
}"""
Row = dict[str, Any]
Asked = list[tuple[str, Row]]


def shipped_pairs() -> list[Row]:
    """Every shipped scenario under every policy, and on every machine, of its [expect], with the numbers that it
    expects."""
    made = []
    for file in shipped.shipped("scenarios", below=True):
        read = scenario.read(file)
        for entry, wanted in read.expect.items():
            policy, _, machine = entry.partition("@")
            story = scenario.on_machine(read, machine or read.machine, file.stem)
            chosen = find_any(policy, story.tables)
            made.append({
                "name": file.stem, "policy": entry, "text": link.scenario_text(story, chosen, policy),
                "link": link.link(story, file.stem, chosen, policy),
                "states": wanted["states"], "edges": wanted["edges"],
            })  # fmt: skip
    return made


# ---------------------------------------------------------------------------------------------- the checker alone
def in_node(script: str, asked: Asked) -> list[Row]:
    """Each work done in turn in one new program: its states, edges, and ms of processor time."""
    command = [str(Path(str(find_spec("playwright").origin)).parent / "driver" / "node"), "-e", IN_NODE]  # type: ignore
    given = json.dumps({"script": script, "asked": asked})
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
    found: list[Row] = json.loads(done.stdout)
    return found


class Tab:
    """A tab of Chromium, and the processor time of its main thread."""

    def __init__(self, browser: Any) -> None:
        self.page = browser.new_context().new_page()
        self._session = self.page.context.new_cdp_session(self.page)
        self._session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def cpu(self) -> float:
        """ms of its main thread so far."""
        found = self._session.send("Performance.getMetrics")["metrics"]
        return next(1000 * float(one["value"]) for one in found if one["name"] == "ThreadTime")

    def timed(self, work: Callable[[], Any]) -> tuple[Any, float]:
        """What the work returns, and the ms of processor time that it took."""
        began = self.cpu()
        return work(), self.cpu() - began

    def close(self) -> None:
        self.page.context.close()


def in_chromium(browser: Any) -> Callable[[str, Asked], list[Row]]:
    """The same as in_node() in an empty tab, a new one each time."""

    def run(script: str, asked: Asked) -> list[Row]:
        tab, made = Tab(browser), []
        tab.page.evaluate(script + "; 0")
        for one in asked:
            found, cpu = tab.timed(lambda one=one: tab.page.evaluate("([work, pair]) => works[work](pair)", one))  # type: ignore
            made.append({**found, "cpu": cpu})
        tab.close()
        return made

    return run


def alone(where: str, run: Callable[[str, Asked], list[Row]], pairs: list[Row], rounds: int) -> list[Row]:
    """A row for the verdicts and one for each large system. AssertionError where numbers differ from [expect]."""
    script = build.script(page=False) + (Path(__file__).parent / "page.js").read_text(encoding="utf-8")
    verdicts = [run(script, [("checked", pair) for pair in pairs]) for _ in range(rounds)]
    for found in verdicts:
        equal(pairs, found, where)
    rows = [times(f"{where}: from the text to the words", [[one["cpu"] for one in found] for found in verdicts])]
    for pair in [one for one in pairs if one["states"] > LARGE]:
        runs = [run(script, [("explored", pair)] * RUNS) for _ in range(rounds)]
        for found in runs:
            equal([pair] * RUNS, found, where)
        first, last = (median(pair["states"] * 1000 / found[n]["cpu"] for found in runs) for n in (0, -1))
        rows.append({
            "system": f"{pair['name']}, {pair['policy']}", "in": where, "states": pair["states"],
            "states/s, first": round(first, -2), "states/s, fourth": round(last, -2), "goal": "200,000",
            "met": "yes" if first >= 200_000 else "fourth" if last >= 200_000 else "NO",
        })  # fmt: skip
    return rows


def equal(pairs: list[Row], found: list[Row], where: str) -> None:
    for pair, one in zip(pairs, found, strict=True):
        if (pair["states"], pair["edges"]) != (one["states"], one["edges"]):
            raise AssertionError(f"{where}, {pair['name']}, {pair['policy']}: {pair['states']} states, but {one}")


def times(what: str, cpu: list[list[float]], wall: list[list[float]] | None = None) -> Row:
    """A row over pairs, of the medians over rounds: their median, the 90th of a hundred, the largest."""
    values = [median(one) for one in zip(*cpu, strict=True)]
    row = {
        "to the verdict": what, "pairs": len(values), "median cpu ms": round(median(values), 1),
        "p90 cpu ms": round(quantiles(values, n=10, method="inclusive")[8], 1), "most cpu ms": round(max(values), 1),
        "median ms": round(median(median(one) for one in zip(*wall, strict=True)), 1) if wall else "",
    }  # fmt: skip
    return row | {"goal": "< 50", "met": "yes" if median(values) < 50 else "NO"}


# ------------------------------------------------------------------------------------------------- the whole page
def opened(tab: Tab, folder: Path, fragment: str, file: str = "check.html") -> tuple[float, float]:
    """Open a link after an empty page. Returns the ms until the verdict is there, on the clock and of the processor."""
    tab.page.goto(f"file://{folder}/empty.html")

    def work() -> float:
        tab.page.goto(f"file://{folder}/{file}{fragment}")
        tab.page.wait_for_function("() => window.seen.done !== null")
        return float(tab.page.evaluate("window.seen.done"))

    return tab.timed(work)


def played(tab: Tab, folder: Path, fragment: str, seconds: float) -> Row:
    """Play a story for so long, then step through it and scrub back. Returns its longest step and frames."""
    opened(tab, folder, fragment)
    time.sleep(0.5)  # the frames of the opening are told late
    tab.page.evaluate(GAPS)
    tab.page.click("#play")
    time.sleep(seconds)
    steps = int(tab.page.get_attribute("#time", "max"))
    tab.page.keyboard.press("Home")
    cpu = [tab.timed(lambda: tab.page.keyboard.press("ArrowRight"))[1] for _ in range(steps)]
    cpu += [tab.timed(lambda at=at: tab.page.fill("#time", str(at)))[1] for at in range(steps, -1, -1)]  # type: ignore
    seen: Row = tab.page.evaluate("window.seen")
    return {"steps": steps, "cpu": max(cpu), "gap": seen["gap"], "long": seen["long"]}


def in_page(browser: Any, folder: Path, pairs: list[Row], rounds: int, *, quick: bool) -> list[Row]:
    """Rows of the page itself: opened, given another address, and playing the longest stories."""
    tab, empty, opens, changes, stories = Tab(browser), [], [], [], {}
    tab.page.add_init_script(WATCH)
    for _ in range(rounds):
        empty.append([opened(tab, folder, pair["link"], "nothing.html") for pair in pairs[:20]])
        opens.append([opened(tab, folder, pair["link"]) for pair in pairs])
        opened(tab, folder, pairs[-1]["link"])
        changes.append([])
        for pair in pairs:
            changes[-1].append(tab.timed(lambda pair=pair: tab.page.evaluate(CHANGE, pair["link"])))  # type: ignore
            stories[pair["link"]] = int(tab.page.get_attribute("#time", "max"))
    rows = [
        times(what, [[cpu for _, cpu in one] for one in found], [[wall for wall, _ in one] for one in found])
        for what, found in (
            ("page: another address", changes), ("page: opening the file", opens), ("an empty page, opened so", empty),
        )
    ]  # fmt: skip
    longest = sorted(stories, key=stories.__getitem__)[-(1 if quick else STORIES) :]
    found = [played(tab, folder, fragment, 1 if quick else PLAYED_S) for fragment in longest]
    rows.append({
        "stories played": len(found), "steps": sum(one["steps"] for one in found),
        "longest step, cpu ms": round(max(one["cpu"] for one in found), 1),
        "longest gap between frames, ms": round(max(one["gap"] for one in found), 1),
        "frames over 50 ms": (over := sum(one["long"] for one in found)), "goal": "0", "met": "NO" if over else "yes",
    })  # fmt: skip
    tab.close()
    return rows


def measured(rounds: int, *, quick: bool) -> list[Row]:
    from playwright.sync_api import sync_playwright

    pairs = shipped_pairs()
    if quick:
        small, large = ([one for one in pairs if (one["states"] > LARGE) == big] for big in (False, True))
        pairs = small[::40] + large[:1]
    rows = [{"what": what, "bytes": len(text.encode())} for what, text in (
        ("the page, one file", build.page()), ("its checker alone", build.script(page=False)))]  # fmt: skip
    rows += alone("node", in_node, pairs, rounds)
    with sync_playwright() as started, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "check.html").write_text(build.page(), encoding="utf-8")
        (folder / "empty.html").write_text("<!doctype html>\n", encoding="utf-8")
        (folder / "nothing.html").write_text(NOTHING, encoding="utf-8")
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        rows += alone("Chromium", in_chromium(browser), pairs, rounds)
        rows += in_page(browser, folder, pairs, rounds, quick=quick)
        browser.close()
    return rows


def tables(rows: list[Row]) -> str:
    """Rows as Markdown, a table for those of the same columns."""
    kinds: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        kinds.setdefault(tuple(row), []).append(row)

    def line(values: Any) -> str:
        return f"| {' | '.join(f'{v:,.0f}' if isinstance(v, float) and v > 1000 else str(v) for v in values)} |"

    made = [[line(names), line(["---"] * len(names)), *(line(row.values()) for row in some)]
            for names, some in kinds.items()]  # fmt: skip
    return "\n\n".join("\n".join(lines) for lines in made)


def main() -> int:
    parser = argparse.ArgumentParser(description="The page that checks; see benchmarks/README.md.")
    parser.add_argument("--quick", action="store_true", help="few pairs, one round: for tests")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--rounds", type=int, default=3, help="rounds [default: 3]")
    options = parser.parse_args()
    if shutil.which(CHROMIUM) is None or find_spec("playwright") is None:
        print(f"not installed: {CHROMIUM} and the package playwright are needed", file=sys.stderr)
        return 2
    try:
        rows = measured(1 if options.quick else options.rounds, quick=options.quick)
    except AssertionError as error:
        print(f"not equal: {error}", file=sys.stderr)
        return 1
    print(json.dumps(rows) if options.json else tables(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
