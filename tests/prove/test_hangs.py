"""Permanent stalls for every size: no wait that the checker calls permanent is proved, and a broken rule loses its
proof."""

import json
import re
from pathlib import Path
from random import Random

import pytest

pytest.importorskip("z3", reason="the extra `prove` is not installed")

from click.testing import CliRunner

from drawn_cases import drawn_document, drawn_policy
from proving import FEW_KINDS, ONE
from told_waits import of_answers, told, wrong
from ultrafolio import shipped
from ultrafolio.commands.prove import prove_command
from ultrafolio.errors import Defect, InputError
from ultrafolio.model import policies, scenario
from ultrafolio.prove import WITHOUT, all_but
from ultrafolio.prove.hangs import judge, words
from ultrafolio.prove.hangs.ranks import Answer
from ultrafolio.prove.hangs.s390 import LONG_TERM
from ultrafolio.prove.rules import Rules
from ultrafolio.prove.systems import Systems, meets

PAGE = Path(__file__).parents[2] / "docs/hangs.md"
STATES, LONG_STATES = 1_000, 20_000
"""States of a drawn system at most; a larger one is passed over."""
SHORT, LONG = 300, 2_000
"""Drawn systems."""


# ---------------------------------------------------------------------------------------------------- the page
VERDICTS = told("s390")


def test_the_page_has_a_verdict_for_each_wait_of_each_preset():
    assert {policy for policy, *_ in VERDICTS} == set(policies.PRESETS)
    assert {verdict for verdict, _ in VERDICTS.values()} == set(judge.VERDICTS)
    assert all(notes for verdict, notes in VERDICTS.values() if verdict == "open")
    assert all(VERDICTS[policy, "import-trylock", "lock"] == ("proved", set()) for policy in policies.PRESETS)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_page_is_what_proofs_print():
    assert PAGE.read_text() == words.document("s390"), (
        "run: python -m ultrafolio.prove.hangs.words s390 > docs/hangs.md"
    )


# ------------------------------------------------------------------------------------------ against the checker
def of(name, policy=None, left_out=WITHOUT):
    """The systems of a policy."""
    return Systems(name, policy or policies.find(name), left_out)


OUTSIDE = {
    **dict.fromkeys(("05-late-failure", "27-partial-failure", "40-gup-skips-a-page"), "a refused call"),
    "13-mapped-twice": "a second mapping", "64-io-that-never-completes": "I/O that does not complete",
}  # fmt: skip
"""Scenarios that do not meet an assumption."""


def test_no_permanent_wait_of_a_shipped_scenario_is_proved():
    total, outside = 0, set()
    for file in shipped.shipped("scenarios"):
        story = scenario.read(file)
        if not meets(story, WITHOUT) or not judge.completes(story):
            outside.add(file.stem)
            continue
        for name in policies.PRESETS:
            found = wrong(story, of(name), VERDICTS, judge.MAX_STATES)
            assert found is not None and not found[0], (file.stem, name)
            total += found[1]
    assert outside == set(OUTSIDE) and total > 150


def test_outside_the_assumption_that_io_completes_a_proved_wait_is_permanent():
    stuck = {"memory": {"folios": [0], "state": ["exported"]}, "vcpu": [{"touch": [0]}]}
    stuck["writeback"] = [{"page": [0], "completes": False}]
    story = scenario.parse(stuck, "stuck")
    assert not judge.completes(story)
    found, _ = wrong(story, of(ONE), VERDICTS, STATES)
    assert ("wait-writeback", "writeback") in found and VERDICTS[ONE, "wait-writeback", "writeback"] == (
        "proved",
        set(),
    )


def drawn(number):
    """A random system that meets the assumptions."""
    random = Random(f"hangs {number}")
    while True:
        try:
            story = scenario.parse(drawn_document(random, random.randrange(1000)), "drawn")
        except InputError:
            continue
        if meets(story, WITHOUT) and judge.completes(story):
            return story, random


def against(numbers, verdicts, policy_of, states):
    """Systems with a wait that is wrongly proved; how many permanent waits there were, and how many systems fit."""
    found, total, fit = [], 0, 0
    for number in numbers:
        story, random = drawn(number)
        name, policy = policy_of(random, number)
        seen = wrong(story, of(name, policy), verdicts, states)
        if seen:
            found += [(number, name, wait) for wait in seen[0]]
            total, fit = total + seen[1], fit + 1
    return found, total, fit


def preset(random, _):
    name = random.choice(list(policies.PRESETS))
    return name, policies.find(name)


def test_no_permanent_wait_of_a_drawn_system_is_proved():
    found, total, fit = against(range(SHORT), VERDICTS, preset, STATES)
    assert not found and total > 20 and fit > SHORT / 3


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_permanent_wait_of_many_drawn_systems_is_proved():
    found, total, fit = against(range(LONG), VERDICTS, preset, LONG_STATES)
    assert not found and total > 150 and fit > LONG / 2


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("number", range(20))
def test_no_permanent_wait_under_a_drawn_policy_is_proved(number):
    policy = drawn_policy(Random(f"hangs, policy {number}"))
    systems = of("drawn", policy)
    verdicts = of_answers(systems, judge.ranked(systems)[1])
    found, _, fit = against(range(60), verdicts, lambda *_: ("drawn", policy), LONG_STATES)
    assert not found and fit > 20


def test_a_scenario_that_contradicts_a_proof_is_a_defect():
    shown = judge.Shown("09-split-early-pin", 5, "ultrafolio check", frozenset())
    one = judge.Judged("import-freeze", "references", Answer(but=frozenset((LONG_TERM,))), found=shown)
    with pytest.raises(Defect, match="which the ranks of split exclude"):
        judge.agrees(one, of("split"))


# ------------------------------------------------------------------------------------------------- broken rules
NOT_UNLOCKED = {"    s.mm[counted(s, p)].frozen = 0\n    unlock(s, p)\n": "    s.mm[counted(s, p)].frozen = 0\n"}
LOCK_THEN_WRITEBACK = {
    "        unlock(s, k.page)\n        off_table(s, t)\n        hold_to_wait(s, t)\n        k.pc = WAIT_WRITEBACK\n"
    "        return E_WRITEBACK\n": "        return W_WRITEBACK\n"
}
"""An import keeps the folio lock while it waits for writeback."""
WRITEBACK_THEN_LOCK = {
    "    if s.who[t].stuck:\n        return W_IO\n    return writeback_over(s, t, DONE)":
    "    if s.mm[head(s, s.task[t].page)].locked:\n        return W_LOCK\n    return writeback_over(s, t, DONE)"
}  # fmt: skip
"""The end of writeback takes the folio lock."""


def answered(kinds, changed=None, policy=ONE):
    return judge.ranked(of(policy, left_out=all_but(kinds)), rules=Rules(changed))


def test_a_lock_that_is_not_released_loses_the_proof():
    lock = answered({"vcpu"}, NOT_UNLOCKED)[1]["import-trylock", "lock"]
    assert lock.open == ("lock: a step changes the folio lock, and not by what its thread holds",)


def test_two_resources_in_either_order_have_ranks_and_in_both_orders_none():
    both = {"vcpu", "writeback"}
    (ranks,), answers = answered(both, WRITEBACK_THEN_LOCK)
    assert ranks.known == {"lock": 0, "writeback": 1} and not answers["import-trylock", "lock"].open
    (ranks,), answers = answered(both, WRITEBACK_THEN_LOCK | LOCK_THEN_WRITEBACK)
    assert not ranks.known
    assert answers["import-trylock", "lock"].open == ("held while it is waited for: lock, writeback, lock",)


BROKEN = {
    "the writeback flag is never cleared": (
        "per-page", {"vcpu", "writeback"}, ("writeback-lock", "writeback"),
        {"    s.mm[head(s, k.page)].writeback = NO_WRITEBACK\n": ""},
    ),
    "a pin is not given back": (
        "per-page", {"vcpu", "disk"}, ("import-freeze", "references"),
        {"        put_ref(s, k.page + k.at, is_long(s, t))\n    if k.at == 0:\n": "    if k.at == 0:\n"},
    ),
    "the mutex is kept": (
        "import-lock", {"vcpu"}, ("import-mutex", "mutex"),
        {"        k.mutex = 0\n        s.vm[s.who[t].vm].mutex = 0\n": "        k.mutex = 0\n"},
    ),
    "the page-table lock is kept": (
        "import-lock", {"vcpu"}, ("import-map", "page table"),
        {"    unlock(s, p)\n    off_table(s, t)\n": "    unlock(s, p)\n"},
    ),
    "nobody drains": (
        "split-writeback", {"vcpu", "lru"}, ("import-freeze", "references"),
        {"    drain(s, s.task[t].page, 0)\n": ""},
    ),
    "no write-back before a split": (
        "split-writeback", {"vcpu"}, ("split", "dirty"),
        {"        k.back, k.pc = SPLIT_LOCK, WB_LOCK\n": "        k.pc = SPLIT_LOCK\n"},
    ),
    "a writeback calls for the same page again and again": (
        "whole-folio", {"vcpu", "writeback"}, ("writeback-lock", "lock"),
        {"        k.pc = ACC_CLEAR\n    else:\n        k.i += 1\n": "        k.pc = ACC_CLEAR\n    else:\n"},
    ),
}  # fmt: skip
"""Broken rules: policy, kinds of actors, the wait that is not proved any more, the change."""


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_loses_the_proof(name):
    policy, kinds, wait, changed = BROKEN[name]
    assert not answered(kinds, None, policy)[1][wait].open
    assert answered(kinds, changed, policy)[1][wait].open


# -------------------------------------------------------------------------------------------------- the command
def invoked(*given):
    result = CliRunner().invoke(prove_command, [*given], standalone_mode=False)
    if result.exception:
        raise result.exception
    return result.return_value, result.output


@pytest.fixture(scope="module")
def few():
    return judge.hangs(of(ONE, left_out=all_but(FEW_KINDS)))


def test_the_command_tells_the_verdicts(few, monkeypatch):
    monkeypatch.setattr(judge, "hangs", lambda *_, **given: few)
    code, said = invoked("--policy", ONE, "--kinds", "vcpu,disk", "--hangs")
    assert code == few.code == 0 and re.search(r"^  pin-get waits for frozen +proved$", said, re.MULTILINE)
    assert "assumed: " in said and "every I/O completes" in said and "not asked: livelocks" in said
    assert "a holder that at pin-get finds frozen taken again and again" in said
    code, said = invoked("--policy", ONE, "--hangs", "--json")
    assert {wait["verdict"] for wait in json.loads(said)["waits"]} == {"proved"}
    assert few.tally.unanswered == 0


@pytest.mark.parametrize("word", ["--facts", "--property=1"])
def test_what_cannot_be_asked_with_waits_is_refused(word):
    with pytest.raises(InputError, match="--hangs asks about waits"):
        invoked("--policy", ONE, "--hangs", word)


def test_the_verdict_that_is_worst_decides_the_exit_code(few):
    one = judge.Judged("split", "dirty", Answer(open=("why",)))
    assert judge.Hangs(few.systems, [*few.waits, one], {}, few.tally).code == 3
    shown = judge.Shown("10-iomap-no-writeback", 5, "ultrafolio check", frozenset())
    worst = judge.Judged("split", "dirty", Answer(open=("why",)), found=shown)
    assert judge.Hangs(few.systems, [one, worst], {}, few.tally).code == 1
