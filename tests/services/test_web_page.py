"""The lab's page in headless Chromium, used like a person does: a running cluster, and saved streams."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

import saved_streams
from browser import NEEDED, chromium, entry, tab, until  # noqa: F401
from running_cluster import ROOT, running
from services.lab.jobs import Jobs
from services.lab.listing import Listing
from services.lab.replays import Replays
from services.lab.web import Page
from ultrafolio.conformance.suite import build
from ultrafolio.rpc.cluster import Cluster
from ultrafolio.rpc.v1 import host_mm_pb2
from ultrafolio.state.events import Steps, decode, encode
from ultrafolio.state.memory import Memory, MemoryStore
from ultrafolio.state.store import Event

pytestmark = NEEDED
SCRIPT = "<script>window.owned = 1</script><img src=x onerror='window.owned = 1'>"


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    with running(folder / "lab") as where:
        (folder / "where.json").write_text(json.dumps(where))
        yield where | {"file": str(folder / "where.json"), "scratch": folder}


@pytest.fixture(scope="module")
def address(where):
    (web,) = [part["web"] for part in where["services"] if part["service"] == "lab"]
    assert web.startswith("http://127.0.0.1:")
    return web


@pytest.fixture(scope="module")
def hung(where):
    """The group in which examples/seed_virtio.py has made the mail's hang."""
    return seed(where)


def seed(where):
    with Cluster.at(where) as lab:
        before = set(lab.store.groups())
        done = subprocess.run([sys.executable, "examples/seed_virtio.py", where["file"]], cwd=ROOT, capture_output=True)
        assert done.returncode == 0, done.stderr
        (made,) = set(lab.store.groups()) - before
    return made


@contextmanager
def lab_alone(where, folder, port=0):
    """Start a separate lab on the cluster's state. Yields the process and its page's address."""
    settings = {"ULTRAFOLIO_REDIS": where["redis"], "ULTRAFOLIO_WEB_PORT": str(port), "ULTRAFOLIO_DATA": str(folder)}
    words = [sys.executable, "-m", "services.lab"]
    with subprocess.Popen(words, cwd=ROOT, env=os.environ | settings, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process, json.loads(process.stdout.readline())["web"]
        finally:
            process.kill()


def end(opened):
    return int(opened.get_attribute("#time", "max"))


def save(where, name, data):
    file = where["scratch"] / name
    file.write_bytes(data)
    return str(file)


# ------------------------------------------------------------------------------------------------- watching
def test_the_hang_appears_on_an_open_page(tab, where, address):  # noqa: F811
    tab.goto(address)
    until(tab, "line", "connected")
    group = seed(where)
    if tab.input_value("#group") != group:
        tab.wait_for_selector(f"#group option[value='{group}']", state="attached")
        tab.select_option("#group", group)
    until(tab, "hang", "A hang: vcpu 0 (touch page 1) waits for ever")
    with Cluster.at(where) as lab:
        (wait,) = lab.host.Explain(host_mm_pb2.ExplainRequest(group=group)).waits
    assert wait.waits_for in tab.inner_text("#hang")
    shown = tab.inner_text("#waits")
    assert all(words in shown for words in ("permanent", wait.waiter, wait.waits_for, wait.held_by, wait.released_by))
    tab.wait_for_function("() => document.getElementById('counts').textContent.includes('EXPORTED 1')")
    assert "the same round" in tab.inner_text("#ladder") and "import-freeze: EBUSY" in tab.inner_text("#ladder")
    assert tab.input_value("#time") == str(end(tab)) and tab.get_attribute("#live", "aria-pressed") == "true"


def test_scrub_back_by_keyboard_and_pointer_and_reload(tab, hung, address):  # noqa: F811
    tab.goto(f"{address}#{hung}")
    until(tab, "hang", "A hang")
    tab.keyboard.press("Home")
    entry(tab, 0)
    until(tab, "hang", "Nobody waits.")
    until(tab, "counts", "EXPORTED 0")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    entry(tab, 2)
    assert tab.evaluate("location.hash") == f"#{hung}@2" and tab.title().startswith(f"{hung}@2")
    tab.focus("#time")
    tab.keyboard.press("ArrowRight")
    entry(tab, 3)
    box = tab.locator("#time").bounding_box()
    tab.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.wait_for_function(
        "() => { const { value, max } = document.getElementById('time'); return Math.abs(value - max / 2) < 4; }"
    )
    at = tab.input_value("#time")
    shown = {part: tab.inner_text(part) for part in ("#hang", "#waits", "#counts", "#folios", "#ladder")}
    tab.reload()
    entry(tab, int(at))
    until(tab, "place", f"entry {at} of")
    assert shown == {part: tab.inner_text(part) for part in shown}
    tab.click("#live")
    until(tab, "hang", "A hang")
    tab.locator("#ladder a").first.click()
    tab.wait_for_function("() => document.getElementById('live').getAttribute('aria-pressed') === 'false'")
    tab.go_back()
    until(tab, "hang", "A hang")


def test_click_a_page_and_go_on_by_keys(tab, hung, address):  # noqa: F811
    tab.goto(f"{address}#{hung}")
    until(tab, "hang", "A hang")
    tab.click("#map", position={"x": 10, "y": 10})
    until(tab, "picked", "Page 0: PINNED_SHARED, in the folio of pages 0 to 1; 1 long-term pin, 1 extra reference.")
    tab.keyboard.press("ArrowRight")
    until(tab, "picked", "Page 1: EXPORTED")
    tab.keyboard.press("ArrowLeft")
    until(tab, "picked", "Page 0")
    assert tab.input_value("#time") == str(end(tab)), "on the map, arrows choose pages"


def test_the_pages_of_a_hang_are_ringed_and_their_names_lead_there(tab, hung, address):  # noqa: F811
    tab.goto(f"{address}#{hung}")
    until(tab, "hang", "A hang")
    tab.wait_for_function("() => map.rings.length === 2")
    assert tab.evaluate("map.rings") == [[1, 2, "bad"], [0, 1, "bad"]]
    tab.click("#waits button:text('page 0')")
    until(tab, "picked", "Page 0: PINNED_SHARED")
    tab.click("#folios button:text('pages 0–1')")
    tab.keyboard.press("Home")
    tab.wait_for_function("() => map.rings.length === 0")
    for _ in range(2):
        tab.keyboard.press("ArrowRight")
    # the export of page 1, and the entry's other changes
    tab.wait_for_function("() => map.rings.some(([first, end, name]) => first <= 1 && 1 < end && name === 'step')")


def test_the_first_group_is_shown_and_another_can_be_chosen(tab, where, hung, address):  # noqa: F811
    with Cluster.at(where) as lab:
        lab.lay_out("zz-other", build("per-page", [2, 0], ["exported"], vcpu=[{}]), SCRIPT)
    tab.goto(f"{address}#{hung}")
    # the list of groups is refreshed every half second: a page opened earlier lacks the new group
    tab.wait_for_selector("#group option[value='zz-other']", state="attached")
    tab.goto("about:blank")
    tab.goto(address)
    tab.wait_for_function("() => document.title.startsWith('zz-other')")
    assert tab.inner_text("#title") == SCRIPT and tab.evaluate("window.owned === undefined")
    tab.select_option("#group", hung)
    until(tab, "hang", "A hang")
    assert tab.evaluate("location.hash") == f"#{hung}"


# ------------------------------------------------------------------------------------------------- saved streams
def test_a_saved_stream_is_opened_and_its_link_stays(tab, where, hung, address):  # noqa: F811
    file = str(where["scratch"] / "saved.jsonl")
    command = [str(Path(sys.executable).with_name("ultrafolio")), "trace", "validate", where["redis"], "--group", hung]
    assert subprocess.run([*command, "--save", file], capture_output=True).returncode == 0
    tab.goto(address)
    tab.set_input_files("#file", file)
    until(tab, "hang", "A hang: vcpu 0")
    until(tab, "line", "a saved stream")
    tab.keyboard.press("Home")
    tab.keyboard.press("ArrowRight")
    entry(tab, 1)
    assert re.fullmatch(rf"#[0-9a-f]{{16}}/{hung}@1", tab.evaluate("location.hash"))
    tab.reload()
    entry(tab, 1)


def test_a_tampered_stream_says_where(tab, where, address):  # noqa: F811
    events = saved_streams.stream(build("per-page", vcpu=[{}]), [(0, 1, 0)], SCRIPT)
    step = decode(events[-1].data)
    wrong = Steps(step.role, [type(step.steps[0])(0, 1, 0, 7)])
    data = saved_streams.saved({"cut": [*events, Event("9-9", encode(wrong))]})
    tab.goto(address)
    tab.set_input_files("#file", save(where, "cut.jsonl", data))
    until(tab, "trouble", "the rules refuse entry 9-9")
    assert "vcpu 0: may start" in tab.inner_text("#trouble") and tab.inner_text("#title") == SCRIPT
    assert end(tab) == len(events) - 3 and tab.evaluate("window.owned === undefined")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"<script>", "not a saved stream"),
        (b"x" * ((32 << 20) + 5), "the saved stream is too long"),
        (saved_streams.saved({"<img src=x>": [Event("1-1", b"x")]}), "name of a folio group"),
    ],
    ids=["no stream", "huge", "bad name"],
)
def test_a_file_that_cannot_be_shown(tab, where, address, data, says):  # noqa: F811
    tab.allowed = "status of 400"
    tab.goto(address)
    tab.set_input_files("#file", save(where, "bad", data))
    until(tab, "trouble", says)


@pytest.mark.parametrize(
    ("link", "says"),
    [
        ("#nowhere", "no such folio group"),
        ("#../../etc/passwd@3", "names no place"),
        ("#0123456789abcdef/x", "no such saved"),
        ("#<img src=x onerror=alert(1)>", "names no place: #<img src=x onerror=alert(1)>"),
        ("#%ff", "names no place"),
    ],
)
def test_a_wrong_link_is_explained(tab, hung, address, link, says):  # noqa: F811
    tab.allowed = "status of 400"
    tab.goto(address + link)
    until(tab, "trouble", says)
    assert not tab.is_visible("#replay")
    tab.evaluate("group => { location.hash = group; }", hung)
    until(tab, "hang", "A hang")
    assert tab.inner_text("#trouble") == ""


def test_an_entry_that_is_not_there_is_explained(tab, hung, address):  # noqa: F811
    tab.goto(f"{address}#{hung}@99999")
    until(tab, "trouble", "there is no entry 99999 yet")
    until(tab, "hang", "A hang")
    tab.keyboard.press("Home")
    entry(tab, 0)
    assert tab.inner_text("#trouble") == ""


# ------------------------------------------------------------------------------------------------- the line
def test_a_lost_lab_is_shown_and_found_again(tab, where, hung, tmp_path):  # noqa: F811
    tab.allowed = "ERR_|Failed to load"
    with lab_alone(where, tmp_path) as (process, web):
        tab.goto(f"{web}#{hung}")
        until(tab, "hang", "A hang")
        tab.evaluate("window.same = replay")
        process.kill()
        until(tab, "line", "does not answer")
    with Cluster.at(where) as lab:
        lab.lay_out("while-away", build("per-page", vcpu=[{}]), "made while the lab was away")
    with lab_alone(where, tmp_path, int(web.rstrip("/").rpartition(":")[2])) as (_, again):
        assert again == web
        until(tab, "line", "connected")
        tab.wait_for_selector("#group option[value='while-away']", state="attached")
        assert tab.evaluate("window.same === replay"), "it went on from the last entry it had seen"
        tab.keyboard.press("Home")
        until(tab, "hang", "Nobody waits")


def test_a_lab_without_a_page(where, tmp_path):
    settings = {"ULTRAFOLIO_REDIS": where["redis"], "ULTRAFOLIO_WEB_PORT": "-1", "ULTRAFOLIO_DATA": str(tmp_path)}
    words = [sys.executable, "-m", "services.lab"]
    with subprocess.Popen(words, cwd=ROOT, env=os.environ | settings, stdout=subprocess.PIPE, text=True) as process:
        assert "web" not in json.loads(process.stdout.readline())
        process.kill()


# ------------------------------------------------------------------------------------------------- sweeps
PLAN = """
title = "four cells"
[fixed]
duration_us = 1000
seed = 1
[grid]
policy = ["per-page", "whole-folio"]
order = [0, 2]
"""


@contextmanager
def page_over(folder):
    """Serve the page for a folder of sweeps, in this process. Yields its address."""
    replays = Replays(MemoryStore(Memory(), "admin"), folder / "streams")
    served = Page(replays, Listing(replays, Jobs(folder / "sweeps", "unix:///nowhere")), "127.0.0.1", 0)
    try:
        yield f"http://{served.address}/"
    finally:
        served.close()


def test_a_sweep_shows_its_progress_and_then_its_plots(tab, tmp_path):  # noqa: F811
    with page_over(tmp_path) as web:
        tab.goto(web)
        until(tab, "jobs", "None yet.")
        job = tmp_path / "sweeps/0123456789abcdef"
        job.mkdir()
        (job / "name").write_text(SCRIPT)
        (job / "plan.toml").write_text(PLAN)
        until(tab, "jobs", f"{SCRIPT}: running, 0 of 4 cells")
        words = [sys.executable, "-m", "ultrafolio", "sweep", job / "plan.toml", "-o", "made", "--no-report", "--quiet"]
        subprocess.run(words, cwd=tmp_path, check=True)
        # as while rows are added: no results yet
        results = (tmp_path / "made/results.parquet").rename(tmp_path / "kept")
        (tmp_path / "made").rename(job / "store")
        tab.click("#jobs summary")
        until(tab, "jobs", "Of 4 cells.")
        results.rename(job / "store/results.parquet")
        until(tab, "jobs", ": done, 4 of 4 cells")
        assert tab.evaluate("[document.querySelector('#jobs progress').value, window.owned]") == [4, None]
        tab.wait_for_selector("#jobs figure img[alt]")
        tab.locator("#jobs img").first.scroll_into_view_if_needed()
        tab.wait_for_function("() => document.querySelector('#jobs img').naturalWidth > 100")
        assert "Who hangs, by policy and folio order" in tab.inner_text("#jobs")


# ------------------------------------------------------------------------------------------------- for everybody
def test_it_can_be_read_aloud(tab, hung, address):  # noqa: F811
    tab.goto(f"{address}#{hung}")
    until(tab, "hang", "A hang")
    assert tab.evaluate("['header', 'main', 'footer'].every((name) => document.querySelectorAll(name).length === 1)")
    assert tab.get_attribute("#hang", "role") == "status" and tab.get_attribute("html", "lang") == "en"
    assert tab.evaluate(
        "[...document.querySelectorAll('section[aria-labelledby]')].every("
        "(s) => document.getElementById(s.getAttribute('aria-labelledby')))"
    )
    named = "(e) => e.labels?.length || e.textContent.trim() || e.getAttribute('aria-label')"
    assert tab.evaluate(f"[...document.querySelectorAll('button, input, select, [tabindex]')].every({named})")
    ids = tab.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))
    assert re.fullmatch(r"entry \d+ of \d+", tab.get_attribute("#time", "aria-valuetext"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1100])
def test_it_fits_and_can_be_seen(chromium, hung, address, scheme, width):  # noqa: F811
    context = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
    opened = context.new_page()
    opened.goto(f"{address}#{hung}")
    until(opened, "hang", "A hang")
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    inks = "(e) => [getComputedStyle(e).color, getComputedStyle(document.body).backgroundColor]"
    for element in opened.query_selector_all("#hang, .soft, #line, small, a, caption, #ladder .met"):
        assert contrast(*element.evaluate(inks)) >= 4.5
    letters = "({ states: colours().states, mark: colours().mark })"
    shades = opened.evaluate(letters)
    rgb = (
        "c => { const e = document.createElement('i'); e.style.color = c; document.body.append(e); "
        "const made = getComputedStyle(e).color; e.remove(); return made; }"
    )
    mark = opened.evaluate(rgb, shades["mark"])
    assert all(contrast(opened.evaluate(rgb, state), mark) >= 4.5 for state in shades["states"])
    context.close()


def contrast(one, other):
    """Contrast of two colours "rgb(r, g, b)", as WCAG 2 defines it."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(text):
    parts = [int(n) / 255 for n in re.findall(r"\d+", text)[:3]]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_it_loads_nothing_from_elsewhere(address):
    with urllib.request.urlopen(address) as answer:
        text, policy = answer.read().decode(), answer.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy and not re.search(r"https?://", text)
