"""SPIN runs the exported rules of guest_memfd, and counts the same states, edges and violations as the checker."""

import re

import pytest

import spin_runs
from memfd_cases import SHIPPED, STORIES, drawn, system
from plain_graph import explored, waits
from test_guest_memfd import BROKEN
from ultrafolio.engine.load import mutant
from ultrafolio.export.promela.program import export
from ultrafolio.model.designs import GUEST_MEMFD
from ultrafolio.model.guest_memfd.machines import NAMES
from ultrafolio.model.guest_memfd.policy import PRESETS

spin_needed = pytest.mark.skipif(bool(spin_runs.MISSING), reason=f"not installed: {', '.join(spin_runs.MISSING)}")

COUNTED = [
    ("g16-vfio-pin", "gmem-7.4", "software"),
    ("g36-kvms-own-reference", "gmem-no-drain", "software"),
    ("g29-merged-but-not-written", "gmem-hugetlb-2025-12", "software"),
    ("g38-removal-fails", "gmem-7.4", "snp"),
    ("g39-guest-accepts-less", "gmem-hugetlb-2025-05", "tdx"),
    ("g43-no-memory-for-a-table", "gmem-hugetlb-2025-05", "cca"),
    ("g15-hole", "gmem-two-backings", "software"),
    ("g47-kernel-takes-a-page", "pkvm", "pkvm"),
]
LEADS_TO = [
    ("g16-vfio-pin", "gmem-7.4", "software"),
    ("g16-vfio-pin", "unmap-first", "software"),
    ("g13-gup-fast", "gmem-7.4", "software"),
    ("g42-never-delegated", "gmem-7.4", "cca"),
]
FOUND = ("a fault is mapped without a look at the sequence", "a merge takes all of it for written")
"""Of the broken rules, those that SPIN is asked for in a normal run."""


def counts(made, rules=None):
    found = explored(made, rules)
    wrong = [edge.broke for edges in found.edges for edge in edges if edge.broke]
    edges = sum(map(len, found.edges))
    return spin_runs.Counts(len(found.states), edges, len(wrong), {GUEST_MEMFD.first + number for number in wrong})


def compared(folder, made, changed=None):
    """SPIN's counts, which are those of the plain implementation."""
    found = spin_runs.counted(folder, export(made, properties=True, changed=changed))
    assert found == counts(made, mutant(changed, GUEST_MEMFD) if changed else None)
    return found


def expected(folder, name, policy, machine):
    """Compare SPIN's counts with the plain implementation's, and with [expect]."""
    found = compared(folder, system(name, policy, machine))
    entry = STORIES[name].expect[policy if machine == STORIES[name].machine else f"{policy}@{machine}"]
    assert (found.states, found.edges) == (entry["states"], entry["edges"])
    assert entry["kind"] != "safety" or found.violations


@spin_needed
@pytest.mark.parametrize(("name", "policy", "machine"), COUNTED)
def test_states_edges_and_violations_are_equal(name, policy, machine, tmp_path):
    expected(tmp_path, name, policy, machine)


@spin_needed
@pytest.mark.slow
@pytest.mark.parametrize(("name", "policy", "machine"), [one for one in SHIPPED if one not in COUNTED])
def test_those_of_every_shipped_scenario_are_equal(name, policy, machine, tmp_path):
    expected(tmp_path, name, policy, machine)


@spin_needed
@pytest.mark.parametrize(
    ("name", "policy", "machine"),
    [*LEADS_TO, *(pytest.param(*one, marks=pytest.mark.slow) for one in SHIPPED if one not in LEADS_TO)],
)
def test_leads_to_has_the_same_verdict(name, policy, machine, tmp_path):
    made = system(name, policy, machine)
    found, text = explored(made), export(made, fair=True)
    assert "too many for a claim" not in text
    spin_runs.built(tmp_path, text, "-DNFAIR=3")
    claims = [(one, int(re.search(r"\d+$", one)[0])) for one in re.findall(r"^never (\w+)", text, re.MULTILINE)]
    assert {t for _, t in claims} >= set().union(*found.pending)
    unending = {t for one, t in claims if not spin_runs.always_ends(tmp_path, one)}
    assert unending == {t for _, t in claims if waits(found, t)}


@spin_needed
@pytest.mark.slow
@pytest.mark.parametrize("number", range(100))
def test_those_of_a_drawn_system_are_equal(number, tmp_path):
    compared(tmp_path, drawn(number).system())


@spin_needed
@pytest.mark.parametrize(
    "what", [what if what in FOUND else pytest.param(what, marks=pytest.mark.slow) for what in BROKEN]
)
def test_a_broken_rule_is_found_by_spin_too(what, tmp_path):
    number, name, changed = BROKEN[what]
    made = system(name, "gmem-hugetlb-2025-12" if number >= 10 else "gmem-7.4")
    assert GUEST_MEMFD.first + number in compared(tmp_path, made, changed).properties


def test_every_machine_and_preset_is_counted():
    assert {machine for *_, machine in COUNTED} == set(NAMES)
    assert {policy for _, policy, _ in COUNTED} == set(PRESETS)


def test_a_step_reads_like_its_rule():
    text = export(system("g16-vfio-pin", "gmem-7.4"))
    step = text[text.index("pin1: user-map") :]
    expected = """pin1: user-map */ task1_pc == USER_MAP ->
        mm_users[task1_at] = mm_users[task1_at] | 1;
        if
        :: task1_ref ->
            task1_ref = 0;
            mm_spec[task1_at] = mm_spec[task1_at] - 1; mm_refs[task1_at] = mm_refs[task1_at] - 1;
        :: else
        fi;
        task1_pc = GUP_WALK; /* OK */"""
    assert " ".join(step[: step.index("}")].split()) == " ".join(expected.split())
