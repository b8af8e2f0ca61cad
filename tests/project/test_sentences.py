"""Sentences of README and docs about [expect] tables or rules agree with these."""

import re
from pathlib import Path

from checking import PATHS, story, system
from ultrafolio.engine.interp import to_lists
from ultrafolio.engine.load import interpreted
from ultrafolio.model import layout
from ultrafolio.model.policies import PRESETS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
FAILS = re.search(r"apart from what every policy fails\s\((.*?)\)\s+and from (.*?)\.\n", README, re.DOTALL)
FAILED = {
    name: {policy for policy, wanted in story(name).expect.items() if wanted["verdict"] == "violated"} for name in PATHS
}
EVERY = {name[:2] for name, policies in FAILED.items() if policies >= set(PRESETS)}


def numbers(text):
    return re.findall(r"\b\d\d\b", text)


def test_every_scenario_expects_something_of_every_idea():
    assert all(set(PRESETS) <= set(story(name).expect) for name in PATHS)


def test_the_readme_lists_what_every_policy_fails():
    listed = numbers(FAILS[1])
    assert sorted(listed) == sorted(EVERY)


def test_the_readme_says_who_else_fails_and_who_holds():
    (number,) = numbers(FAILS[2])
    (name,) = (name for name in PATHS if name.startswith(number))
    assert set(re.findall("`([a-z-]+)`", FAILS[2])) == set(PRESETS) - FAILED[name]


def test_the_readme_names_the_only_policies_that_fail_nothing_else():
    left = {policy: {name[:2] for name, bad in FAILED.items() if policy in bad} - EVERY for policy in PRESETS}
    others = set(numbers(FAILS[2]))
    assert {policy for policy, fails in left.items() if fails <= others} == {"per-page", "folio-bitmap-pins"}
    assert re.search(r"`per-page` and `folio-bitmap-pins` are\s+the only policies under which every leads-to", README)


def test_writeback_waits_for_an_earlier_one_without_the_lock_and_the_docs_say_so():
    state = to_lists(system("04-writeback", "per-page").state)
    t = next(n for n, who in enumerate(state.who) if who.kind == layout.WRITEBACK)
    state.task[t].pc, state.task[t].page, state.mm[0].writeback = layout.WB_LOCK, 0, layout.FLAGGED
    assert interpreted().step(state, t, 0, 0) == layout.W_WRITEBACK and not state.mm[0].locked
    state.mm[0].writeback = layout.NO_WRITEBACK
    assert interpreted().step(state, t, 0, 0) == layout.OK and state.mm[0].locked
    text = " ".join((ROOT / "docs" / "decisions.md").read_text().split())
    assert "the rule waits for both without the lock" in text and "keeps the lock meanwhile" not in text
