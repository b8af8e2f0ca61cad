"""The explorer's page in headless Chromium: served, and as a file opened from disk."""

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

import browser
from checking import ROOT, checked, story
from ultrafolio.cli import main
from ultrafolio.explore import embed, page
from ultrafolio.explore.goto import Guide
from ultrafolio.explore.node import node, stall_line
from ultrafolio.explore.walk import Walk, parse_path, path_text
from ultrafolio.model import scenario
from ultrafolio.model.policies import find

pytestmark = browser.NEEDED
chromium, tab = browser.chromium, browser.tab
SCENARIO, POLICIES = "scenarios/03-virtio.toml", ("whole-folio", "split")


def guides():
    made = story("03-virtio")
    return [Guide(Walk(made, SCENARIO, find(name), name)) for name in POLICIES]


OWN = ["explore", SCENARIO, *(word for name in POLICIES for word in ("--policy", name))]
MACHINES = ["explore", "g38-removal-fails", "--policy", "gmem-7.4", "--machine", "all"]


@contextmanager
def serving(port=0, asked=OWN):
    """The command's own server in a process of its own; its address."""
    words = [*asked, "--serve", "--port", str(port)]
    command = [str(Path(sys.executable).with_name("ultrafolio")), *words]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            said = process.stdout.readline()
            assert said.startswith("http://127.0.0.1:") and "this machine only" in said, said or process.stderr.read()
            with urllib.request.urlopen(f"{said.split()[0]}api/0/story", timeout=300) as answer:
                assert answer.status == 200  # the checker may have had to be compiled first
            yield said.split()[0]
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
    assert process.returncode in (0, 130, -signal.SIGINT)


@pytest.fixture(scope="module")
def address():
    with serving() as made:
        yield made


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "hang.html"
    made = guides()
    path.write_text(page.alone([guide.walk for guide in made], embed.data(made, "ultrafolio explore …")))
    return path.as_uri()


@pytest.fixture(params=["served", "file"], scope="module")
def machines(request, tmp_path_factory):
    """The page of a scenario of guest_memfd on each machine."""
    if request.param == "served":
        with serving(asked=MACHINES) as made:
            yield made
        return
    path = tmp_path_factory.mktemp("machines") / "page.html"
    with pytest.raises(SystemExit) as ended:
        main([*MACHINES, "--export", str(path)])
    assert ended.value.code == 0
    yield path.as_uri()


@pytest.fixture(params=["served", "file"])
def place(request):
    return request.getfixturevalue("address" if request.param == "served" else "file")


def at(tab, path, policy="whole-folio"):
    """Wait until the page shows the state of a path."""
    text = path if isinstance(path, str) else path_text(path)
    tab.wait_for_function("wanted => document.title.startsWith(wanted)", arg=f"{policy} {text or 'start'} ·")


def shown(tab):
    """What the page says of the state, part by part."""
    parts = (
        "#verdict",
        "#said",
        "#pages",
        "#stalls",
        "#enabled",
        "#refused",
        "#changed",
        "#actors",
        "#properties",
        "#way",
    )
    return {part: tab.inner_text(part) for part in parts}


# ------------------------------------------------------------------------------------------- walking
def test_walk_to_the_hang(tab, place):
    path = list(guides()[0].story.path)
    tab.goto(place)
    at(tab, "")
    for n, index in enumerate(path, 1):
        tab.click(f"#enabled button[data-index='{index}']")
        at(tab, path[:n])
    assert "waits for ever for: the extra references of the folio of page 1" in tab.inner_text("#verdict")
    stall = tab.inner_text("#stalls li[data-kind='permanent']")
    (told,) = node(guides()[0].walk, guides()[0].walk.follow(path).here)["stalls"]
    assert stall == stall_line(told)
    assert "page 1: EXPORTED" in tab.inner_text("#pages") and "waiting" in tab.inner_text("#properties")
    assert "W_STOPPED" in tab.inner_text("#refused") and "running(s, s.who[t].vm)" in tab.inner_text("#refused")
    assert len(tab.query_selector_all("#way li")) == len(path) + 1


def test_jump_to_the_loop_follow_links_and_go_back(tab, place):
    story_ = guides()[0].story
    tab.goto(place)
    at(tab, "")
    tab.click("#counterexample")
    at(tab, story_.path)
    tab.click("#loop")
    at(tab, story_.path + story_.loop)
    assert f"The same state as after {len(story_.path)} steps" in tab.inner_text("#said")
    assert len(tab.query_selector_all("#way li.loop")) == len(story_.loop)
    tab.click("#way li:nth-child(4) a")
    at(tab, story_.path[:3])
    tab.go_back()
    at(tab, story_.path + story_.loop)
    tab.reload()
    at(tab, story_.path + story_.loop)


def test_a_link_shows_the_same_everywhere(tab, address, file):
    guide = guides()[0]
    path = guide.goto("uv[1].state == EXPORTED").path
    seen = []
    for place in (address, file):
        tab.goto(f"{place}#/whole-folio/{path_text(path)}")
        at(tab, path)
        tab.wait_for_selector("#followers section")
        seen.append((shown(tab), tab.inner_text("#followers")))
    assert seen[0] == seen[1]
    made = node(guide.walk, guide.walk.follow(path).here)
    assert all(move["what"] in seen[0][0]["#enabled"] for move in made["enabled"])
    assert "uv[1].state SECURE → EXPORTED" in seen[0][0]["#changed"]
    assert "page 1 SECURE → EXPORTED" in seen[0][0]["#said"]


def test_policies_side_by_side(tab, place):
    lead, other = (guide.walk for guide in guides())
    path = guides()[0].story.path
    followed = other.in_step(lead.follow(path))
    tab.goto(f"{place}#/whole-folio/{path_text(path)}")
    at(tab, path)
    tab.wait_for_selector("#followers section[data-policy=split]")
    said = tab.inner_text("#followers")
    assert f"took {len(followed.path)} of {len(path)} steps" in said and "page 1: SECURE" in said
    first, last, why = followed.skipped[0]
    assert f"could not take steps {first} to {last}: {why}" in said
    tab.click("#followers a")
    at(tab, followed.path, "split")
    tab.select_option("#policy", label="whole-folio")
    at(tab, "")


def test_machines_side_by_side(tab, machines):
    """A story of guest_memfd on snp, in the words of its design; the other machines take the same steps."""
    tab.goto(machines)
    at(tab, "", "gmem-7.4 on software")
    tab.select_option("#policy", label="gmem-7.4 on snp")
    at(tab, "", "gmem-7.4 on snp")
    assert "page 0: private" in tab.inner_text("#pages") and tab.query_selector("#pages .cell.S")
    assert "mm[0].private" in tab.get_attribute("#expression", "placeholder")
    tab.keyboard.press("c")
    tab.wait_for_function("() => document.getElementById('said').textContent.includes('fault without end')")
    assert "page 0: shared" in tab.inner_text("#pages") and tab.query_selector("#pages .cell.H")
    assert "not given back" in tab.inner_text("#verdict") and "broken" in tab.inner_text("#properties")
    assert "request leads to converted or told no" in tab.inner_text("#properties")
    assert "KVM_SET_MEMORY_ATTRIBUTES2" in tab.inner_text("#refused") and "P private" in tab.inner_text("#legend")
    assert "--machine snp --path" in tab.inner_text("#again")
    tab.wait_for_selector("#followers section[data-policy='gmem-7.4 on pkvm']")
    assert len(tab.query_selector_all("#followers section")) == 4
    tab.fill("#expression", "pt[0].present == MAPPED_PRIVATE and uv[0].state == HW_PRIVATE")
    tab.press("#expression", "Enter")
    at(tab, "", "gmem-7.4 on snp")
    tab.fill("#expression", "mm[0].private == 0")
    tab.press("#expression", "Enter")
    tab.wait_for_function("() => document.getElementById('said').textContent.includes('convert-store')")
    assert "mm[0].private private → shared" in tab.inner_text("#changed")
    assert "uv[0].state private → stuck" in tab.inner_text("#changed")


# ------------------------------------------------------------------------------------------- keyboard and reader
def test_keyboard_only(tab, place):
    path = guides()[0].story.path
    tab.goto(place)
    at(tab, "")
    tab.keyboard.press("c")
    at(tab, path)
    tab.keyboard.press("Backspace")
    at(tab, path[:-1])
    tab.keyboard.press("ArrowLeft")
    at(tab, path[:-2])
    tab.keyboard.press("ArrowRight")
    at(tab, path[:-1])
    tab.keyboard.press("Home")
    at(tab, "")
    tab.keyboard.press("1")
    at(tab, "1")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("Enter")
    at(tab, "1.1")
    assert tab.evaluate("document.activeElement.dataset.index") == "1", "the focus stays among the steps"
    tab.keyboard.press("/")
    tab.keyboard.type("uv[1].state == EXPORTED and c")
    assert "EXPORTED and c" in tab.input_value("#expression"), "letters typed there are letters"
    tab.keyboard.press("Escape")
    tab.keyboard.press("l")
    at(tab, path + guides()[0].story.loop)


def test_it_can_be_read_aloud(tab, place):
    tab.goto(place)
    at(tab, "")
    assert tab.evaluate("['header', 'main', 'footer'].every((name) => document.querySelectorAll(name).length === 1)")
    assert tab.get_attribute("#said", "aria-live") == "polite" and tab.get_attribute("html", "lang") == "en"
    assert tab.evaluate(
        "[...document.querySelectorAll('section[aria-labelledby]')].every("
        "(s) => document.getElementById(s.getAttribute('aria-labelledby')))"
    )
    named = "(e) => e.labels?.length || e.textContent.trim() || e.getAttribute('aria-label')"
    assert tab.evaluate(f"[...document.querySelectorAll('button, input, select')].every({named})")
    ids = tab.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1100])
def test_it_fits_and_can_be_seen(chromium, file, scheme, width):
    context = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
    tab = context.new_page()
    tab.goto(f"{file}#/whole-folio/{path_text(guides()[0].story.path)}")
    at(tab, guides()[0].story.path)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    style = "(e) => [getComputedStyle(e).color, getComputedStyle(document.body).backgroundColor]"
    for element in tab.query_selector_all("#verdict, .soft, .holds, .waiting, #said, a"):
        ink, paper = (luminance(text) for text in element.evaluate(style))
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5
    context.close()


def luminance(text):
    """Relative luminance of "rgb(r, g, b)", as WCAG 2 defines it."""
    parts = [int(n) / 255 for n in re.findall(r"\d+", text)[:3]]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


# ------------------------------------------------------------------------------------------- questions
@pytest.mark.parametrize(
    "question",
    [
        "uv[1].state == EXPORTED",
        "not actor[0].op == NOTHING and mm[0].refs - 1 == 0",
        "1 < task[0].pc <= IMPORT_FREEZE",
        "task[0].tries == 3",
        "-(2 - 3) * mm[0].refs",
        "uv[1].state == SECURE or 1 == 1",
    ],
)
def test_a_question_is_answered_alike(tab, place, question):
    found = guides()[0].search(question)
    tab.goto(place)
    at(tab, "")
    tab.fill("#expression", question)
    tab.press("#expression", "Enter")
    tab.wait_for_function("() => /none of|nearest of/.test(document.getElementById('found').textContent)")
    assert ("nearest" in tab.inner_text("#found")) == (found.path is not None)
    if found.path is not None:
        tab.wait_for_function("n => document.querySelectorAll('#way li').length === n + 1", arg=len(found.path))


@pytest.mark.parametrize(
    ("question", "column"),
    [
        ("uv[1].stat == 1", 7),
        ("uv[7].state", 4),
        ("foo == 1", 1),
        ("mm[0].pins > 0 and vu[0].state", 20),
        ("uv[0].state ==", 15),
        ("constructor", 1),
        ("uv[0].state == ) 1", 16),
    ],
)
def test_a_wrong_question_is_explained(tab, place, question, column):
    tab.allowed = "status of 400"  # the browser itself notes each refusal by a server
    tab.goto(place)
    at(tab, "")
    tab.fill("#expression", question)
    tab.press("#expression", "Enter")
    tab.wait_for_function("() => document.getElementById('found').textContent.startsWith('expression')")
    assert f"column {column}: " in tab.inner_text("#found") and "allowed" in tab.inner_text("#found")


# ------------------------------------------------------------------------------------------- what goes wrong
@pytest.mark.parametrize(
    ("link", "says"),
    [
        ("#/whole-folio/1.1.7", "index 7 at step 3: only 2 steps are enabled"),
        ("#/whole-folio/x", "is not an index path"),
        ("#/<img src=x onerror=alert(1)>/1", "no policy '<img src=x onerror=alert(1)>' here"),
        ("#/%ff/1", "no policy '%ff' here"),
        ("#/split/" + ".".join(["0"] * 1500), "the path is too long"),
    ],
)
def test_a_wrong_link_is_explained(tab, place, link, says):
    tab.allowed = "status of 400"
    tab.goto(place + link)
    tab.wait_for_function("() => document.getElementById('trouble').textContent")
    assert says in tab.inner_text("#trouble")
    tab.click("#start" if tab.is_enabled("#start") else "#title")
    tab.evaluate("location.hash = '#/whole-folio/1'")
    at(tab, "1")
    assert tab.inner_text("#trouble") == ""


def test_a_script_in_a_name_is_text(tab, tmp_path):
    title = "<script>window.owned = 1</script><img src=x onerror='window.owned = 1'>"
    made = scenario.parse({"title": title, "memory": {"folios": [0]}, "vcpu": [{"touch": [0]}]}, "x")
    one = Walk(made, "<b>x</b>.toml", find("split"), "<i>p</i>")
    (tmp_path / "x.html").write_text(page.alone([one], embed.data([Guide(one)], "</script><b>")))
    tab.goto((tmp_path / "x.html").as_uri())
    tab.wait_for_selector("#enabled button")
    assert tab.inner_text("h1") == title and tab.inner_text("#scenario") == "<b>x</b>.toml"
    assert tab.evaluate("window.owned === undefined && !document.querySelector('h1 *, header b, header i, footer b')")


def test_a_file_says_where_it_ends(tab, tmp_path):
    guide = guides()[0]
    data = embed.data([guide], "x", max_bytes=9_000)
    (tmp_path / "part.html").write_text(page.alone([guide.walk], data))
    tab.goto((tmp_path / "part.html").as_uri())
    at(tab, "")
    assert f"This file holds {len(data['graphs'][0]['nodes'])} of 62 states" in tab.inner_text("#coverage")
    tab.keyboard.press("l")
    at(tab, guide.story.path + guide.story.loop)
    path = next(outside(data["graphs"][0]["nodes"]))
    tab.evaluate("path => location.hash = `#/whole-folio/${path}`", path_text(path))
    tab.wait_for_function("() => document.getElementById('trouble').textContent.includes('leads out of this file')")
    assert f"--path {path_text(path)}" in tab.inner_text("#trouble")
    assert guide.walk.follow(parse_path(path_text(path))).path == tuple(path)


def outside(nodes):
    """Shortest paths that leave the file."""
    ways = {0: ()}
    for number, node_ in enumerate(nodes):
        for index, (_, to) in enumerate(node_[4] if number in ways else ()):
            if to < 0:
                yield (*ways[number], index)
            else:
                ways.setdefault(to, (*ways[number], index))


def test_a_lost_server_is_shown_and_found_again(tab):
    tab.allowed = "ERR_|Failed to load"
    with serving() as first:
        tab.goto(first)
        at(tab, "")
    tab.keyboard.press("1")
    tab.wait_for_function("() => document.getElementById('trouble').textContent.includes('does not answer')")
    with serving(int(first.rstrip("/").rpartition(":")[2])):
        at(tab, "1")
        assert tab.inner_text("#trouble") == ""


def test_the_server_refuses_what_is_not_there(address):
    def status(path):
        try:
            with urllib.request.urlopen(address + path, timeout=20) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    assert status("api/0/along?path=1.1")[0] == 200
    wrong = "along?path=9", "along?path=1&from=-1", "search?expression=__import__", "along?path=0" + ".0" * 2000
    for path in (f"api/0/{words}" for words in wrong):
        code, body = status(path)
        assert code == 400 and body["error"] and "Traceback" not in body["error"]
    assert status("api/7/story")[0] == status("api/0/nothing")[0] == 404


def test_the_stories_are_the_checkers(address):
    with urllib.request.urlopen(f"{address}api/0/story", timeout=20) as answer:
        told = json.load(answer)
    worst = checked("03-virtio", "whole-folio").worst
    assert len(told["path"]) == len(worst.steps) and len(told["loop"]) == len(worst.cycle)
    assert told["wait"][1] == f"held by: {worst.wait.held_by}"
