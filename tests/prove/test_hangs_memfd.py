"""Permanent stalls of guest_memfd for every size: no wait that the checker calls permanent is proved, and a broken rule
loses its proof."""

import re
from dataclasses import replace
from random import Random

import pytest

pytest.importorskip("z3", reason="the extra `prove` is not installed")

import memfd_cases
from proving import fits_a_proof
from told_waits import ROOT, allowed, of_answers, told, wrong
from ultrafolio.errors import InputError
from ultrafolio.model import policies, scenario
from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.prove import all_but, without
from ultrafolio.prove.hangs import judge, memfd, words
from ultrafolio.prove.hangs.waits import Part
from ultrafolio.prove.rules import Rules
from ultrafolio.prove.systems import Systems

ONE = "gmem-7.4"
STATES = 2_000
"""States of a drawn system at most; a larger one is passed over."""
SHORT, LONG = 150, 2_000
"""Drawn systems."""
VERDICTS = told(GUEST_MEMFD.name)
ASKED = list(words.systems_of(GUEST_MEMFD.name))


# ---------------------------------------------------------------------------------------------------- the page
def test_the_page_has_a_verdict_for_each_wait_of_each_preset_on_each_machine():
    assert {label for label, *_ in VERDICTS} == {systems.label for systems in ASKED}
    assert all(notes for verdict, notes in VERDICTS.values() if verdict == "open")
    assert all(VERDICTS[systems.label, "fault-lock", "lock"] == ("proved", set()) for systems in ASKED)
    refuted = {label for (label, rule, _), (verdict, _) in VERDICTS.items() if verdict == "refuted"}
    assert "gmem-no-drain on snp" in refuted and "gmem-7.4 on snp" not in refuted


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_page_is_what_proofs_print():
    page = (ROOT / words.PAGES[GUEST_MEMFD.name]).read_text()
    assert page == words.document(GUEST_MEMFD.name), "run the command that the page names"


# ------------------------------------------------------------------------------------------ against the checker
def shipped_stalls(asked):
    """The permanent waits of shipped scenarios that are wrongly proved; how many there were."""
    found, total = [], 0
    for systems in asked:
        for story, stem, _ in systems.shipped():
            if judge.completes(story):
                seen = wrong(story, systems, VERDICTS, 0)
                assert seen is not None, stem
                found += [(systems.label, stem, wait) for wait in seen[0]]
                total += seen[1]
    return found, total


def test_no_permanent_wait_of_a_shipped_scenario_is_proved():
    found, total = shipped_stalls([one for one in ASKED if one.name in (ONE, "gmem-no-drain") and one.machine == "snp"])
    assert not found and total > 15


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_permanent_wait_of_a_shipped_scenario_is_proved_on_any_machine():
    found, total = shipped_stalls(ASKED)
    assert not found and total > 150


def drawn(numbers):
    """Random systems that meet the assumptions, each under a preset on the machine that was drawn."""
    left_out = without(GUEST_MEMFD)
    for number in numbers:
        case, random = memfd_cases.drawn(number), Random(f"hangs {number}")
        if not fits_a_proof(case):
            continue
        try:
            story = scenario.parse(case.document, case.name)
        except InputError:
            continue
        fitting = [one for one in ASKED if one.machine == story.machine]
        systems = replace(random.choice(fitting), without=left_out)
        if systems.meets(story) and judge.completes(story):
            yield story, systems


def against(numbers):
    """Systems with a wait that is wrongly proved; how many permanent waits there were, and how many systems fit."""
    found, total, fit = [], 0, 0
    for story, systems in drawn(numbers):
        seen = wrong(story, systems, VERDICTS, STATES)
        if seen:
            found += [(story.title, systems.label, wait) for wait in seen[0]]
            total, fit = total + seen[1], fit + 1
    return found, total, fit


def test_no_permanent_wait_of_a_drawn_system_is_proved():
    found, total, fit = against(range(SHORT))
    assert not found and total > 3 and fit > SHORT / 3


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_permanent_wait_of_many_drawn_systems_is_proved():
    found, total, fit = against(range(LONG))
    assert not found and total > 50 and fit > LONG / 3


def test_a_proved_wait_that_is_permanent_is_seen():
    """What the checker calls permanent is compared with what the page says, not with nothing."""
    story = scenario.read(ROOT / "scenarios/guest_memfd/g08-other-batch.toml")
    systems = next(one for one in ASKED if one.label == "gmem-no-drain on software")
    wait = "convert-count", "references"
    assert wrong(story, systems, {(systems.label, *wait): ("proved", set())}, 0) == ([wait], 1)
    assert allowed(VERDICTS[(systems.label, *wait)], story, systems)


# ------------------------------------------------------------------------------------------------- broken rules
BROKEN = {
    "a refusal keeps the lock": (
        {"vmm", "user"}, ("user-lock", "lock"),
        {"    unlock_alone(s, t)\n    k.failed, ": "    k.failed, "},
    ),
    "a pin is not given back": (
        {"vmm", "disk"}, ("convert-pinned", "references"),
        {"        put_ref(s, k.page + k.at, is_long(s, t))\n    if k.at == 0:\n": "    if k.at == 0:\n"},
    ),
    "nobody drains": (
        {"vmm", "lru"}, ("convert-count", "references"), {"            drain(s, p, cpu)\n": "            pass\n"},
    ),
    "the mappings of processes stay": (
        {"vmm", "user"}, ("convert-pinned", "references"),
        {"        m.users, m.locking = 0, 0\n    return go_on(s, t, CONVERT_P": "    return go_on(s, t, CONVERT_P"},
    ),
    "an invalidation does not end": (
        {"vmm", "vcpu"}, ("fault-map", "invalidation"),
        {"        s.mm[p].zapped = 0\n    s.vm[s.who": "        pass\n    s.vm[s.who"},
    ),
    "a fault takes no new snapshot": (
        {"vmm", "vcpu"}, ("fault-map", "invalidation"), {"    s.vm[s.who[t].vm].fresh |= 1 << t\n": ""},
    ),
    "a pin does not fault in what it finds gone": (
        {"vmm", "user", "disk"}, ("gup-recheck", "entry"),
        {"GUP_GET if maps(s, t, k.page + k.at) else USER_LOCK": "GUP_GET"},
    ),
    "a request does not go on to its next page": (
        {"vmm", "user"}, ("user-lock", "lock"),
        {"    k.i += 1\n    return go_on(s, t, CONVERT_PINNED if": "    return go_on(s, t, CONVERT_PINNED if"},
    ),
}  # fmt: skip
"""Broken rules: kinds of actors, the wait that is not proved any more, the change."""
SHORTER = ("a refusal keeps the lock", "nobody drains")


def answered(kinds, changed=None):
    systems = Systems(ONE, policies.find_any(ONE), all_but(kinds, GUEST_MEMFD), "software")
    return systems, judge.ranked(systems, rules=Rules(changed, GUEST_MEMFD))[1]


@pytest.mark.parametrize("name", SHORTER)
def test_a_broken_rule_loses_the_proof(name):
    kinds, wait, changed = BROKEN[name]
    assert not answered(kinds)[1][wait].open
    assert answered(kinds, changed)[1][wait].open


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BROKEN if name not in SHORTER])
def test_each_broken_rule_loses_the_proof(name):
    test_a_broken_rule_loses_the_proof(name)


def test_a_hole_beside_a_locked_mapping_loses_the_proof(monkeypatch):
    """A scenario may not have both: the page enters a batch, and the hole waits for it with the lock."""
    systems, answers = answered({"vmm", "user", "hole"})
    assert not any(answer.open for answer in answers.values())
    both = replace(memfd.WAITS, apart=(memfd.WAITS.apart[0], Part(memfd.WAITS.apart[1].without)))
    monkeypatch.setitem(judge.WAITS, GUEST_MEMFD.name, both)
    assert answered({"vmm", "user", "hole"})[1]["hole-punch", "references"].open


# -------------------------------------------------------------------------------------------------- the command
def test_the_verdicts_are_told_with_their_exceptions():
    systems, answers = answered({"vcpu", "vmm", "pin"})
    verdict, notes = of_answers(systems, answers)[(systems.label, "convert-pinned", "references")]
    assert verdict == "proved" and f"but for {memfd.PINS}" in notes
    made = judge.hangs(systems)
    said = words.text(made)
    assert made.code == 0 and re.search("^ +g.* has it, as the VMM need not end it, in", said, re.MULTILINE)
    assert "beside a hole" not in said and words.record(made)["machine"] == "software"
