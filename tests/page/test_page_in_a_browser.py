"""The page of `ultrafolio export --page` in headless Chromium, opened from a file, as the reader of a mail does."""

import json
import re
import shlex

import pytest

import browser
from checking import story
from memfd_cases import STORIES
from ultrafolio.check.verdicts.verdict import check
from ultrafolio.cli import main
from ultrafolio.export.text import result_text
from ultrafolio.export.text_in import result_text as text_of_design
from ultrafolio.model import scenario
from ultrafolio.model.policies import find, find_any
from ultrafolio.page import build, link

pytestmark = browser.NEEDED
chromium, tab = browser.chromium, browser.tab
HANG = ("03-virtio", "whole-folio")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "check.html"
    path.write_text(build.page(), encoding="utf-8")
    return path


def address(name, policy, text=None):
    return (
        link.link(story(name), name, find(policy, story(name).tables), policy)
        if text is None
        else (f"#{name}/{policy}/{link.packed(text)}")
    )


def done(tab):
    """Wait until the page has its verdict on the address. As a function: the page lets nobody evaluate a text."""
    tab.wait_for_function("() => [location.hash, 'refused'].includes(document.documentElement.dataset.done)")


def open_(tab, file, fragment):
    tab.goto("about:blank")
    tab.goto(f"file://{file}{fragment}")
    done(tab)


def said(tab, element):
    return tab.text_content(f"#{element}")


def memfd(name, policy, machine):
    """A shipped scenario of guest_memfd on a machine, its policy, and its link."""
    made = scenario.on_machine(STORIES[name], machine, "x")
    chosen = find_any(policy, made.tables)
    return made, chosen, link.link(made, name, chosen, policy)


@pytest.mark.parametrize(
    ("name", "policy", "machine"),
    [
        ("g16-vfio-pin", "gmem-7.4", "snp"),
        ("g16-vfio-pin", "unmap-first", "software"),
        ("g32-fault-races", "gmem-hugetlb-2025-12", "tdx"),
        ("g29-merged-but-not-written", "gmem-hugetlb-2025-12", "software"),
        ("g47-kernel-takes-a-page", "pkvm", "pkvm"),
    ],
)
def test_an_opened_link_of_guest_memfd_says_what_the_command_says(tab, file, name, policy, machine, capsys):
    made, chosen, fragment = memfd(name, policy, machine)
    open_(tab, file, fragment)
    result = check(made, name, chosen, policy)
    assert said(tab, "verdict") == result.heading() and tab.get_attribute("#verdict", "class") == result.verdict
    shown, wanted = (re.sub(r"reproduce: .*", "", text) for text in (said(tab, "mail"), text_of_design(result)))
    assert shown == wanted and (tab.input_value("#machine"), said(tab, "wrong")) == (machine, "")
    (command,) = re.findall("^reproduce: (.*)$", said(tab, "mail"), re.MULTILINE)
    with pytest.raises(SystemExit) as ended:
        main([*shlex.split(command)[1:], "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (found["states"], found["scope"]["machine"]) == (result.states, machine)
    assert ended.value.code == int(result.verdict == "violated")
    steps = len(result.worst.steps) + len(result.worst.cycle)
    assert tab.locator("#steps li").count() == steps
    if steps:
        tab.fill("#time", str(steps))
        assert said(tab, "pages").startswith("page 0 ") and said(tab, "now") == f"{steps} of {steps}"


def test_a_scenario_of_guest_memfd_is_chosen_with_its_machine_and_policy(tab, file):
    open_(tab, file, address(*HANG))
    assert not tab.is_visible("#machine")
    tab.click("#play")
    tab.select_option("#shipped", "g38-removal-fails")
    browser.until(tab, "verdict", "g38-removal-fails under gmem-7.4: ")
    assert tab.is_visible("#machine") and tab.evaluate("location.hash") == said(tab, "link")
    for machine in ("tdx", "cca"):
        made, chosen, fragment = memfd("g38-removal-fails", "gmem-7.4", machine)
        tab.select_option("#machine", machine)
        tab.wait_for_function("(hash) => document.documentElement.dataset.done === hash", arg=fragment)
        assert said(tab, "verdict") == check(made, "g38-removal-fails", chosen, "gmem-7.4").heading()
    tab.select_option("#machine", "software")
    tab.select_option("#policy", "pkvm")
    browser.until(tab, "wrong", "a policy of the design that this machine does not support: software; allowed: pkvm")
    tab.select_option("#machine", "pkvm")
    browser.until(tab, "verdict", "under pkvm: ")
    tab.select_option("#shipped", "03-virtio")
    browser.until(tab, "verdict", "03-virtio under split: ")
    assert not tab.is_visible("#machine")


def test_a_policy_of_a_shipped_scenario_comes_with_its_table(tab, file):
    open_(tab, file, memfd("g16-vfio-pin", "gmem-7.4", "snp")[2])
    assert "[policy." not in tab.input_value("#text")
    tab.select_option("#policy", "unmap-first")
    browser.until(tab, "verdict", "g16-vfio-pin under unmap-first: holds, transient")
    assert 'iommu = "first"' in tab.input_value("#text")
    assert link.opened(tab.evaluate("location.hash")).story.machine == "snp"
    tab.fill("#text", tab.input_value("#text").replace("unshare = [0]", "share = [0]"))
    browser.until(tab, "verdict", "g16-vfio-pin-edited under unmap-first: holds, ")
    tab.fill("#text", tab.input_value("#text") + "[[virtio]]\npage = 0\n")
    browser.until(tab, "wrong", "there is no [virtio] in the design guest_memfd")


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        HANG,
        ("03-virtio", "split"),
        ("11-posted-loops", "whole-folio-literal"),
        ("36-patience", "per-page"),
        ("18-iomap-two-vcpus", "split"),
        ("03-virtio", "linux-6.17"),
    ],
)
def test_an_opened_link_says_what_the_command_says(tab, file, name, policy):
    open_(tab, file, address(name, policy))
    result = check(story(name), name, find(policy), policy)
    assert said(tab, "verdict") == result.heading() and tab.get_attribute("#verdict", "class") == result.verdict
    shown, wanted = (re.sub(r"reproduce: .*", "", text) for text in (said(tab, "mail"), result_text(result)))
    assert shown == wanted


def test_it_asks_nobody_for_anything(tab, file):
    asked = []
    tab.on("request", lambda request: asked.append(request.url))
    open_(tab, file, address(*HANG))
    assert [url.partition("#")[0] for url in asked if url != "about:blank"] == [f"file://{file}"]


def test_without_an_address_it_shows_a_shipped_scenario_and_offers_the_others(tab, file):
    open_(tab, file, "")
    assert said(tab, "verdict").startswith("03-virtio under whole-folio: violated, permanent")
    tab.select_option("#shipped", "18-iomap-two-vcpus")
    browser.until(tab, "verdict", "18-iomap-two-vcpus")
    done(tab)
    assert tab.evaluate("location.hash") == said(tab, "link")


def test_the_story_steps_plays_and_scrubs(tab, file):
    open_(tab, file, address(*HANG))
    worst = check(story(HANG[0]), HANG[0], find(HANG[1]), HANG[1]).worst
    steps = len(worst.steps) + len(worst.cycle)
    assert said(tab, "now") == f"0 of {steps}" and tab.locator("#steps li").count() == steps
    tab.keyboard.press("ArrowRight")
    tab.click("#on")
    assert said(tab, "now").startswith("2 of") and tab.locator("#steps .now").count() == 1
    tab.keyboard.press("ArrowLeft")
    assert said(tab, "now").startswith("1 of")
    tab.fill("#time", str(steps))
    assert said(tab, "now").startswith(f"{steps} of") and "permanent: vcpu 0" in said(tab, "pages")
    tab.keyboard.press("Home")
    tab.keyboard.press(" ")
    browser.until(tab, "now", "2 of")
    tab.click("#play")
    assert said(tab, "play") == "play"


def test_a_line_that_is_edited_makes_a_new_link_with_its_verdict(tab, file):
    open_(tab, file, address(*HANG))
    before = tab.evaluate("location.hash")
    tab.fill("#text", tab.input_value("#text").replace("touch = [1]", "touch = [0]"))
    browser.until(tab, "verdict", "03-virtio-edited under whole-folio: holds")
    done(tab)
    after = tab.evaluate("location.hash")
    assert after != before and said(tab, "link") == after
    found = link.opened(after)
    assert (found.name, found.policy, found.known) == ("03-virtio-edited", "whole-folio", False)
    assert found.story.actors[0][1]["touch"] == [0]
    result = check(found.story, found.name, find(found.policy), found.policy)
    assert said(tab, "verdict") == result.heading()
    tab.select_option("#policy", "refuse-large")
    browser.until(tab, "verdict", "under refuse-large: violated, fatal")


def test_a_wrong_line_is_told_and_the_last_link_stays(tab, file):
    open_(tab, file, address(*HANG))
    tab.fill("#text", tab.input_value("#text").replace("touch = [1]", "touch = [one]"))
    before = tab.evaluate("location.hash")
    browser.until(tab, "wrong", "line 6: not a value")
    assert tab.evaluate("location.hash") == before
    assert said(tab, "verdict") == "not checked"


def test_a_damaged_address_is_told(tab, file):
    open_(tab, file, address(*HANG)[:-12] + "!")
    assert "damaged" in said(tab, "wrong")


def test_one_key_copies_the_text(tab, file):
    open_(tab, file, address(*HANG))
    tab.evaluate("navigator.clipboard.writeText = (text) => { window.kept = text; return Promise.resolve(); }")
    tab.keyboard.press("c")
    browser.until(tab, "copied", "text copied")
    text = tab.evaluate("window.kept")
    assert text == said(tab, "mail") and all(len(line) <= 72 for line in text.split("\n"))
    tab.keyboard.press("l")
    browser.until(tab, "copied", "link copied")
    assert tab.evaluate("window.kept") == tab.evaluate("location.href")


def test_it_fits_a_phone(tab, file):
    tab.set_viewport_size({"width": 360, "height": 740})
    asked = (HANG, ("18-iomap-two-vcpus", "split"), ("11-posted-loops", "whole-folio-literal"))
    for fragment in (*(address(*one) for one in asked), memfd("g16-vfio-pin", "gmem-7.4", "snp")[2]):
        open_(tab, file, fragment)
        assert tab.evaluate("document.documentElement.scrollWidth") <= 360, fragment
        small = tab.evaluate(
            "[...document.querySelectorAll('button')].filter((b) => !b.closest('#steps') && "
            "b.getBoundingClientRect().height < 38).length"
        )
        assert small == 0, "a button too small for a finger"


HUGE = "[memory]\nfolios = [2]\n" + 4 * "[[vcpu]]\nshare = [0, 1]\nunshare = [0, 1]\nstarts = 3\ntouch = [0, 1, 2, 3]\n"


def test_a_system_too_large_is_refused_with_the_command_to_type(tab, chromium, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "MOST_STATES", 500)
    page = tmp_path / "small.html"
    page.write_text(build.page(), encoding="utf-8")
    open_(tab, page, address("huge", "split", HUGE))
    assert "too large for a browser" in said(tab, "verdict")
    (command,) = re.findall(r"type: ultrafolio check '(#huge/split/.*)'", said(tab, "wait"))
    assert link.opened(command).name == "huge"
